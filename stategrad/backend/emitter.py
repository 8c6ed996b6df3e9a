"""Emits single MLIR operations: types and attributes as rows write them, constants, regions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxlib.mlir import ir

from stategrad import jax_compat
from stategrad.ir import Function, Type

MLIRRegion = tuple[Sequence[Any], Callable[[list[Any]], Sequence[Any]]]
"""The types of a region's parameters, ours or MLIR's, and what emits it and gives what it returns."""

# jaxlib's stubs are narrower than what the bindings accept
create: Any = ir.Operation.create
_dense_elements: Any = ir.DenseElementsAttr.get
_COMPARED_BYTES = 512


class Emitted(NamedTuple):
    """An operation, and what it was made of."""

    name: str
    types: Sequence[Any]
    operands: Sequence[Any]
    attributes: Mapping[str, Any] | None
    made: Any


class Constant(NamedTuple):
    """A constant that was asked for, and its MLIR value."""

    value: Any
    type: Type
    made: Any


class ModuleCache:
    """What is made once for an MLIR module: types, attributes, templates, and the functions that calls share.

    `functions` are their names there, `placed` those whose body has been emitted in place.
    """

    def __init__(self) -> None:
        self.types: dict[Type, Any] = {}
        self.attributes: dict[Any, Any] = {}
        self.templates: dict[Any, Any] = {}
        self.functions: dict[Any, str] = {}
        self.placed: set[Function] = set()

    @staticmethod
    def of(ctx: Any) -> "ModuleCache":
        """The one that belongs to the module that is being lowered."""
        return jax_compat.module_store(ctx).setdefault(ModuleCache, ModuleCache())


class Emitter:
    """Emits operations at the current insertion point of a JAX lowering rule (`place`), with `location`.

    `log`, if it is set, takes down what is emitted outside of regions. Types are our `Type`s, values MLIR's.
    PRNG keys are arrays of unsigned integers here.
    """

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.location: Any = ir.Location.current
        self.place: Any = ir.InsertionPoint.current
        self.cache = ModuleCache.of(ctx)
        self.log: list[Emitted | Constant] | None = None
        self._constants: dict[Any, Any] = {}

    # ---------------------------------------------------------------------------------- operations
    def op(
        self,
        name: str,
        operands: Sequence[Any],
        result_types: Sequence[Type],
        regions: Sequence[MLIRRegion] = (),
        **attributes: Any,
    ) -> list[Any]:
        """An operation; a `name` without a dialect is one of StableHLO.

        Attributes: a bool, an int (64 bits), text as MLIR writes an attribute, a sequence of ints or of bools
        (dense arrays), an integer NumPy array (a dense tensor of 64 bits); None leaves the attribute out.
        """
        types, known = [], self.cache.types
        for of in result_types:
            types.append(known.get(of) or self.mlir_type(of))
        return self.emit(name, operands, types, regions, attributes)

    def emit(
        self,
        name: str,
        operands: Sequence[Any],
        types: Sequence[Any],
        regions: Sequence[MLIRRegion] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """As `op`, with MLIR's types of the results."""
        full = name if "." in name else "stablehlo." + name
        given = self._attributes(attributes) if attributes else None
        made = create(full, types, operands, given, None, len(regions), self.location, self.place)
        if self.log is not None:
            self.log.append(Emitted(full, types, operands, given, made))
        if regions:
            for region, (params, body) in zip(made.regions, regions, strict=True):
                self._fill(region.blocks.append(*self.mlir_types(params)), body)
        return [made.result] if len(types) == 1 else list(made.results)

    def region(self, param_types: Sequence[Type], body: Callable[[list[Any]], Sequence[Any]]) -> MLIRRegion:
        """A region for `op`: `body` gets the parameters and gives what the region returns."""
        return (param_types, body)

    def _fill(self, block: Any, body: Callable[[list[Any]], Sequence[Any]]) -> None:
        outer = self._constants, self.place, self.log
        self._constants, self.log = {}, None  # inside, constants of outside would be captured values
        with ir.InsertionPoint(block) as self.place:
            found = body(list(block.arguments))
            create("stablehlo.return", [], list(found), loc=self.location)
        self._constants, self.place, self.log = outer

    # ---------------------------------------------------------------------------------- types, attributes
    def mlir_type(self, of: Type) -> Any:
        """The tensor type of values of one of our types."""
        found = self.cache.types.get(of)
        if found is None:
            found = self.cache.types[of] = jax_compat.mlir_type(self.ctx, of)
        return found

    def mlir_types(self, types: Iterable[Any]) -> list[Any]:
        """The tensor types of our types; MLIR's own, such as those of tokens, stay."""
        return [self.mlir_type(t) if isinstance(t, Type) else t for t in types]

    def _attributes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._attribute(value) for name, value in given.items() if value is not None}

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return _dense_tensor(value)
        if isinstance(value, (list, tuple, range)):
            key = (bool(value) and isinstance(value[0], bool), tuple(value))
        else:
            key = (type(value), value)
        found = self.cache.attributes.get(key)
        if found is None:
            found = self.cache.attributes[key] = _attribute(value)
        return found

    # ---------------------------------------------------------------------------------- constants
    def constant(self, value: Any, type: Type) -> Any:
        """A constant; a scalar fills the whole shape. Equal ones in a block are one."""
        if isinstance(value, jax_compat.Array):
            return self._array(value, type)
        physical = jax_compat.physical_type(type)
        array = _converted(value, physical)
        if array.nbytes > _COMPARED_BYTES:
            return self._array(array, physical)
        key = (physical, array.shape, array.tobytes())
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = self._dense(array, physical)
        if self.log is not None:
            self.log.append(Constant(value, type, found))
        return found

    def _dense(self, array: np.ndarray, type: Type) -> Any:
        to = self.mlir_type(type)
        if array.size <= 1:
            array = array.reshape(()) if array.size else np.zeros((), array.dtype)
        array = np.ascontiguousarray(array).reshape(array.shape)
        dense = _dense_elements(array, type=to.element_type, shape=type.shape)
        return create("stablehlo.constant", [to], (), {"value": dense}, loc=self.location).result

    def _array(self, value: Any, type: Type) -> Any:
        key = (id(value), type)
        found = self._constants.get(key)
        if found is None:
            with self.location:
                made = jax_compat.mlir_constant(self.ctx, value, type.with_shape(value.shape))
            if value.shape != type.shape:
                made = self._filled(made, type)
            found = self._constants[key] = (made, value)  # holds the array, so that its id stays its own
        return found[0]

    def _filled(self, scalar: Any, type: Type) -> Any:
        hidden = range(type.rank, jax_compat.physical_type(type).rank)
        return self.op("broadcast_in_dim", [scalar], [type], broadcast_dimensions=hidden)[0]


def _attribute(value: Any) -> Any:
    if isinstance(value, bool):
        return ir.BoolAttr.get(value)
    if isinstance(value, (int, np.integer)):
        return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), int(value))
    if isinstance(value, str):
        return ir.Attribute.parse(value)
    if value and isinstance(value[0], bool):
        return ir.DenseBoolArrayAttr.get(list(value))
    return ir.DenseI64ArrayAttr.get(list(value))


def _dense_tensor(value: np.ndarray) -> Any:
    wide = np.ascontiguousarray(value, np.int64)
    return _dense_elements(wide, type=ir.IntegerType.get_signless(64), shape=wide.shape)


def _converted(value: Any, type: Type) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != type.dtype.numpy:
        with np.errstate(all="ignore"):
            array = array.astype(type.dtype.numpy)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return array
