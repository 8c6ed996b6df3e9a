"""A value for every element of a basis at once, as sparse as it is known to be.

What a Jacobian pushes through a linear program starts as an identity. Scaled, transposed or summed it stays
a diagonal, a row or a matrix that is there already; only what mixes elements makes it dense.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import NamedTuple

from stategrad.ir import Builder, Type, Value, dtype
from stategrad.ir.ops.axes import reshaped, transposed
from stategrad.ir.record import record

Shape = tuple[int, ...]

_INDEX = dtype("i32")


class Axis(NamedTuple):
    """What one axis of an array runs along: an axis of the basis ("basis") or of the value ("value")."""

    kind: str
    number: int


class Sized(NamedTuple):
    """An array with what each of its axes runs along."""

    array: Value
    axes: tuple[Axis, ...]


@record
class Sparse:
    """One array for each element of a basis: at basis index i and value index j it is the core, read at those
    of i and j that its axes name, where i and j agree in all ties, and zero elsewhere.

    Attributes:
        core: runs along some axes of the basis and of the value; others make no difference.
        type: the type of the value for one element of the basis.
        basis: the shape of the basis. Shapes of one size stand for one basis, in row-major order.
        ties: axes of the value, each with the axis of the basis that it must agree with. A core has such an
            axis as one of the basis.
    """

    core: Sized
    type: Type
    basis: Shape
    ties: Mapping[int, int] = field(default_factory=dict)

    @property
    def along_basis(self) -> set[int]:
        """The axes of the basis that the core runs along."""
        return {a.number for a in self.core.axes if a.kind == "basis"}

    def place(self, axis: int) -> Axis:
        """What an axis of the core that stands for this axis of the value runs along."""
        return Axis("basis", self.ties[axis]) if axis in self.ties else Axis("value", axis)

    def size(self, axis: Axis) -> int:
        """The length of an axis."""
        return (self.basis if axis.kind == "basis" else self.type.shape)[axis.number]


def one_hot(b: Builder, type: Type) -> Sparse:
    """The standard basis of a type, in the shape of the type: an identity."""
    ties = {i: i for i, n in enumerate(type.shape) if n != 1}
    return Sparse(Sized(b.constant(1, type.with_shape(())), ()), type, type.shape, ties)


def spread(b: Builder, x: Sized, axes: Sequence[Axis], sizes: Sequence[int]) -> Value:
    """The array with its axes in another order, and copies along those that it lacks."""
    array = transposed(b, x.array, [x.axes.index(a) for a in axes if a in x.axes])
    if array.type.shape == tuple(sizes):
        return array
    dimensions = tuple(i for i, a in enumerate(axes) if a in x.axes)
    return b.broadcast(array, shape=tuple(sizes), dimensions=dimensions)


def arranged(b: Builder, x: Sparse, axes: Sequence[Axis]) -> Value:
    """The core with exactly these axes, which must be all that it has and may be more."""
    return spread(b, x.core, axes, list(map(x.size, axes)))


def dense(b: Builder, x: Sparse, basis: Shape, basis_first: bool) -> Value:
    """Everything written out: the axes of the basis, in this shape, and of the value, in one order or the
    other.
    """
    x = rebased(b, x, basis)
    first = [Axis("basis", i) for i in range(len(basis))]
    second = [Axis("value", j) for j in range(x.type.rank)]
    axes = [*first, *second] if basis_first else [*second, *first]
    return _without_ties(b, x, list(x.ties), axes)


# ------------------------------------------------------------------------------------------------ ties
def untied(b: Builder, x: Sparse, which: Iterable[int]) -> Sparse:
    """The same value with zeros written out in place of the ties of these axes."""
    gone = [j for j in sorted(which) if j in x.ties]
    if not gone:
        return x
    pairs = (a for j in gone for a in (Axis("basis", x.ties[j]), Axis("value", j)))
    axes = tuple(sorted({*x.core.axes, *pairs}))
    core = Sized(_without_ties(b, x, gone, axes), axes)
    return replace(x, core=core, ties={j: i for j, i in x.ties.items() if j not in gone})


def _without_ties(b: Builder, x: Sparse, gone: Sequence[int], axes: Sequence[Axis]) -> Value:
    """The core with exactly these axes, and zeros where the axes that are tied no longer do not agree."""
    pairs = [sorted((Axis("basis", x.ties[j]), Axis("value", j)), key=axes.index) for j in gone]
    # Where the two agree either will do: what depends on an outer axis only is computed once for a row.
    outer = {Axis("basis", x.ties[j]): pair[0] for j, pair in zip(gone, pairs, strict=True)}
    core = Sized(x.core.array, tuple(outer.get(a, a) for a in x.core.axes))
    sizes = list(map(x.size, axes))
    filled = spread(b, core, axes, sizes)
    if not pairs:
        return filled
    mask = spread(b, _agreement(b, x, pairs), axes, sizes)
    return b.select(mask, filled, b.zeros(filled.type))


def _agreement(b: Builder, x: Sparse, pairs: Sequence[Sequence[Axis]]) -> Sized:
    """Where all of these pairs of axes have one index."""
    axes = tuple(a for pair in zip(*pairs, strict=True) for a in pair)
    type = Type(_INDEX, tuple(map(x.size, axes)))
    masks = [b.eq(*(b.iota(type=type, dimension=axes.index(a)) for a in pair)) for pair in pairs]
    both = masks[0]
    for mask in masks[1:]:
        both = b.call_row("and", both, mask)
    return Sized(both, axes)


# ------------------------------------------------------------------------------------------------ shapes
def groups(old: Shape, new: Shape) -> list[tuple[range, range]]:
    """Two shapes of one size in the shortest runs of axes that hold as many elements."""
    if 0 in old:
        return [(range(len(old)), range(len(new)))]
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start = i, j
        if j == len(new) or (i < len(old) and old[i] == 1 != new[j]):
            i += 1
        elif i == len(old) or (new[j] == 1 != old[i]):
            j += 1
        else:
            i, j = _run(old, new, i, j)
        found.append((range(start[0], i), range(start[1], j)))
    return found


def _run(old: Shape, new: Shape, i: int, j: int) -> tuple[int, int]:
    left, right, i, j = old[i], new[j], i + 1, j + 1
    while left != right:
        if left < right:
            left, i = left * old[i], i + 1
        else:
            right, j = right * new[j], j + 1
    return i, j


def is_kept(old: Shape, new: Shape, group: tuple[range, range]) -> bool:
    """Whether a run is one axis that stays as it is."""
    olds, news = group
    return len(olds) == len(news) == 1 and old[olds[0]] == new[news[0]]


def regrouped(b: Builder, x: Sized, kind: str, old: Shape, new: Shape) -> Sized:
    """The array when the axes of one kind, of shape `old`, have become those of shape `new`. What runs along
    a part of a run is copied along the rest first.
    """
    sizes = dict(zip(x.axes, x.array.type.shape, strict=True))
    before = after = [a for a in x.axes if a.kind != kind]
    for olds, news in groups(old, new):
        run = [Axis(kind, i) for i in olds]
        if any(a in sizes for a in run):
            before = [*before, *run]
            after = [*after, *(Axis(kind, j) for j in news)]
    full = spread(b, x, before, [old[a.number] if a.kind == kind else sizes[a] for a in before])
    shape = tuple(new[a.number] if a.kind == kind else sizes[a] for a in after)
    return Sized(reshaped(b, full, shape), tuple(after))


def rebased(b: Builder, x: Sparse, basis: Shape) -> Sparse:
    """The same along another shape of the basis."""
    if x.basis == basis:
        return x
    moved = {g[0][0]: g[1][0] for g in groups(x.basis, basis) if is_kept(x.basis, basis, g)}
    x = untied(b, x, [j for j, i in x.ties.items() if i not in moved])
    core = regrouped(b, x.core, "basis", x.basis, basis)
    return Sparse(core, x.type, basis, {j: moved[i] for j, i in x.ties.items()})


def with_shape(b: Builder, x: Sparse, shape: Shape) -> Sparse:
    """The same with the value in another shape. A run of axes tied to a run of the basis takes that along."""
    old = x.type.shape
    runs = groups(old, shape)
    for group in runs:
        if not is_kept(old, shape, group) and _basis_run(x, group[0]) is None:
            x = untied(b, x, group[0])
    taken = {_basis_run(x, olds): news for olds, news in runs if any(j in x.ties for j in olds)}
    basis: list[int] = []
    ties: dict[int, int] = {}
    for i, n in enumerate(x.basis):
        run = next((r for r in taken if r is not None and i in r), None)
        if run is None:
            basis.append(n)
        elif i == run[0]:
            for j in taken[run]:
                if shape[j] != 1:
                    ties[j] = len(basis)
                    basis.append(shape[j])
    core = regrouped(b, x.core, "basis", x.basis, tuple(basis))
    core = regrouped(b, core, "value", old, shape)
    return Sparse(core, x.type.with_shape(shape), tuple(basis), ties)


def _basis_run(x: Sparse, axes: Sequence[int]) -> range | None:
    """The axes of the basis, one after the other, that a run of axes of the value is tied to as a whole."""
    tied = [x.ties[j] for j in axes if j in x.ties]
    if not tied or tied != sorted(tied):
        return None
    run = range(tied[0], tied[-1] + 1)
    whole = math.prod(x.basis[i] for i in run) == math.prod(x.type.shape[j] for j in axes)
    return run if whole else None
