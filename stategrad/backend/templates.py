"""Operations that are lowered like an earlier one: the second `mul` of two f32[8,16] needs no rule.

Most rows emit one StableHLO operation of their operands, which types and attributes determine. A template is
what a rule was seen to do.
"""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from stategrad import jax_compat
from stategrad.ir import Operation, Row

from .emitter import Constant, Emitted, create

if TYPE_CHECKING:
    from .hlo import Hlo

_SELF_CONTAINED = frozenset({"stablehlo.reduce", "stablehlo.reduce_window"})
"""Operations whose regions see nothing but their own parameters: a copy means the same on other operands."""


class Template(NamedTuple):
    """One operation of all operands, in order, and then of a constant if there is one."""

    emitted: Emitted
    constant: Constant | None
    copied: bool
    """It has regions, and is made by copying."""


class Templates:
    """Lowers operations through `hlo`, by a template where there is one."""

    def __init__(self, hlo: "Hlo") -> None:
        self._hlo = hlo
        platforms = jax_compat.lowering_platforms(hlo.ctx)
        self._known: dict[Any, Template | None] = hlo.cache.templates.setdefault(platforms, {})

    def lower(self, op: Operation, operands: list[Any]) -> Sequence[Any]:
        """The MLIR values of the results."""
        row = op.opdef
        if type(row) is not Row or _has_numbers(row):
            return row.lower_op(self._hlo, op, operands)
        key = (row, *[v.type for v in op.operands], *[v.type for v in op.results], *op.attributes.items())
        try:
            template = self._known[key]
        except TypeError:  # an attribute has no hash
            return row.lower_op(self._hlo, op, operands)
        except KeyError:
            return self._by_rule(key, op, operands)
        if template is None:
            return row.lower_op(self._hlo, op, operands)
        return self._by_template(template, operands)

    def _by_template(self, template: Template, operands: list[Any]) -> Sequence[Any]:
        hlo, (name, types, _, attributes, first) = self._hlo, template.emitted
        if template.constant is not None:
            operands = [*operands, hlo.constant(template.constant.value, template.constant.type)]
        if not template.copied:
            made = create(name, types, operands, attributes, None, 0, hlo.location, hlo.place)
        else:
            made = first.clone(hlo.place)
            made.location = hlo.location
            its = made.operands
            for i, value in enumerate(operands):
                its[i] = value
        return (made.result,) if len(types) == 1 else made.results

    def _by_rule(self, key: Any, op: Operation, operands: list[Any]) -> Sequence[Any]:
        hlo = self._hlo
        outer, hlo.log = hlo.log, []
        results = op.opdef.lower_op(hlo, op, operands)
        log, hlo.log = hlo.log, outer
        self._known[key] = _template(log, operands, results)
        return results


def _template(log: list[Any], operands: list[Any], results: Sequence[Any]) -> Template | None:
    """What a rule did, if it is what a template can do again."""
    *constants, emitted = log or [None]
    if not isinstance(emitted, Emitted) or len(constants) > 1 or len(results) != len(emitted.types):
        return None
    constant = constants[0] if constants else None
    expected = operands
    if constant is not None:
        if not isinstance(constant, Constant):
            return None
        expected = [*operands, constant.made]
    copied = len(emitted.made.regions) > 0
    if copied and emitted.name not in _SELF_CONTAINED:
        return None
    if not _same(emitted.operands, expected) or not _same(results, emitted.made.results):
        return None
    return Template(emitted, constant, copied)


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(x == y for x, y in zip(some, others, strict=True))


@cache
def _has_numbers(row: Row) -> bool:
    """Whether attributes are numbers, among which equal ones such as 0.0 and -0.0 are not the same."""
    return any(name.endswith("value") for name in row.attribute_names)
