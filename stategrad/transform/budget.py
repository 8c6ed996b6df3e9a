"""What the option `residuals` of a transform may be."""

from typing import Any

import numpy as np

from stategrad.errors import GradientError
from stategrad.user_frame import user_line


def checked_budget(residuals: Any) -> int | float | None:
    """What `residuals=` says.

    Raises:
        GradientError: it is neither bytes nor a part.
    """
    whole = isinstance(residuals, (int, np.integer)) and not isinstance(residuals, bool) and residuals >= 0
    part = isinstance(residuals, (float, np.floating)) and 0 <= residuals <= 1
    if residuals is None:
        return None
    if whole or part:
        return int(residuals) if whole else float(residuals)
    raise GradientError(
        f"residuals is {residuals!r}{user_line()}; expected so many bytes, as an integer, or as a float from "
        "0.0 to 1.0 the part of what would be kept"
    )
