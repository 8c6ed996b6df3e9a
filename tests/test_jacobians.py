"""Jacobians and Hessians: against JAX on equivalent pure functions, in every combination of options."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

from .jacobian_functions import FUNCTIONS, W, array, tanh_layer

PAIRS = {
    "jacrev": (sg.jacrev, jax.jacrev),
    "jacfwd": (sg.jacfwd, jax.jacfwd),
    "hessian": (sg.hessian, jax.hessian),
}


def same(found, expected, tolerance=3e-5):
    """Demands equal structures, shapes and dtypes, and nearly equal numbers."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (jnp.shape(x), jnp.result_type(x)) == (jnp.shape(y), jnp.result_type(y))
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------------- pure functions
CASES = [
    pytest.param(fn, args, name, id=f"{fn.__name__}-{name}")
    for fn, args in FUNCTIONS
    for name in PAIRS
    if name != "hessian" or sum(x.size for x in args) <= 12
]


@pytest.mark.parametrize(("fn", "args", "name"), CASES)
def test_pure_functions(fn, args, name):
    ours, theirs = PAIRS[name]
    argnums = tuple(range(len(args)))
    same(ours(fn, argnums=argnums)(*args), jax.jit(theirs(fn, argnums=argnums))(*args))


def test_empty_and_scalar_arrays():
    for ours, theirs in PAIRS.values():
        same(ours(jnp.sin)(0.5), theirs(jnp.sin)(0.5))
        same(ours(lambda x: x * 2.0)(jnp.zeros((0, 3))), theirs(lambda x: x * 2.0)(jnp.zeros((0, 3))))
        same(ours(lambda x: x.sum())(jnp.zeros((0, 3))), theirs(lambda x: x.sum())(jnp.zeros((0, 3))))


def products(x):
    return jnp.tanh(jnp.outer(x, x))


def test_double_precision():
    with jax.enable_x64(True):
        x = jnp.linspace(0.1, 1.0, 4)
        for ours, theirs in PAIRS.values():
            same(
                ours(lambda x: jnp.tanh(jnp.outer(x, x)))(x),
                theirs(lambda x: jnp.tanh(jnp.outer(x, x)))(x),
                1e-14,
            )


# ------------------------------------------------------------------------------------------------ the options
def model():
    w = sg.State({"a": array(2, 3), "b": jnp.ones(2)}, name="w")
    s = sg.State(array(3, seed=5), name="s")
    n = sg.State(0, name="n")

    def fn(x, y):
        n.value += 1
        h = jnp.tanh(w.value["a"] @ (s.value * y["k"]) + w.value["b"]) * x
        s.value = s.value * 2
        return {"h": h, "t": (h.sum() * x[0],)}

    return fn, w, s, n


def pure(w, s, x, y):
    h = jnp.tanh(w["a"] @ (s * y["k"]) + w["b"]) * x
    return {"h": h, "t": (h.sum() * x[0],)}


X, Y = array(2, seed=6), {"k": jnp.float32(1.5)}
STATES = {
    "none": (lambda w, s: None, None),
    "one": (lambda w, s: s, 1),
    "list": (lambda w, s: [w, s], [0, 1]),
    "dict": (lambda w, s: {"s": s, "w": w}, {"s": 1, "w": 0}),
    "twice": (lambda w, s: (s, None, s), (1, None, 1)),
}


@cache
def blocks_of(name):
    """All blocks by what JAX says of the pure function, each input under its number."""
    w, s = {"a": array(2, 3), "b": jnp.ones(2)}, array(3, seed=5)
    values = (w, s, X, Y)
    found = jax.jit(PAIRS[name][1](lambda by: pure(*by)))(values)
    tree = jax.tree.structure(pure(*values))
    return values, tree, tree.flatten_up_to(found)


def placed(block, taken, values, order):
    """A block in the container of what is differentiated by, once for each order."""
    if order == 0:
        return block

    def one(i):
        tree = jax.tree.structure(values[i])
        leaves = tree.flatten_up_to(block[i])
        return tree.unflatten([placed(x, taken, values, order - 1) for x in leaves])

    return jax.tree.map(one, taken)


def check(name, states, argnums, aux, value):
    fn, w, s, n = model()
    given, form = STATES[states]
    numbers = 0 if argnums is None and form is None else argnums
    args = None if numbers is None else jax.tree.map(lambda i: i + 2, numbers)
    taken = args if form is None else form if args is None else (form, args)
    values, tree, blocks = blocks_of(name)
    order = 2 if name == "hessian" else 1
    expected = tree.unflatten([placed(block, taken, values, order) for block in blocks])
    call = PAIRS[name][0](
        (lambda x, y: (fn(x, y), x)) if aux else fn,
        grad_states=given(w, s),
        argnums=argnums,
        has_aux=aux,
        return_value=value,
    )
    extra = [*([pure(*values)] if value else []), *([X] if aux else [])]
    same(call(X, Y), (expected, *extra) if extra else expected)
    assert n.value == 1
    np.testing.assert_allclose(s.value, values[1] * 2)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("argnums", [None, 0, (1,), (1, 0)], ids=str)
def test_states_and_arguments(name, states, argnums):
    check(name, states, argnums, aux=False, value=False)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("states", "argnums"), [("none", 0), ("list", None), ("dict", (1, 0))], ids=str)
@pytest.mark.parametrize(("aux", "value"), [(True, False), (False, True), (True, True)])
def test_aux_and_value(name, states, argnums, aux, value):
    check(name, states, argnums, aux, value)


def test_leaves_that_the_function_does_not_touch():
    s = sg.State({"used": jnp.ones(2), "idle": jnp.ones((3, 4))}, name="s")
    idle = sg.State(jnp.ones(5), name="idle")

    def fn(x):
        return x * s.value["used"].sum()

    options = {"grad_states": (s, idle), "argnums": 0, "check_states": False}
    for transform in (sg.jacrev, sg.jacfwd):
        (by_s, by_idle), by_x = transform(fn, **options)(jnp.ones(3))
        assert (by_s["used"].shape, by_s["idle"].shape, by_idle.shape) == ((3, 2), (3, 3, 4), (3, 5))
        assert not by_s["idle"].any() and not by_idle.any()
        np.testing.assert_allclose(by_x, 2 * np.eye(3))
    (by_s, by_idle), by_x = sg.hessian(fn, **options)(jnp.ones(3))
    (twice, to_idle), to_x = by_s["idle"]
    assert (twice["used"].shape, to_idle.shape, to_x.shape) == ((3, 3, 4, 2), (3, 3, 4, 5), (3, 3, 4, 3))
    assert by_idle[0][0]["idle"].shape == (3, 5, 3, 4) and by_x[0][1].shape == (3, 3, 5)
    np.testing.assert_allclose(by_s["used"][1], np.broadcast_to(np.eye(3)[:, None], (3, 2, 3)))


def test_forms_of_use():
    x = jnp.array([1.0, 2.0])

    class Model:
        def __init__(self):
            self.scale = sg.State(3.0, name="scale")

        @sg.jacrev(argnums=-1)
        def __call__(self, x):
            return self.scale.value * x**2

        @sg.jacfwd(argnums=0)
        def forward(self, x):
            return self.scale.value * x**2

        @sg.hessian(argnums=(0,), static_argnums=1)
        def second(self, x, power):
            return self.scale.value * (x**power).sum()

    model = Model()
    np.testing.assert_allclose(model(x), np.diag(6 * x))
    np.testing.assert_allclose(model.forward(x), np.diag(6 * x))
    np.testing.assert_allclose(model.second(x, 3)[0][0], np.diag(18 * x))
    assert sg.jacobian is sg.jacrev
    fn = sg.jacrev(lambda x, *, k: k * x, argnums=np.int64(-1))
    np.testing.assert_allclose(fn(x, k=2.0), 2 * np.eye(2))
    assert repr(sg.hessian(tanh_layer)) == "<Hessian of tanh_layer>"


# ------------------------------------------------------------------------------------------- around, inside
def test_under_other_transforms():
    x = array(3, seed=8)
    w = sg.State(W, name="w")

    def fn(x):
        return jnp.tanh(w.value @ x)

    def plain(x):
        return jnp.tanh(W @ x)

    expected = jax.jacrev(plain)(x)
    same(sg.jit(sg.jacrev(fn))(x), expected)
    same(jax.jit(sg.jacfwd(plain))(x), expected)
    same(jax.vmap(sg.jacrev(plain))(x[None]), expected[None])
    same(
        sg.grad(lambda x: (sg.jacfwd(fn)(x) ** 2).sum())(x),
        jax.grad(lambda x: (jax.jacfwd(plain)(x) ** 2).sum())(x),
    )
    same(sg.jacrev(sg.jacrev(fn))(x), jax.jacrev(jax.jacrev(plain))(x))
    same(
        sg.jacfwd(sg.hessian(lambda x: fn(x).sum()))(x), jax.jacfwd(jax.hessian(lambda x: plain(x).sum()))(x)
    )
    same(jax.jacrev(sg.jacfwd(plain))(x), jax.jacrev(jax.jacfwd(plain))(x))


def test_unbounded_loops_forwards(capfd):
    n, w = sg.State(0, name="n"), sg.State(jnp.array([1.0, 2.0]), name="w")

    def fn(x, y):
        def step(carry):
            i, v = carry
            n.value += 1
            jax.debug.print("step {}", i)
            w.value = w.value * 0.9
            return i + 1, jnp.sin(v) * y + x + w.value

        return jax.lax.while_loop(lambda carry: carry[0] < 3, step, (0, x))[1]

    def unrolled(w, x, y):
        v = x
        for _ in range(3):
            w = w * 0.9
            v = jnp.sin(v) * y + x + w
        return v

    x, y, before = jnp.array([0.3, 0.4]), jnp.array([1.0, 2.0]), w.value
    by_w, by_args = sg.jacfwd(fn, grad_states=w, argnums=(0, 1))(x, y)
    jax.effects_barrier()
    expected = jax.jacfwd(unrolled, argnums=(0, 1, 2))(before, x, y)
    same((by_w, *by_args), expected)
    assert n.value == 3 and capfd.readouterr().out.split("\n")[:-1] == ["step 0", "step 1", "step 2"]
    with pytest.raises(sg.GradientError, match="bounded_while_loop"):
        sg.jacrev(fn)(x, y)
    assert n.value == 3


def holomorphic_one(z):
    return jnp.exp(z * z[0])


def test_complex_numbers():
    z = jnp.array([1 + 2j, 3 - 1j])
    for ours, theirs in PAIRS.values():
        same(
            ours(lambda z: jnp.exp(z * z[0]), holomorphic=True)(z),
            theirs(lambda z: jnp.exp(z * z[0]), holomorphic=True)(z),
            1e-4,
        )

    def real_valued(z):
        return jnp.abs(z) ** 2 * jnp.real(z)

    def of_reals(x):
        return jnp.exp(1j * x) * x

    same(sg.jacrev(real_valued)(z), jax.jacrev(real_valued)(z))
    same(sg.jacfwd(of_reals)(z.real), jax.jacfwd(of_reals)(z.real))


# -------------------------------------------------------------------------------------------- seeds, errors
def test_printed_examples():
    def multi_output(x):
        return jnp.array([x[0] * x[1], jnp.sin(x[0]), jnp.exp(x[1])])

    expected = [[2.0, 1.0], [0.5403023, 0.0], [0.0, 7.389056]]
    for transform in (sg.jacrev, sg.jacfwd, sg.jacobian):
        np.testing.assert_allclose(transform(multi_output)(jnp.array([1.0, 2.0])), expected, rtol=1e-6)
    np.testing.assert_allclose(sg.hessian(lambda x: jnp.dot(x, x))(jnp.array([1.0, 2.0])), 2 * np.eye(2))

    class LinearRegressor(sg.nn.Module):
        def __init__(self, n):
            self.weight = sg.ParamState(jnp.zeros((n, 1)))
            self.bias = sg.ParamState(jnp.zeros(1))

        def __call__(self, x):
            return x @ self.weight.value + self.bias.value

    model = LinearRegressor(2)
    found = sg.jacrev(lambda x: model(x), grad_states=model.states(sg.ParamState))(jnp.array([1.0, 2.0]))
    assert {path: x.shape for path, x in found.items()} == {("bias",): (1, 1), ("weight",): (1, 2, 1)}


@pytest.mark.parametrize("transform", [sg.jacrev, sg.jacfwd, sg.hessian])
@pytest.mark.parametrize(
    ("fn", "args", "options", "message"),
    [
        (lambda x: (x, 3), (1.0,), {}, r"what lambda returns at \[1\] is i32\[\]: integers, booleans"),
        (lambda x: x > 0, (1.0,), {}, r"what lambda returns is bool\[\]: integers, booleans"),
        (lambda x: x * 1.0, (1,), {}, r"argument 'x' is i32\[\]"),
        (lambda x: x, (1.0,), {"argnums": 1}, r"argnums names argument 1 of lambda, which was called with 1"),
        (lambda x: x, (1.0,), {"holomorphic": True}, r"is f32\[\]: with holomorphic=True it must be complex"),
        (lambda x: x, (1j,), {}, r"is c64\[\]: pass holomorphic=True if the function is"),
        (lambda x: x, (1.0,), {"has_aux": True}, r"must return a pair \(value, aux\)"),
        (lambda x: x, (1.0,), {"argnums": (0, 0)}, r"names an argument twice"),
    ],
)
def test_errors(transform, fn, args, options, message):
    with pytest.raises(sg.GradientError, match=message):
        transform(fn, **options)(*args)
    with pytest.raises(sg.GradientError, match="the State 's'"):
        transform(lambda x: x, grad_states=sg.State(1.0, name="s"))(1.0)
