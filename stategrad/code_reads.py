"""What code reads beside its arguments, found in its bytecode."""

import dis
from collections.abc import Iterator
from functools import cache
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
