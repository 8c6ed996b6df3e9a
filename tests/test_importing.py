"""Programs that JAX traces, imported: they mean what JAX says, and read as what the user wrote."""

import linecache
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

import stategrad as sg
from stategrad.backend import bind_function, compile_function, stablehlo_text
from stategrad.errors import StateError, TraceError
from stategrad.importing import import_jaxpr
from stategrad.ir import Function, Module, Names, reachable, walk
from stategrad.ir.evaluate import evaluate
from stategrad.ir.text import to_text
from stategrad.trace import trace

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 4))
V = X[0]
A = X @ X.T + 4 * jnp.eye(4)
MLP, STATIC = eqx.partition(eqx.nn.MLP(4, 2, 8, 2, key=KEY), eqx.is_array)
ADAM = optax.adam(1e-2)


def imported(function, *args) -> Function:
    return import_jaxpr(jax.make_jaxpr(function)(*args), "f", None, Names()).function


def operations(function):
    return [op for f in reachable(function) for op in walk(f.body)]


def names(function):
    return [op.name for op in operations(function)]


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def numbers(x):
    return np.asarray(jax.random.key_data(x) if is_key(x) else x)


def same(found, wanted):
    for x, y in zip(found, jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(numbers(x), numbers(y), rtol=2e-5, atol=1e-5)


@jax.custom_jvp
def sine(x):
    return jnp.sin(x)


sine.defjvp(lambda primals, tangents: (sine(*primals), jnp.cos(primals[0]) * tangents[0]))


@jax.custom_vjp
def cosine(x):
    return jnp.cos(x)


cosine.defvjp(lambda x: (cosine(x), x), lambda x, ct: (-ct * jnp.sin(x),))


@jax.jit
def inner(x):
    return jnp.tanh(x) * 2 + x**2


def mlp(params, x):
    return jnp.mean(jax.vmap(eqx.combine(params, STATIC))(x) ** 2)


def adam_step(params, state, x):
    updates, state = ADAM.update(jax.grad(mlp)(params, x), state, params)
    return optax.apply_updates(params, updates), state


PROGRAMS = {
    "relu": (jax.nn.relu, X),
    "gelu": (jax.nn.gelu, X),
    "softplus": (jax.nn.softplus, X),
    "softmax": (jax.nn.softmax, X),
    "elu": (jax.nn.elu, X),
    "norm": (jnp.linalg.norm, X),
    "logsumexp": (jax.nn.logsumexp, X),
    "conv": (lambda a: lax.conv_general_dilated(a[None, None], a[None, None, :2, :3], (1, 1), "SAME"), X),
    "normal": (lambda k: jax.random.normal(k, (3,)), KEY),
    "split": (jax.random.split, KEY),
    "permutation": (lambda k: jax.random.permutation(k, 5), KEY),
    "constant key": (lambda x: x + jax.random.uniform(KEY, (4,)), V),
    "key literal": (lambda x: x + jax.random.uniform(jax.random.key(3), (4,)), V),
    "sort": (jnp.sort, X),
    "argsort": (jnp.argsort, X),
    "top_k": (lambda x: lax.top_k(x, 2), X),
    "cumlogsumexp": (lax.cumlogsumexp, V),
    "max_pool": (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID"), X),
    "fft": (jnp.fft.fft, V),
    "solve": (jnp.linalg.solve, A, V),
    "cholesky": (jnp.linalg.cholesky, A),
    "qr": (jnp.linalg.qr, A),
    "expm": (jax.scipy.linalg.expm, A / 10),
    "interp": (lambda x: jnp.interp(x, jnp.arange(4.0), V), V),
    "custom_jvp": (sine, V),
    "custom_vjp": (cosine, V),
    "scan": (lambda c, xs: lax.scan(lambda c, x: (c * x + V, c.sum()), c, xs), V, X),
    "scan in reverse": (lambda c, xs: lax.scan(lambda c, x: (c * x, c), c, xs, reverse=True), V, X),
    "scan of nothing": (lambda c: lax.scan(lambda c, _: (c + 1, None), c, None, length=0), V),
    "cond": (lambda p, x: lax.cond(p > 0, jnp.sin, jnp.cos, x), 1.0, X),
    "switch": (lambda i, x: lax.switch(i, [jnp.sin, jnp.cos, jnp.tan], x), 2, X),
    "while": (lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, x)), V),
    "batch of whiles": (
        jax.vmap(lambda n: lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 1.5), (0, 1.0))),
        jnp.array([1, 5, 3]),
    ),
    "batch of whiles over keys": (
        jax.vmap(
            lambda n, k: lax.while_loop(
                lambda c: c[0] < n, lambda c: (c[0] + 1, jax.random.fold_in(c[1], 7)), (0, k)
            )
        ),
        jnp.array([1, 5, 3]),
        jax.random.split(KEY, 3),
    ),
    "fori_loop": (lambda n, x: lax.fori_loop(0, n, lambda i, c: c * x + i, x), 3, V),
    "map": (lambda x: lax.map(lambda r: r.sum() * r, x), X),
    "associative_scan": (lambda x: lax.associative_scan(jnp.multiply, x), X),
    "checkpoint": (jax.checkpoint(lambda x: jnp.sin(x) * x), X),
    "nested jit": (lambda x: inner(inner(x)) + inner(V)[0], X),
    "indexing": (lambda x: x[jnp.array([0, 2])].at[1].set(2.0), X),
    "median": (jnp.median, X),
    "bfloat16": (lambda x: jnp.exp(x.astype(jnp.bfloat16)), X),
    "complex": (lambda x: jnp.abs(jnp.fft.fft(x * (1 + 2j))), X),
    "MLP": (mlp, MLP, X),
    "adam": (adam_step, MLP, ADAM.init(MLP), X),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_imported_programs_mean_what_jax_says(case):
    function, *args = PROGRAMS[case]
    wanted = function(*args)
    program = imported(function, *args)
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(args)]
    found, _ = evaluate(program, [x if is_key(x) else np.asarray(x) for x in leaves])
    same(found, wanted)
    same(compile_function(program)(*leaves), wanted)


# ---------------------------------------------------------------------------------- what programs look like
def test_structured_primitives_keep_their_form():
    assert names(imported(*PROGRAMS["scan"])).count("scan") == 1
    assert names(imported(*PROGRAMS["batch of whiles"])).count("while") == 1
    assert names(imported(*PROGRAMS["cond"])).count("cond") == 1
    assert names(imported(*PROGRAMS["checkpoint"])).count("remat") == 1


def test_a_branch_on_a_boolean_is_chosen_by_it():
    (cond,) = [op for op in operations(imported(*PROGRAMS["cond"])) if op.name == "cond"]
    assert str(cond.operands[0].type) == "bool[]"


def test_a_nested_jit_is_imported_once():
    program = imported(lambda x: inner(inner(inner(x))), X)
    assert [f.name for f in reachable(program)] == ["inner", "f"]


def test_a_small_jit_of_jax_is_put_in_place():
    assert "call" not in names(imported(lambda x: jnp.where(x > 0, x, 1.0), X))


def test_a_big_jit_of_jax_is_one_function_a_line():
    def variances(x):
        return [jnp.var(x * i) for i in range(3)] + [jnp.var(x)]

    program = imported(variances, X)
    assert [f.name for f in reachable(program)] == ["var", "var1", "f"]


def test_literals_fill_the_shape_they_are_used_in():
    (constant, _) = imported(lambda x: x * 2, X).body.operations
    assert str(constant.result.type) == "f32[4,4]"
    assert constant.attributes["value"] == 2


def test_a_fill_value_keeps_its_sign():
    taken = [
        sg.jit(lambda x, z=z: x.at[jnp.array([99])].get(mode="fill", fill_value=z))(jnp.ones(3))[0]
        for z in (0.0, -0.0, 0.0)
    ]
    assert [bool(jnp.signbit(z)) for z in taken] == [False, True, False]


def test_equal_literals_are_one_constant():
    assert names(imported(lambda x: x * 2 + 2, X)) == ["constant", "mul", "add"]


def test_arrays_stay_where_they_are():
    big = jnp.ones((64, 64))
    (constant, _) = imported(lambda x: big @ x, jnp.ones(64)).body.operations
    assert constant.attributes["value"] is big


def test_values_have_the_names_of_the_user():
    def loss(params, rows):
        def step(carry, row):
            return carry * row, None

        return lax.scan(step, params["w"], rows)

    program = imported(loss, {"w": V}, X)
    (scan,) = program.body.operations
    assert [v.name for v in program.params] == ["params.w", "rows"]
    assert [v.name for v in scan.regions[0].params] == ["carry", "row"]


def test_operations_lead_to_the_line_of_the_user():
    def loss(x):
        y = jnp.tanh(x)
        return lax.map(lambda r: jnp.exp(r), y), jnp.linalg.norm(y), inner(y)

    program = imported(loss, X)
    lines = {"tanh": "jnp.tanh(x)", "exp": "jnp.exp(r)", "sqrt": "jnp.linalg.norm(y)"}
    for op in operations(program):
        source = op.location.source
        assert source.file.endswith("test_importing.py"), op
        if op.name in lines and op.name != "tanh":
            assert lines[op.name] in linecache.getline(source.file, source.line)
    assert "y = jnp.tanh(x)" in linecache.getline(__file__, program.body.operations[0].location.source.line)


def test_scopes_of_the_user_are_in_the_compiled_program():
    def scoped(x):
        with jax.named_scope("encoder"), jax.named_scope("attention"):
            return jnp.sin(x)

    text = stablehlo_text(imported(scoped, X), locations=True)
    assert "encoder/attention/sin" in text


def test_importing_again_gives_the_same_text():
    function, *args = PROGRAMS["MLP"]
    first, second = (to_text(Module.of([imported(function, *args)])) for _ in range(2))
    assert first.split("call_jaxpr")[0] == second.split("call_jaxpr")[0]
    assert names(imported(function, *args)) == names(imported(function, *args))


def test_the_same_operand_twice_does_not_confuse_later_imports():
    same([compile_function(imported(lambda x, y: x @ x + y @ y, A, X))(A, X)[0]], A @ A + X @ X)
    same([compile_function(imported(lambda x, y: x @ y - y @ x, A, X))(A, X)[0]], A @ X - X @ A)


# ---------------------------------------------------------------------------------- what surrounds a program
def test_values_of_an_enclosing_trace_become_parameters():
    @jax.jit
    def outer(x, y):
        made = import_jaxpr(jax.make_jaxpr(lambda y: x * y + V)(y), "f", None, Names())
        assert made.captured == [x]
        assert len(made.function.params) == 2
        return bind_function(made.function, *made.captured, y)[0]

    same([outer(V, X)], V * X + V)


def test_a_compiled_program_is_called_and_keeps_its_functions_apart():
    first, second = imported(lambda x: inner(x) + 1, X), imported(lambda x: inner(x) - 1, X)
    program = imported(lambda x: (bind_function(first, x), bind_function(second, x), inner(x)), X)
    Module.of([program])
    same(compile_function(program)(X), (inner(X) + 1, inner(X) - 1, inner(X)))


def test_callbacks_keep_their_order():
    seen = []
    note = partial(jax.debug.callback, lambda i: seen.append(float(i)), ordered=True)

    def step(carry, x):
        note(x)
        return carry + x, None

    def noisy(xs):
        note(10.0)
        total, _ = lax.scan(step, 0.0, xs)
        note(total)
        return total

    compile_function(imported(noisy, jnp.arange(3.0)))(jnp.arange(3.0))
    jax.effects_barrier()
    assert seen == [10.0, 0.0, 1.0, 2.0, 3.0]


def test_metadata_for_the_compiler_is_kept():
    def marked(x):
        with set_xla_metadata(mark="here"):
            return x + 1.0

    program = imported(marked, V)
    (add,) = [op for op in operations(program) if op.name == "jax.add"]
    assert add.attributes["jax_context"].xla_metadata == {"mark": "here"}
    assert 'mark = "here"' in jax.jit(compile_function(program)).lower(V).as_text()


# ---------------------------------------------------------------------------------------- states
def test_reads_and_writes_are_operations_in_order():
    seen, weight = sg.State(jnp.array(0), "seen"), sg.State(V, "layer.weight")

    def step(x):
        seen.value += 1
        return weight.value * x

    function = trace(step, (V,), {}).function
    found = [(op.name, op.attributes["cell"].name) for op in operations(function) if "cell" in op.attributes]
    assert found == [("read", "seen"), ("write", "seen"), ("read", "layer.weight")]
    assert [op.result.name for op in operations(function) if op.name == "read"] == ["seen", "weight"]


def test_a_state_that_only_jax_would_see_is_an_error():
    weight = sg.State(V, "weight")

    def solve(b):
        return lax.custom_linear_solve(lambda x: x * weight.value, b, lambda _, b: b / V, symmetric=True)

    with pytest.raises(StateError, match=r"'weight' is read inside custom_linear_solve .*test_importing\.py"):
        trace(solve, (V,), {})


def test_references_of_jax_are_an_error():
    with pytest.raises(TraceError, match=r"keep what changes in a stategrad\.State"):
        imported(lambda x: jax.new_ref(x)[...], V)
