"""`python -m stategrad` is the command `stategrad`."""

import sys

from .cli import main

sys.exit(main())
