"""conv: sums of products of two arrays over moving windows, with every option of XLA's convolution.

Along one axis, result p is the sum over k of kernel[k] times what stands at place
`p * stride + k * rhs_dilation` of the padded operand, whose element i stands at place
`i * lhs_dilation + low padding`. Both transposes are convolutions again; their paddings follow from this.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Linear
from ..dtypes import F32, I32, DType, dtype
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .axes import Ints, accumulator, batch_size, check_axes, check_lengths, inverse, moved_to_front
from .linear_algebra import check_precision, in_result_type, precision_text

if TYPE_CHECKING:
    from ..build import Builder

BF16 = dtype("bf16")
Padding = tuple[tuple[int, int], ...]


def _spread(n: int, dilation: int) -> int:
    """The places that n elements span."""
    return (n - 1) * dilation + 1 if n else 0


def _places(shape: Sequence[int], spec: Ints) -> Ints:
    """The lengths of the spatial axes, which stand behind the first two in a spec."""
    return tuple(shape[a] for a in spec[2:])


# ------------------------------------------------------------------------------------------------ type rule
def _conv_type(
    x: Type,
    kernel: Type,
    *,
    strides: Ints,
    padding: Padding,
    lhs_dilation: Ints,
    rhs_dilation: Ints,
    lhs_spec: Ints,
    rhs_spec: Ints,
    out_spec: Ints,
    feature_groups: int = 1,
    batch_groups: int = 1,
    precision: tuple[str, str] = ("default", "default"),
    to: DType,
) -> Type:
    check_precision(precision)
    _check_specs(x, kernel, lhs_spec, rhs_spec, out_spec)
    check_lengths(
        x.rank - 2, strides=strides, padding=padding, lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation
    )
    if any(n < 1 for n in (*strides, *lhs_dilation, *rhs_dilation)):
        raise IRTypeError("strides and dilations must be 1 or more")
    batch, _ = _check_groups(x, kernel, lhs_spec, rhs_spec, feature_groups, batch_groups)
    shape = [0] * x.rank
    shape[out_spec[0]], shape[out_spec[1]] = batch, kernel.shape[rhs_spec[0]]
    axes = zip(_places(x.shape, lhs_spec), _places(kernel.shape, rhs_spec), strict=True)
    for i, (n, k) in enumerate(axes):
        room = _spread(n, lhs_dilation[i]) + sum(padding[i]) - _spread(k, rhs_dilation[i])
        shape[out_spec[i + 2]] = room // strides[i] + 1 if room >= 0 else 0
    return Type(to, tuple(shape))


def _check_specs(x: Type, kernel: Type, lhs_spec: Ints, rhs_spec: Ints, out_spec: Ints) -> None:
    if x.rank != kernel.rank or x.rank < 2:
        raise IRTypeError(f"{x} and {kernel} must have the same number of axes, two at least")
    for name, spec in (("lhs_spec", lhs_spec), ("rhs_spec", rhs_spec), ("out_spec", out_spec)):
        check_lengths(x.rank, **{name: spec})
        check_axes(spec, x.rank, name)


def _check_groups(
    x: Type, kernel: Type, lhs_spec: Ints, rhs_spec: Ints, feature_groups: int, batch_groups: int
) -> tuple[int, int]:
    batch, features = x.shape[lhs_spec[0]], x.shape[lhs_spec[1]]
    out, taken = kernel.shape[rhs_spec[0]], kernel.shape[rhs_spec[1]]
    if feature_groups < 1 or batch_groups < 1 or min(feature_groups, batch_groups) > 1:
        raise IRTypeError("feature_groups and batch_groups must be 1 or more, and one of them 1")
    if features != taken * feature_groups or out % (feature_groups * batch_groups) or batch % batch_groups:
        raise IRTypeError(
            f"{features} features in batches of {batch} and a kernel from {taken} to {out} features do not "
            f"fit {feature_groups} feature groups and {batch_groups} batch groups"
        )
    return batch // batch_groups, features


# ------------------------------------------------------------------------------------------------ meaning
def _conv_evaluate(x: Any, kernel: Any, **attributes: Any) -> Any:
    result = _conv_type(Type.of(x), Type.of(kernel), **attributes)
    wide = accumulator(result.dtype.numpy)
    groups, samples = attributes["feature_groups"], attributes["batch_groups"]
    x = np.transpose(x, attributes["lhs_spec"]).astype(wide)
    kernel = np.transpose(kernel, attributes["rhs_spec"]).astype(wide)
    places = _places(result.shape, attributes["out_spec"])
    x = _padded(x, attributes["padding"], attributes["lhs_dilation"])
    # Axes of both: batch group, feature group, and within them.
    x = x.reshape(samples, x.shape[0] // samples, groups, x.shape[1] // groups, *x.shape[2:])
    kernel = kernel.reshape(samples, groups, kernel.shape[0] // (samples * groups), *kernel.shape[1:])
    total = np.zeros((x.shape[1], samples, groups, kernel.shape[2], *places), wide)
    for at in itertools.product(*map(range, kernel.shape[4:])):
        window = x[(..., *_window(at, places, attributes))]
        total += np.einsum("bngc...,bgoc->nbgo...", window, kernel[(..., *at)])
    found = total.reshape(x.shape[1], samples * groups * kernel.shape[2], *places)
    return np.transpose(found, inverse(attributes["out_spec"])).astype(result.dtype.numpy)


def _padded(x: Any, padding: Padding, dilation: Ints) -> Any:
    lengths = [a + _spread(n, d) + z for n, d, (a, z) in zip(x.shape[2:], dilation, padding, strict=True)]
    result = np.zeros((*x.shape[:2], *(max(n, 0) for n in lengths)), x.dtype)
    at = [a + np.arange(n) * d for n, d, (a, _) in zip(x.shape[2:], dilation, padding, strict=True)]
    kept = [np.flatnonzero((p >= 0) & (p < n)) for p, n in zip(at, result.shape[2:], strict=True)]
    both = [np.arange(n) for n in x.shape[:2]]
    result[np.ix_(*both, *(p[k] for p, k in zip(at, kept, strict=True)))] = x[np.ix_(*both, *kept)]
    return result


def _window(at: Ints, places: Ints, attributes: dict[str, Any]) -> list[slice]:
    starts = [k * d for k, d in zip(at, attributes["rhs_dilation"], strict=True)]
    steps = zip(starts, places, attributes["strides"], strict=True)
    return [slice(a, a + _spread(n, s) if n else a, s) for a, n, s in steps]


# ------------------------------------------------------------------------------------------------ transposes
def _conv_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    other = operands[1 - index]
    assert other is not None
    of = op.operands[index].type
    if ct.type.size == 0:
        return b.zeros(of)
    rule = _transpose_kernel if index else _transpose_operand
    found = rule(b, op, ct, other)
    return found if found.type == of else b.convert(found, to=of.dtype)


def _transpose_operand(b: "Builder", op: Operation, ct: Value, kernel: Value) -> Value:
    """The cotangent, spread by the strides, under the reversed kernel; all groups are feature groups."""
    a = op.attributes
    groups = a["feature_groups"] * a["batch_groups"]
    flipped = b.reverse(kernel, dimensions=tuple(sorted(a["rhs_spec"][2:])))
    found = b.conv(
        ct,
        _moved_groups(b, flipped, a["rhs_spec"][0], a["rhs_spec"][1], groups),
        strides=a["lhs_dilation"],
        padding=_operand_padding(op, ct.type, kernel.type),
        lhs_dilation=a["strides"],
        rhs_dilation=a["rhs_dilation"],
        lhs_spec=a["out_spec"],
        rhs_spec=(a["rhs_spec"][1], a["rhs_spec"][0], *a["rhs_spec"][2:]),
        out_spec=a["lhs_spec"],
        feature_groups=groups,
        batch_groups=1,
        precision=a["precision"],
        to=ct.type.dtype,
    )
    return _moved_groups(b, found, a["lhs_spec"][1], a["lhs_spec"][0], a["batch_groups"])


def _operand_padding(op: Operation, ct: Type, kernel: Type) -> Padding:
    a = op.attributes
    found = []
    for i, (n, k, p) in enumerate(_lengths(op, ct, kernel)):
        margin = _spread(k, a["rhs_dilation"][i]) - 1
        low = margin - a["padding"][i][0]
        found.append((low, _spread(n, a["lhs_dilation"][i]) + margin - low - _spread(p, a["strides"][i])))
    return tuple(found)


def _transpose_kernel(b: "Builder", op: Operation, ct: Value, x: Value) -> Value:
    """The operand under the cotangent, with batch and features exchanged; so are the two kinds of groups."""
    a = op.attributes
    return b.conv(
        x,
        ct,
        strides=a["rhs_dilation"],
        padding=_kernel_padding(op, ct.type, op.operands[1].type),
        lhs_dilation=a["lhs_dilation"],
        rhs_dilation=a["strides"],
        lhs_spec=(a["lhs_spec"][1], a["lhs_spec"][0], *a["lhs_spec"][2:]),
        rhs_spec=(a["out_spec"][1], a["out_spec"][0], *a["out_spec"][2:]),
        out_spec=(a["rhs_spec"][1], a["rhs_spec"][0], *a["rhs_spec"][2:]),
        feature_groups=a["batch_groups"],
        batch_groups=a["feature_groups"],
        precision=a["precision"],
        to=ct.type.dtype,
    )


def _kernel_padding(op: Operation, ct: Type, kernel: Type) -> Padding:
    a = op.attributes
    found = []
    for i, (n, k, p) in enumerate(_lengths(op, ct, kernel)):
        low, stride = a["padding"][i][0], a["strides"][i]
        covered = (k - 1) * a["rhs_dilation"][i] + _spread(p, stride)
        found.append((low, covered - low - _spread(n, a["lhs_dilation"][i])))
    return tuple(found)


def _lengths(op: Operation, ct: Type, kernel: Type) -> list[tuple[int, int, int]]:
    """On each spatial axis: the lengths of operand, kernel and result."""
    a = op.attributes
    x = op.operands[0].type
    return list(
        zip(
            _places(x.shape, a["lhs_spec"]),
            _places(kernel.shape, a["rhs_spec"]),
            _places(ct.shape, a["out_spec"]),
            strict=True,
        )
    )


# ----------------------------------------------------------------------------------------------- axes in axes
def _inserted(b: "Builder", x: Value, axis: int, groups: int) -> Value:
    """The leading axis of `x` goes into axis `axis` of the rest, inside the leading `groups` parts of it."""
    size, *shape = x.type.shape
    split = b.reshape(x, shape=(size, *shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]))
    order = (*range(1, axis + 2), 0, *range(axis + 2, split.type.rank))
    shape[axis] *= size
    return b.reshape(b.transpose(split, permutation=order), shape=tuple(shape))


def _extracted(b: "Builder", x: Value, axis: int, groups: int, size: int) -> Value:
    """The inverse of `_inserted` for a leading axis of that size."""
    shape = list(x.type.shape)
    shape[axis] //= size
    split = b.reshape(x, shape=(*shape[:axis], groups, size, shape[axis] // groups, *shape[axis + 1 :]))
    return b.reshape(moved_to_front(b, split, axis + 1), shape=(size, *shape))


def _moved_groups(b: "Builder", x: Value, source: int, target: int, groups: int) -> Value:
    """The leading `groups` parts of axis `source` become leading parts of axis `target`."""
    return x if groups == 1 else _inserted(b, _extracted(b, x, source, 1, groups), target, 1)


# ------------------------------------------------------------------------------------------------ batching
def _conv_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    size = batch_size(operands, batched)
    if size == 0:
        return b.zeros(op.result.type.batched(0))
    if all(batched):
        return _conv_batch_both(b, op, operands, size)
    x, kernel = operands
    a = op.attributes
    if batched[0]:
        x = _inserted(b, x, a["lhs_spec"][0], a["batch_groups"])
        return _extracted(b, b.conv(x, kernel, **a), a["out_spec"][0], 1, size)
    groups = a["feature_groups"] * a["batch_groups"]
    kernel = _inserted(b, kernel, a["rhs_spec"][0], groups)
    return _extracted(b, b.conv(x, kernel, **a), a["out_spec"][1], groups, size)


def _conv_batch_both(b: "Builder", op: Operation, operands: Sequence[Value], size: int) -> Value:
    """Each example becomes a group."""
    x, kernel = operands
    a = dict(op.attributes)
    kind = "batch_groups" if a["batch_groups"] > 1 else "feature_groups"
    a[kind] *= size
    x = _inserted(b, x, a["lhs_spec"][0 if kind == "batch_groups" else 1], 1)
    kernel = _inserted(b, kernel, a["rhs_spec"][0], 1)
    return _extracted(b, b.conv(x, kernel, **a), a["out_spec"][1], 1, size)


# ------------------------------------------------------------------------------------------------ lowering
def _conv_lower(hlo: Any, op: Operation, x: Any, kernel: Any) -> Any:
    a = op.attributes
    x, kernel = in_result_type(hlo, op, (x, kernel))
    return hlo.op(
        "convolution",
        [x, kernel],
        [op.result.type],
        window_strides=a["strides"],
        padding=np.array(a["padding"], np.int64).reshape(-1, 2),
        lhs_dilation=a["lhs_dilation"],
        rhs_dilation=a["rhs_dilation"],
        dimension_numbers=_numbers_text(a),
        feature_group_count=a["feature_groups"],
        batch_group_count=a["batch_groups"],
        precision_config=precision_text(a["precision"]),
    )


def _numbers_text(attributes: Any) -> str:
    specs = (("lhs_spec", "bf"), ("rhs_spec", "oi"), ("out_spec", "bf"))
    shown = [_layout_text(attributes[name], letters) for name, letters in specs]
    return f"#stablehlo.conv<{shown[0]}x{shown[1]}->{shown[2]}>"


def _layout_text(spec: Ints, letters: str) -> str:
    names = (*letters, *map(str, range(len(spec) - 2)))
    return f"[{', '.join(names[spec.index(a)] for a in range(len(spec)))}]"


# ------------------------------------------------------------------------------------------------ the row
def _options(**given: Any) -> dict[str, Any]:
    """The attributes of a plain convolution along one axis, some of them exchanged."""
    plain = {"strides": (1,), "padding": ((0, 0),), "lhs_dilation": (1,), "rhs_dilation": (1,)}
    specs = dict.fromkeys(("lhs_spec", "rhs_spec", "out_spec"), (0, 1, 2))
    rest = {"feature_groups": 1, "batch_groups": 1, "precision": ("default", "default"), "to": F32}
    return {**plain, **specs, **rest, **given}


def _conv_cost(op: Operation) -> int:
    """A multiplication and an addition for each element of the result and of the kernel that makes it."""
    kernel = op.operands[1].type
    features = kernel.shape[op.attributes["rhs_spec"][0]]
    return 2 * op.result.type.size * (kernel.size // max(features, 1))


_IMAGES = _options(
    strides=(2, 1),
    padding=((1, 0), (-1, 2)),
    lhs_dilation=(1, 2),
    rhs_dilation=(2, 1),
    lhs_spec=(0, 3, 1, 2),
    rhs_spec=(3, 2, 0, 1),
    out_spec=(2, 0, 3, 1),
)
_NO_PLACES = {
    **_options(strides=(), padding=(), lhs_dilation=(), rhs_dilation=()),
    **dict.fromkeys(("lhs_spec", "rhs_spec", "out_spec"), (1, 0)),
}

row(
    name="conv",
    doc="Sums of products over moving windows. Specs name the axes batch, feature (kernel: out, in), places.",
    type_rule=_conv_type,
    evaluate=_conv_evaluate,
    derivative=Linear("each", _conv_transpose),
    batch=_conv_batch,
    lower=_conv_lower,
    cost=_conv_cost,
    may_be_nan=True,
    samples=(
        sample("f32[1,2,4]", "f32[3,2,2]", **_options()),
        sample("f32[2,1,5]", "f32[1,1,2]", **_options(strides=(2,), padding=((2, -1),), rhs_dilation=(2,))),
        sample("f32[1,1,3]", "f32[2,1,2]", **_options(strides=(3,), padding=((1, 1),), lhs_dilation=(2,))),
        sample("f32[2,3,4,2]", "f32[2,2,2,3]", **_IMAGES),
        sample("f32[1,4,3]", "f32[2,2,2]", **_options(feature_groups=2)),
        sample("f32[4,1,3]", "f32[2,1,2]", **_options(batch_groups=2, padding=((1, 0),))),
        sample("f32[2,3]", "f32[2,4]", **_NO_PLACES),
        sample("f32[1,1,2]", "f32[1,1,4]", **_options(strides=(2,))),
        sample("bf16[1,1,3]", "bf16[1,1,2]", **_options()),
        sample("bf16[1,1,3]", "bf16[1,1,2]", **_options(to=BF16)),
        sample("i32[1,1,3]", "i32[1,1,2]", **_options(to=I32)),
    ),
)
