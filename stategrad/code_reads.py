"""What code reads beside its arguments, found in its bytecode."""

import dis
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from types import CodeType


@cache
def loaded(code: CodeType) -> frozenset[str]:
    """The names that code and the functions inside it load from modules and objects."""
    inner = (loaded(each) for each in code.co_consts if isinstance(each, CodeType))
    return frozenset(code.co_names).union(*inner)


@cache
def global_reads(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """The globals that code and the functions inside it load, each with the attributes taken from it."""
    return tuple(dict.fromkeys(_reads(code)))


def _reads(code: CodeType) -> Iterator[tuple[str, ...]]:
    chain: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            if chain:
                yield chain
            chain = (instruction.argval,)
        elif chain and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain = (*chain, instruction.argval)
        elif chain and instruction.opname != "CACHE":
            yield chain
            chain = ()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from global_reads(constant)


def imported(code: CodeType, package: str | None) -> set[str]:
    """The modules that code and the functions inside it import, code of a module in `package`."""
    return {resolve_name("." * level + name, package) if level else name for level, name in _imports(code)}


@cache
def _imports(code: CodeType) -> tuple[tuple[int, str], ...]:
    """Each with the number of dots before its name."""
    found, before = [], [0, 0]
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            found.append((before[0], instruction.argval))
        before = [before[1], instruction.argval]
    inner = (_imports(each) for each in code.co_consts if isinstance(each, CodeType))
    return (*found, *(each for several in inner for each in several))
