"""The backend: what programs lower to and mean, against JAX and against `evaluate`."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategrad import jax_compat
from stategrad.backend import Program, bind_function, compile_function, stablehlo_text
from stategrad.ir import (
    Builder,
    Cell,
    Derived,
    Function,
    IRTypeError,
    LazySource,
    Source,
    Type,
    dtype,
    evaluate,
)

from .backend_programs import imported, same

F = Type.parse("f32[2,3]")
X = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


# ---------------------------------------------------------------------------------- types
NAMES = "bool i2 i4 i8 i16 i32 i64 u2 u4 u8 u16 u32 u64 bf16 f16 f32 f64 c64 c128 f8_e4m3fn f8_e5m2 f4_e2m1fn"


@pytest.mark.parametrize("name", [*NAMES.split(), "key<fry>", "key<rbg>"])
def test_types_go_to_jax_and_back(name: str) -> None:
    of = Type(dtype(name), (2, 3))
    assert jax_compat.type_of_aval(jax_compat.aval_of_type(of)) == of


def test_weak_types_are_dropped() -> None:
    (found,) = jax.make_jaxpr(lambda: jnp.asarray(1.0) * 2)().out_avals
    assert jax_compat.type_of_aval(found) == Type.parse("f32[]")


def test_unknown_key_type() -> None:
    with pytest.raises(IRTypeError, match="no PRNG implementation for key<nobody>"):
        jax_compat.aval_of_type(Type(dtype("key<nobody>")))


def test_types_without_a_counterpart() -> None:
    with pytest.raises(IRTypeError):
        jax_compat.type_of_aval(jax.core.ShapedArray((2,), jax.dtypes.float0))


def test_symbolic_sizes_are_refused() -> None:
    symbolic = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n, 3"), jnp.float32)
    with pytest.raises(IRTypeError, match="symbolic size n"):
        jax_compat.type_of_aval(jax.core.ShapedArray(symbolic.shape, symbolic.dtype))


# ---------------------------------------------------------------------------------- constants
def constants(*wanted: tuple[Any, str]) -> Function:
    b = Builder()
    return b.function("f", [], [b.constant(value, Type.parse(of)) for value, of in wanted])


def test_equal_constants_are_one() -> None:
    text = stablehlo_text(
        constants((2.0, "f32[2]"), (2, "f32[2]"), (2.0, "f32[3]"), (-0.0, "f32[]"), (0, "f32[]"))
    )
    assert text.count("stablehlo.constant") == 4


def test_constants_are_not_shared_between_regions() -> None:
    def fn(x: Any) -> Any:
        return jax.lax.cond(x > 2.0, lambda: x * 2.0, lambda: x * 3.0), x * 2.0

    program = compile_function(imported(fn, 1.0))
    for x in (1.0, 3.0):
        same(program(x), fn(jnp.float32(x)))


@pytest.mark.parametrize(
    "value, of",
    [
        (np.arange(400, dtype=np.float32).reshape(20, 20).T, "f32[20,20]"),
        (np.zeros((0, 3), np.float32), "f32[0,3]"),
        (1.5, "f32[0]"),
        (np.ones((1, 1), np.int32), "i32[1,1]"),
        (np.array([True, False, True]), "bool[3]"),
        (True, "bool[70]"),
        (1 - 2j, "c64[2]"),
        (float("nan"), "f32[]"),
        (300, "u8[2]"),
        (0.1, "f8_e4m3fn[2]"),
        (-3, "i4[3]"),
    ],
)
def test_constants_mean_what_evaluate_says(value: Any, of: str) -> None:
    function = constants((value, of))
    (found,), (wanted,) = compile_function(function)(), evaluate(function, [])[0]
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(np.asarray(found), wanted)


def test_constants_of_jax() -> None:
    array, key = jnp.arange(300.0), jax.random.key(3)
    keys = jax.random.split(key, 3)
    program = compile_function(
        constants((array, "f32[300]"), (key, "key<fry>[]"), (keys, "key<fry>[3]"), (0, "key<fry>[2]"))
    )
    found = program()
    same(found[0], array)
    for a, b in zip(found[1:3], (key, keys), strict=True):
        np.testing.assert_array_equal(jax.random.key_data(a), jax.random.key_data(b))
    np.testing.assert_array_equal(jax.random.key_data(found[3]), np.zeros((2, 2), np.uint32))


def test_temporary_arrays_are_not_confused() -> None:
    arrays = [np.full(1000, i, np.float32) for i in range(20)]
    arrays = [a + np.arange(1000, dtype=np.float32) for a in arrays]
    found = compile_function(constants(*((a, "f32[1000]") for a in arrays)))()
    same(found, arrays)


# ---------------------------------------------------------------------------------- functions
def chain(size: int) -> Function:
    b = Builder()
    x = v = b.param(F, "x")
    for _ in range(size):
        v = b.sin(v)
    return b.function("callee", [x], [v])


def sharing(size: int) -> Function:
    callee = chain(size)
    b = Builder()
    x = b.param(F, "x")
    return b.function("f", [x], [b.call(b.call(x, callee=callee), callee=callee)])


def test_callees_are_emitted_once() -> None:
    text = stablehlo_text(sharing(6))
    assert len(re.findall("func.func private", text)) == 1
    assert len(re.findall("call @callee", text)) == 2
    same(compile_function(sharing(6))(X), evaluate(sharing(6), [X])[0])


def test_tiny_callees_are_put_in_place() -> None:
    assert "call" not in stablehlo_text(sharing(1))


def test_names_of_functions_do_not_clash() -> None:
    function = sharing(6)
    other = sharing(6)
    b = Builder()
    x = b.param(F)
    found = b.call(b.call(x, callee=function), callee=other)
    both = b.function("main", [x], [found])
    same(compile_function(both)(X), evaluate(both, [X])[0])


def test_a_program_used_again_is_called() -> None:
    program = Program(chain(5))
    thrice = jax.jit(lambda x: program.bind(*program.bind(*program.bind(x))))
    assert thrice.lower(X).as_text().count("stablehlo.sine") == 10
    same(thrice(X), evaluate(chain(15), [X])[0])


# ---------------------------------------------------------------------------------- control flow
def loops(x: Any, w: Any) -> Any:
    def body(h: Any, x: Any) -> Any:
        return jnp.tanh(w @ h + x), (jnp.sin(h), h.sum())

    first = jax.lax.scan(body, w[0], x)
    second = jax.lax.scan(body, first[0], x, reverse=True)
    third = jax.lax.while_loop(lambda s: s[0] < 4, lambda s: (s[0] + 1, s[1] * 0.5), (0, second[0]))
    return first, second, third


def branches(i: Any, x: Any) -> Any:
    return jax.lax.switch(
        i, [jnp.sin, lambda x: x * x, lambda x: jax.lax.cond(x[0] > 0, jnp.cos, jnp.exp, x)], x
    )


def test_loops() -> None:
    x, w = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3), np.eye(3, dtype=np.float32) * 0.5
    same(compile_function(imported(loops, x, w))(x, w), loops(x, w))


@pytest.mark.parametrize("i", [-1, 0, 1, 2, 5])
def test_branches(i: int) -> None:
    x = X[1]
    same(compile_function(imported(branches, 0, x))(i, x), branches(i, x))


def test_keys_in_loops() -> None:
    def fn(key: Any, keys: Any) -> Any:
        def body(key: Any, other: Any) -> Any:
            key, sub = jax.random.split(key)
            return key, (jax.random.normal(sub, (2,)), jax.random.uniform(other), sub)

        key, (x, y, subs) = jax.lax.scan(body, key, keys)
        return jax.random.key_data(key), x, y, jax.random.key_data(subs)

    key, keys = jax.random.key(1), jax.random.split(jax.random.key(2), 3)
    same(compile_function(imported(fn, key, keys))(key, keys), fn(key, keys))


# ---------------------------------------------------------------------------------- effects of JAX
def noisy(x: Any) -> Any:
    def body(c: Any, x: Any) -> Any:
        jax.debug.print("step {}", x, ordered=True)
        c = jax.lax.cond(x > 1, partial(shout, "big"), partial(shout, "small"), c)
        return c, c

    jax.debug.print("start", ordered=True)
    found = jax.lax.scan(body, 0.0, x)
    return said_in_a_function(found[0]), said_in_a_function(found[0] + 1), found[1]


def shout(what: str, c: Any) -> Any:
    jax.debug.print(what, ordered=True)
    return c + 1


@jax.jit
def said_in_a_function(x: Any) -> Any:
    jax.debug.print("called {}", x, ordered=True)
    return jnp.sin(jnp.cos(jnp.tanh(x))) * 2


def printed(capfd: Any, fn: Callable[..., Any], *args: Any) -> str:
    jax.block_until_ready(fn(*args))
    jax.effects_barrier()
    return capfd.readouterr().out


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, lambda f: lambda x: jax.jvp(f, (x,), (x,))[0]])
def test_ordered_effects_happen_in_order(wrap: Callable[..., Any], capfd: Any) -> None:
    x = jnp.arange(3.0)
    program = Program(imported(noisy, x))
    assert printed(capfd, wrap(program.bind), x) == printed(capfd, noisy, x) != ""


def test_unordered_effects(capfd: Any) -> None:
    def fn(x: Any) -> Any:
        jax.debug.print("x = {}", x)
        return x * 2

    assert printed(capfd, jax.jit(Program(imported(fn, 1.0)).bind), 1.0) == "x = 1.0\n"


# ---------------------------------------------------------------------------------- locations
def located() -> Function:
    b = Builder()
    x = b.param(F, "x")
    b.location = LazySource(lambda: Source("/made/up.py", 12, 4))
    y = b.sin(x)
    b.at("transpose", Derived("linearize", Source("/made/up.py", 77, 2)))
    return b.function("f", [x], [b.reduce_sum(b.mul(y, x), axes=(0,))])


def test_locations_reach_the_compiled_program() -> None:
    compiled = compile_function(located()).lower(X).compile().as_text()
    assert "/made/up.py" in compiled
    assert re.search(r'op_name="jit\(f\)/sin"', compiled)
    assert re.search(r'op_name="jit\(f\)/transpose\(linearize\)/mul"', compiled)
    assert re.search(r"line=12\b", compiled) and re.search(r"line=77\b", compiled)


def test_locations_nest_in_stablehlo() -> None:
    text = stablehlo_text(located(), locations=True)
    assert '"jit(f)/transpose(linearize)/mul"(' in text
    assert '"/made/up.py":77:2' in text


# ---------------------------------------------------------------------------------- errors
def test_programs_must_be_free_of_effects() -> None:
    b = Builder()
    function = b.function("f", [], [b.read(cell=Cell("w", F))])
    with pytest.raises(IRTypeError, match=r"@f touches \$w: run thread-state"):
        Program(function)


@pytest.mark.parametrize(
    "args, message",
    [
        ([X], "takes 2 arguments, not 1"),
        ([X, X[0]], r"argument 1 of @f is .*float32\[3\].*, not f32\[2,3\]"),
        ([X, X.astype(np.int32)], r"argument 1 of @f is .*int32\[2,3\]"),
    ],
)
def test_arguments_are_checked(args: list[Any], message: str) -> None:
    b = Builder()
    x, y = b.param(F), b.param(F)
    with pytest.raises(IRTypeError, match=message):
        bind_function(b.function("f", [x, y], [b.add(x, y)]), *args)


def test_wide_programs_need_wide_arrays() -> None:
    b = Builder()
    x = b.param(Type.parse("f64[]"))
    with pytest.raises(IRTypeError, match="jax_enable_x64"):
        bind_function(b.function("f", [x], [x]), 1.0)


# ---------------------------------------------------------------------------------- templates
def test_what_is_lowered_like_an_earlier_operation_means_the_same() -> None:
    b = Builder()
    x, y = b.param(F, "x"), b.param(F, "y")
    sums = [b.reduce_sum(v, axes=axes) for v in (x, y, b.mul(x, y)) for axes in ((0,), (1,), (0, 1), (0,))]
    products = [b.sub(x, y), b.sub(y, x), b.max(x, y), b.max(y, x), b.sub(x, y)]
    function = b.function("f", [x, y], [*sums, *products])
    args = X, np.cos(X)
    same(compile_function(function)(*args), evaluate(function, args)[0])


def test_each_has_the_line_that_it_comes_from() -> None:
    b = Builder()
    x = b.param(F, "x")
    found = []
    for line in (3, 5):
        b.location = Source("sums.py", line)
        found.append(b.reduce_sum(b.sin(x), axes=(line % 2,)))
        found.append(b.reduce_sum(b.cos(x), axes=(0,)))
    text = _resolved(stablehlo_text(b.function("f", [x], found), locations=True))
    for name in ("reduce_sum", "cos"):
        assert set(re.findall(rf'"{name}:".*?"sums.py":(\d)', text)) == {"3", "5"}


def _resolved(text: str) -> str:
    """The text with names of locations replaced by the locations."""
    known = dict(re.findall(r"^(#loc\d*) = (.*)$", text, re.MULTILINE))
    for _ in range(4):
        text = re.sub(r"#loc\d*", lambda m: known.get(m[0], m[0]), text)
    return text


def test_a_zero_to_fill_with_is_not_minus_zero() -> None:
    of, index = Type.parse("f32[3]"), Type.parse("i32[1,1]")
    b = Builder()
    x, i = b.param(of, "x"), b.param(index, "i")
    table = {"offset_dims": (), "collapsed_dims": (0,), "index_map": (0,), "slice_sizes": (1,)}
    sorts = {"indices_are_sorted": False, "unique_indices": False}
    none = {"operand_batch_dims": (), "indices_batch_dims": ()}
    zeros = [b.gather_filled(x, i, **table, **none, **sorts, fill_value=z) for z in (0.0, -0.0)]
    found = compile_function(b.function("f", [x, i], zeros))(
        np.ones(3, np.float32), np.array([[7]], np.int32)
    )
    assert [bool(np.signbit(z[0])) for z in found] == [False, True]
