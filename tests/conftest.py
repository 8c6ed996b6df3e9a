"""Makes pytest collect golden files (`golden_files` describes them), and tests independent of their order."""

from stategrad import random
from tests.golden_files import FOLDER, GoldenFile


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files that do not match")


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".sg" and FOLDER in file_path.parents:
        return GoldenFile.from_parent(parent, path=file_path)
    return None


def pytest_runtest_setup(item):
    random._default.clear()  # what a test draws does not depend on those before it
