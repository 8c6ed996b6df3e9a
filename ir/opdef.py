"""What an operation is: one row holds its type rule, meaning, derivative, batching rule and lowering.

Rows are declared in `ops/` and found by name through `lookup`. A pass asks a row, never a list of names of
its own.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .core import PURE, Cell, Effect, Operation, Region, Type, Value
from .derivatives import Derivative, Jvp, Linear, Undefined, Zero
from .errors import DerivativeError, IRError, IRTypeError
from .record import record

if TYPE_CHECKING:
    from .build import Builder

Effects = tuple[Mapping[Cell, Effect], bool]
Tangents = Sequence[Value | None]
_KEPT_TYPES = 1024

ELEMENT_COST = 4
"""How many floating-point operations reading, computing or writing one element is worth where nothing else is
known: between an addition, which costs less, and a transcendental function, which costs more.
"""


# ------------------------------------------------------------------------------------------------ samples
@record
class Sample:
    """Operands to test a row with: floats uniform in [low, high), integers in [ints[0], ints[1]], booleans at
    random.
    """

    types: tuple[Type, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    low: float = -1.0
    high: float = 1.0
    ints: tuple[int, int] = (0, 3)


def sample(
    *types: str, low: float = -1.0, high: float = 1.0, ints: tuple[int, int] = (0, 3), **attributes: Any
) -> Sample:
    """A `Sample` from type texts: `sample("f32[2,3]", axes=(0,))`."""
    return Sample(tuple(map(Type.parse, types)), attributes, low, high, ints)


# ----------------------------------------------------------------------------------------- op definitions
class OpDef(ABC):
    """What every operation answers. `Row` declares plain ones, `StructuredOp` those with inner programs."""

    name: str
    doc: str
    segments: tuple[str, ...] = ()
    """Names of the groups that operands fall into; attributes of these names hold the lengths of all but the
    last.
    """
    symbols: tuple[str, ...] = ()
    """Attributes that print before the operands: `cell` as `$name`, `callee` as `@name`."""
    may_be_nan: bool = False
    """Whether finite operands can give a result that is not finite."""
    pure: bool = False
    """Whether no operation of this kind has effects, whatever its attributes."""
    defaults: Mapping[str, Any] = MappingProxyType({})
    """What attributes are that a text leaves out. In memory every attribute is given."""

    @abstractmethod
    def infer(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region]
    ) -> tuple[Type, ...]:
        """The types of the results.

        Raises:
            IRTypeError: operands, attributes or regions do not fit.
        """

    def inferred(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region] = ()
    ) -> tuple[Type, ...]:
        """What `infer` gives, for a builder: rules may emit the same operation many times."""
        return self.infer(types, attributes, regions)

    @abstractmethod
    def evaluate_op(self, machine: Any, op: Operation, args: Sequence[Any]) -> Sequence[Any]:
        """The results as arrays: the meaning of the operation, and the oracle of every test."""

    def effects_of(self, op: Operation) -> Effects:
        """What it does to cells, and whether it does anything outside the program."""
        return PURE

    def cost_of(self, op: Operation) -> int:
        """About how many floating-point operations it is worth, for passes that weigh computing a value again
        against keeping it.
        """
        return ELEMENT_COST * sum([v.type.size for v in (*op.operands, *op.results)])

    def jvp_of(
        self,
        b: "Builder",
        op: Operation,
        operands: Sequence[Value],
        tangents: Tangents,
        results: Sequence[Value],
    ) -> list[Value | None]:
        """Emits the tangents of the results; at least one of `tangents` is given."""
        raise IRError(f"{self.name} has no jvp of its own: a pass must use its linearize rule")

    def push_of(
        self, b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents
    ) -> tuple[Sequence[Value], list[Value | None]]:
        """Emits the results and their tangents, for operations whose derivative rule says both."""
        results = b.copy(op, operands)
        return results, self.jvp_of(b, op, operands, tangents, results)

    def transpose_of(
        self, b: "Builder", op: Operation, cotangents: Tangents, operands: Tangents
    ) -> list[Value | None]:
        """Emits the cotangents of the operands that are None in `operands` (the linear ones)."""
        raise IRError(f"{self.name} has no transpose of its own: a pass must use its transpose rule")

    def batch_of(
        self, b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]
    ) -> Sequence[Value]:
        """Emits the operation on operands of which some carry a leading batch axis; every result then carries
        it.
        """
        raise IRError(f"{self.name} has no batching rule of its own: a pass must use its batch rule")

    def named_axes(self, op: Operation) -> Collection[Hashable]:
        """The batch axes that it works along, by the names that users give them: a sum over the batch has
        one. Where that axis comes into being, `batch_along` is its batching rule.
        """
        return ()

    def batch_along(
        self,
        b: "Builder",
        op: Operation,
        operands: Sequence[Value],
        batched: Sequence[bool],
        axis: tuple[Hashable, int],
    ) -> tuple[Sequence[Value], Sequence[bool]]:
        """As `batch_of`, for the axis of this name and length, among `named_axes`. Also tells which results
        carry it: the sum does not.
        """
        raise IRError(f"{self.name} works along no named axis")

    def carried_along(
        self, op: Operation, batched: Sequence[bool], axis: tuple[Hashable, int]
    ) -> Sequence[bool]:
        """Which results of `batch_along` carry the axis."""
        raise IRError(f"{self.name} works along no named axis")

    @abstractmethod
    def lower_op(self, hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
        """Emits StableHLO through the façade `hlo`; gives one MLIR value per result."""

    def __repr__(self) -> str:
        return f"<op {self.name}>"


@dataclass(frozen=True, eq=False, kw_only=True)
class Row(OpDef):
    """The declaration of a plain operation; see docs/ir.md for the table made from all of them.

    Fields:
        type_rule: `(*operand types, **attributes) -> Type | tuple[Type, ...]`; its keyword-only parameters
            are the attributes of the operation. All are required in memory; one that has its default value
            is left out of the text.
        evaluate: `(*numpy arrays, **attributes) -> array | tuple`.
        derivative: one of `Jvp`, `Linear`, `Zero`, `Undefined`.
        batch: `(b, op, operands, batched) -> Value | tuple`; batched operands carry a leading axis, results
            must.
        lower: a StableHLO operation of the same operands, or `(hlo, op, *operands) -> value | sequence`.
        samples: operands to test with.
        cost: `op -> int`, about how many floating-point operations it takes, where that is not in
            proportion to the elements that it touches.
        summed: `(b, op, operands) -> Value`, the sum over a leading axis that every operand carries, where
            there is a better way to it than to make all the results and add them up.
        effect: the effect on the cell in attribute `cell`, for the four state effects.
    """

    name: str
    doc: str
    type_rule: Callable[..., Type | tuple[Type, ...]]
    evaluate: Callable[..., Any]
    derivative: Derivative
    batch: Callable[..., Any]
    lower: str | Callable[..., Any]
    samples: tuple[Sample, ...]
    may_be_nan: bool = False
    symbols: tuple[str, ...] = ()
    effect: Effect = Effect(0)
    cost: Callable[[Operation], int] | None = None
    summed: Callable[["Builder", Operation, Sequence[Value]], Value] | None = None
    pure: bool = field(init=False)
    _known: dict[tuple[Any, ...], tuple[Type, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pure", not self.effect)
        if not self.samples:
            raise IRError(f"row {self.name} has no samples to test it with")

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        parameters = inspect.signature(self.type_rule).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def attribute_names(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return frozenset(self._attributes)

    @cached_property
    def defaults(self) -> Mapping[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {k: v for k, v in self._attributes.items() if v is not inspect.Parameter.empty}

    def infer(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region] = ()
    ) -> tuple[Type, ...]:
        if attributes.keys() != self.attribute_names:
            raise IRTypeError(
                f"{self.name} takes the attributes {{{', '.join(sorted(self.attribute_names))}}}, "
                f"not {{{', '.join(sorted(attributes))}}}"
            )
        try:
            found = self.type_rule(*types, **attributes)
        except IRTypeError as e:
            raise IRTypeError(f"{self.name}({', '.join(map(str, types))}): {e}") from None
        except (TypeError, ValueError, IndexError, AttributeError) as e:
            shown = ", ".join(f"{k} = {v!r}" for k, v in attributes.items())
            raise IRTypeError(f"{self.name}({', '.join(map(str, types))}) {{{shown}}}: {e}") from None
        return found if isinstance(found, tuple) else (found,)

    def inferred(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region] = ()
    ) -> tuple[Type, ...]:
        if self.effect:  # there is hardly a second one on the same cell
            return self.infer(types, attributes)
        key = (*types, *attributes.items()) if attributes else tuple(types)
        try:
            found = self._known.get(key)
        except TypeError:  # an attribute has no hash: an array
            return self.infer(types, attributes)
        if found is None:
            found = self.infer(types, attributes)
            if len(self._known) >= _KEPT_TYPES:
                self._known.clear()
            self._known[key] = found
        return found

    def evaluate_op(self, machine: Any, op: Operation, args: Sequence[Any]) -> Sequence[Any]:
        return results(self.evaluate(*args, **op.attributes))

    def effects_of(self, op: Operation) -> Effects:
        return ({op.attributes["cell"]: self.effect}, False) if self.effect else PURE

    def cost_of(self, op: Operation) -> int:
        return super().cost_of(op) if self.cost is None else self.cost(op)

    def jvp_of(
        self,
        b: "Builder",
        op: Operation,
        operands: Sequence[Value],
        tangents: Tangents,
        results: Sequence[Value],
    ) -> list[Value | None]:
        rule = self.derivative
        if isinstance(rule, Jvp):
            found = rule.rule(b, op, operands, tangents, results)
            return list(found) if isinstance(found, tuple) else [found]
        if isinstance(rule, Zero):
            return [None] * len(op.results)
        if isinstance(rule, Undefined):
            raise DerivativeError(f"{self.name} has no derivative: {rule.why} (at {op.location.source})")
        return [_linear_tangent(self, rule, b, op, operands, tangents)]

    def transpose_of(
        self, b: "Builder", op: Operation, cotangents: Tangents, operands: Tangents
    ) -> list[Value | None]:
        rule = self.derivative
        transpose = rule.transpose if isinstance(rule, (Linear, Jvp)) else None
        if transpose is None:
            raise DerivativeError(
                f"{self.name} is not linear and cannot be transposed (at {op.location.source})"
            )
        linear = [i for i, operand in enumerate(operands) if operand is None]
        if len(linear) > 1 and isinstance(rule, Linear) and rule.over == "each":
            raise DerivativeError(
                f"{self.name} of two linear operands is not linear and cannot be transposed "
                f"(at {op.location.source})"
            )
        (cotangent,) = cotangents
        found: list[Value | None] = [None] * len(operands)
        if cotangent is not None:
            for i in linear:
                found[i] = transpose(b, op, i, cotangent, operands)
        return found

    def batch_of(
        self, b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]
    ) -> Sequence[Value]:
        return results(self.batch(b, op, operands, batched))

    def lower_op(self, hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
        if isinstance(self.lower, str):
            return hlo.op(self.lower, operands, [r.type for r in op.results])
        return results(self.lower(hlo, op, *operands))


def results(found: Any) -> Sequence[Any]:
    """What a rule returned as a sequence: rules of one-result rows return the bare value."""
    return found if isinstance(found, (tuple, list)) else (found,)


def _linear_tangent(
    row: Row, rule: Linear, b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents
) -> Value:
    if rule.over == "each":
        terms = [
            b.again(op, [*operands[:i], t, *operands[i + 1 :]])[0]
            for i, t in enumerate(tangents)
            if t is not None
        ]
        total = terms[0]
        for term in terms[1:]:
            total = b.add(total, term)
        return total
    wanted = [t is not None or not x.type.differentiable for t, x in zip(tangents, operands, strict=True)]
    if rule.missing is not None and not all(wanted):
        return rule.missing(b, op, tangents)
    filled = [
        t if t is not None else b.zeros(x.type) if x.type.differentiable else x
        for t, x in zip(tangents, operands, strict=True)
    ]
    return b.again(op, filled)[0]


# ------------------------------------------------------------------------------------------- the registry
ROWS: dict[str, OpDef] = {}
"""Every operation of the IR by name; filled by importing `ops`."""

_NAMESPACES: dict[str, Callable[[str], OpDef | None]] = {}


def register(opdef: OpDef) -> OpDef:
    """Makes an operation known to `lookup`, the builder and the parser.

    Raises:
        IRError: the name is taken.
    """
    if ROWS.setdefault(opdef.name, opdef) is not opdef:
        raise IRError(f"there are two rows for {opdef.name}")
    return opdef


def row(**fields: Any) -> Row:
    """Declares and registers a plain operation; the fields are those of `Row`."""
    made = Row(**fields)
    register(made)
    return made


def register_namespace(prefix: str, find: Callable[[str], OpDef | None]) -> None:
    """Lets `lookup("prefix.name")` ask `find("name")`: how foreign operations get into texts.

    Raises:
        IRError: the prefix is taken.
    """
    if _NAMESPACES.setdefault(prefix, find) is not find:
        raise IRError(f"there are two namespaces {prefix}")


def lookup(name: str) -> OpDef | None:
    """The operation of that name, or None."""
    found = ROWS.get(name)
    if found is None and "." in name:
        prefix, _, rest = name.partition(".")
        find = _NAMESPACES.get(prefix)
        found = find(rest) if find else None
    return found
