"""The shape of the code: who may import whom, how long files and functions are, that every test is run."""

import ast
import graphlib
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINKS = {"stategrad/ir": "ir", "stategrad/passes": "passes"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def module_files() -> dict[str, Path]:
    """Every module of the product by its full name."""
    found = {}
    for top in ("stategrad", "ir", "passes"):
        for path in sorted((ROOT / top).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if not any(relative.is_relative_to(link) for link in LINKS):
                parts = relative.with_suffix("").parts
                parts = parts if top == "stategrad" else ("stategrad", *parts)
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = module_files()
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), path.name)


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The full name that `from … import` starts from."""
    if node.level == 0:
        return node.module or ""
    package = module if module in PACKAGES else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def imports_of(module: str, body: ast.AST) -> Iterator[str]:
    """The full names of the modules that code of `module` imports, at once or at their first use; submodules
    taken by `from` count.
    """
    for node in ast.walk(body):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Lazy":
            yield ast.literal_eval(node.args[0])
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def loaded_by(module: str) -> set[str]:
    """What importing the module imports, without what only type checkers see."""
    body = [node for node in tree(MODULES[module]).body if not is_type_checking(node)]
    return set(imports_of(module, ast.Module(body, [])))


def is_in(name: str, *packages: str) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)


LAYERS = [
    ("stategrad.ir",),
    ("stategrad.passes",),
    (),  # what is named nowhere here: State, objects that hold States, and tracing
    ("stategrad.nn", "stategrad.random", "stategrad.backend"),
    ("stategrad.transform",),
    ("stategrad",),
    ("stategrad.demo",),
    ("stategrad.cli", "stategrad.__main__"),
]
"""From below to above; a module imports only from its own layer and those below."""


def layer(module: str) -> int:
    if module == "stategrad":
        return LAYERS.index(("stategrad",))
    for i, packages in enumerate(LAYERS):
        if packages != ("stategrad",) and is_in(module, *packages):
            return i
    return LAYERS.index(())


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    for target in imports_of(module, tree(MODULES[module])):
        if is_in(target, "stategrad"):
            assert layer(target) <= layer(module), f"{module} imports {target}, which stands above it"


LIBRARIES = {
    "stategrad.ir": {"numpy", "ml_dtypes", "lark"},
    "stategrad.passes": {"numpy", "lark", "networkx"},
    "stategrad.backend": {"numpy", "ml_dtypes", "jax", "jaxlib"},
    "stategrad.jax_compat": {"numpy", "jax", "jaxlib"},
    "stategrad.user_frame": {"jax", "jaxlib"},  # asks where their files are
    "stategrad.demo": {"numpy", "jax", "matplotlib", "rich", "sklearn"},
    "stategrad": {"numpy", "jax"},
}
"""What a part may import besides Python's own library and stategrad; the first that fits counts."""


@pytest.mark.parametrize("module", MODULES)
def test_each_part_knows_only_its_libraries(module: str) -> None:
    allowed = next(libraries for part, libraries in LIBRARIES.items() if is_in(module, part))
    used = {target.partition(".")[0] for target in imports_of(module, tree(MODULES[module]))}
    assert used - sys.stdlib_module_names - {"stategrad"} <= allowed


def test_only_the_backend_speaks_mlir() -> None:
    speaking = {
        m
        for m in MODULES
        for t in imports_of(m, tree(MODULES[m]))
        if is_in(t, "jax.extend.mlir", "jaxlib.mlir")
    }
    assert all(is_in(module, "stategrad.backend", "stategrad.jax_compat") for module in speaking), speaking


def test_jax_internals_are_in_one_place() -> None:
    users = {m for m in MODULES for target in imports_of(m, tree(MODULES[m])) if is_in(target, "jax._src")}
    assert all(is_in(module, "stategrad.jax_compat") for module in users), users


def test_no_import_cycles() -> None:
    loads = {module: loaded_by(module) & MODULES.keys() - {module} for module in MODULES}
    for module in PACKAGES:  # a package's list of public names loads its modules, which do not load the list
        loads[module] -= {"stategrad"}
    for module, targets in loads.items():
        targets -= {package for package in PACKAGES if is_in(module, package)}
    graphlib.TopologicalSorter(loads).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_no_late_imports(module: str) -> None:
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, FUNCTIONS):
            late = list(imports_of(module, node))
            assert not late, f"{node.name} imports {late}"


def test_one_dot_inside_a_folder() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.level > 1:
                assert is_in(module, "stategrad.ir.ops"), f"{module}: {ast.unparse(node)}"
                assert node.level == 2


# ------------------------------------------------------------------ sizes
def lengths() -> dict[str, int]:
    """For each function of the product how many lines it has, from `def` to its last."""
    return {
        f"{module}.{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module, path in MODULES.items()
        for node in ast.walk(tree(path))
        if isinstance(node, FUNCTIONS)
    }


def test_files_are_short() -> None:
    long = {p.name: n for p in (*MODULES.values(), *TESTS) if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_functions_are_short() -> None:
    found = lengths()
    assert not {name: n for name, n in found.items() if n > 60}
    ordered = sorted(found.values())
    assert ordered[len(ordered) // 2] <= 8
    assert ordered[len(ordered) * 9 // 10] < 25


def test_every_module_says_what_it_is() -> None:
    assert not [module for module, path in MODULES.items() if not ast.get_docstring(tree(path))]


# ------------------------------------------------------------------ packages
def test_links_show_what_the_wheel_holds() -> None:
    for link, target in LINKS.items():
        assert (ROOT / link).is_symlink()
        assert (ROOT / link).resolve() == ROOT / target
    mapping = CONFIG["tool"]["setuptools"]["package-dir"]
    assert mapping == {link.replace("/", "."): target for link, target in LINKS.items()}


def test_listed_packages_are_the_folders() -> None:
    assert set(CONFIG["tool"]["setuptools"]["packages"]) == PACKAGES


def test_every_folder_with_code_is_a_package() -> None:
    holding = {name.rpartition(".")[0] for name in MODULES if name not in PACKAGES}
    assert holding <= PACKAGES


# ------------------------------------------------------------------ tests
def collected(module: ast.Module) -> Iterator[FUNCTIONS]:
    """The functions of a test file that pytest finds."""
    for node in module.body:
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_"):
            yield node
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from (
                inner
                for inner in node.body
                if isinstance(inner, FUNCTIONS) and inner.name.startswith("test_")
            )


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.name)
def test_nothing_that_looks_like_a_test_is_left_out(path: Path) -> None:
    nodes = [
        node for node in ast.walk(tree(path)) if isinstance(node, FUNCTIONS) and node.name.startswith("test")
    ]
    found = list(collected(tree(path))) if path.name.startswith("test_") else []
    assert not {f"{node.name}:{node.lineno}" for node in nodes if node not in found}
    assert found or not path.name.startswith("test"), "a test file without tests"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.name)
def test_no_test_hides_another(path: Path) -> None:
    for scope in (n for n in ast.walk(tree(path)) if isinstance(n, ast.Module | ast.ClassDef)):
        names = [node.name for node in scope.body if isinstance(node, FUNCTIONS | ast.ClassDef)]
        assert len(names) == len(set(names)), "two definitions share a name: the first never runs"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.name)
def test_no_test_is_skipped(path: Path) -> None:
    marks = {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    assert not marks & {"skip", "skipif", "xfail", "importorskip"}


def test_only_programs_stand_among_the_golden_files() -> None:
    strangers = [p.name for p in (ROOT / "tests" / "golden").rglob("*") if p.is_file() and p.suffix != ".sg"]
    assert not strangers
