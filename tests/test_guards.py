"""A compiled function never uses an old Python value: what it reads is guarded."""

import array
import collections
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.guard_search import guards_of

RATE = 2.0
SCALES = [1.0, 2.0]


def test_a_closure_value():
    rate = 2.0

    @sg.jit
    def f(x):
        return x * rate

    assert f(1.0) == 2.0
    rate = 3.0
    assert f(1.0) == 3.0
    assert "closure variable 'rate' changed from 2.0 to 3.0" in f.explain()


def test_a_global_and_a_list(monkeypatch):
    f = sg.jit(lambda x: x * RATE * SCALES[1])
    assert f(1.0) == 4.0
    monkeypatch.setitem(globals(), "RATE", 5.0)
    assert f(1.0) == 10.0
    assert "the global 'RATE' changed from 2.0 to 5.0" in f.explain()
    SCALES[1] = 3.0
    assert f(1.0) == 15.0
    SCALES[1] = 2.0
    assert "the list 'SCALES' changed" in f.explain()


def test_a_helper_and_its_default():
    def helper(x, scale=2.0):
        return x * scale

    f = sg.jit(lambda x: helper(x))
    assert f(1.0) == 2.0
    helper.__defaults__ = (7.0,)
    assert f(1.0) == 7.0

    def helper(x):
        return -x

    assert f(1.0) == -1.0


class Noisy(sg.nn.Module):
    def __init__(self):
        self.training = True
        self.layers = [sg.nn.Linear(2, 2)]
        self.options = {"scale": 1.0}

    def __call__(self, x):
        return self.layers[0](x) * self.options["scale"] + (100.0 if self.training else 0.0)


def test_flags_of_modules():
    model = Noisy()
    f = sg.jit(lambda x: model(x))
    x = jnp.ones(2)
    trained = f(x)
    model.training = False
    np.testing.assert_allclose(f(x), trained - 100.0, rtol=1e-5, atol=1e-4)
    assert "training changed from True to False" in f.explain()
    model.options["scale"] = 2.0
    np.testing.assert_allclose(f(x), 2 * (trained - 100.0), rtol=1e-5, atol=1e-4)
    model.layers.append(sg.nn.Linear(2, 2))
    f(x)
    model.training = True
    traces = f.explain().count("\n")
    model.training = False
    f(x)
    assert f.explain().count("\n") == traces, "a flag that is back as it was finds the earlier program"


@dataclasses.dataclass
class Config:
    power: int = 2


def test_attributes_of_plain_objects():
    config = Config()

    def helper(c, x):
        return x**c.power

    f = sg.jit(lambda x: helper(config, x))
    assert f(3.0) == 9.0
    config.power = 3
    assert f(3.0) == 27.0


def test_attributes_in_slots():
    @dataclasses.dataclass(slots=True)
    class Base:
        rate: float = 1.0
        later: float = dataclasses.field(init=False)

    class Scaled(Base):
        __slots__ = ("scales",)

        def __init__(self):
            super().__init__()
            self.scales = [1.0]

    scaled = Scaled()
    f = sg.jit(lambda x: x * scaled.rate * scaled.scales[0] * getattr(scaled, "later", 1.0))
    assert f(1.0) == 1.0
    scaled.rate = 3.0
    assert f(1.0) == 3.0
    assert "scaled.rate changed from 1.0 to 3.0" in f.explain()
    scaled.scales[0] = 5.0
    assert f(1.0) == 15.0
    scaled.later = 2.0
    assert f(1.0) == 30.0


def test_arrays():
    fixed, mutable = jnp.array([1.0, 2.0]), np.array([1.0, 2.0], np.float32)
    f = sg.jit(lambda: jnp.sum(fixed * mutable))
    assert f() == 5.0
    mutable[0] = 10.0
    assert f() == 14.0
    fixed = jnp.array([0.0, 1.0])
    assert f() == 2.0


def test_static_leaves_of_states():
    s = sg.State({"w": jnp.ones(()), "act": jnp.sin}, name="s")
    f = sg.jit(lambda: s.value["act"](s.value["w"]))
    np.testing.assert_allclose(f(), np.sin(1.0), rtol=1e-6)
    s.value = {"w": jnp.ones(()), "act": jnp.cos}
    np.testing.assert_allclose(f(), np.cos(1.0), rtol=1e-6)


def test_gradients_see_changes_too():
    rate = 2.0
    g = sg.grad(lambda x: rate * x**2)
    assert g(1.0) == 4.0
    rate = 5.0
    assert g(1.0) == 10.0


def test_a_loop_body_that_jax_has_cached():
    flag = True

    def body(c, _):
        return (c + 1.0 if flag else c), None

    @sg.jit
    def f(x):
        return jax.lax.scan(body, x, None, length=3)[0]

    assert f(0.0) == 3.0
    flag = False
    assert f(0.0) == 0.0


def test_unchanged_values_do_not_retrace():
    model = Noisy()

    @sg.jit
    def f(x):
        return model(x)

    for _ in range(5):
        f(jnp.ones(2))
        model.unrelated = object()
        del model.unrelated
    assert f.explain().count("trace ") == 1, f.explain()
    f(jnp.ones((3, 2)))
    assert "x changed from f32[2] to f32[3,2]" in f.explain()


def test_the_log(monkeypatch, capsys):
    monkeypatch.setenv("STATEGRAD_LOG", "retrace")
    sg.jit(lambda x: x)(1.0)
    assert "stategrad: trace 1 of lambda: the first call, with x: weak f32[]" in capsys.readouterr().err


def test_attributes_of_a_module_are_watched_together():
    model = Noisy()
    for i in range(100):
        setattr(model, f"plain{i}", i)
    guards = guards_of(lambda x: model(x))
    assert len(guards.module_items) > 100, "looked at only when some attribute of some Module was set"
    assert len(guards.items) + len(guards.cells) + len(guards.sequences) < 20, "looked at before each call"
    assert guards.hold()
    model.plain7 = "another"
    assert not guards.hold()


def test_namespaces_sets_sizes_and_inherited_attributes():
    class Base:
        k = 1.0

    class Derived(Base):
        pass

    names, members, table = types.SimpleNamespace(k=1.0), {1, 2}, {"a": 1.0}
    f = sg.jit(lambda x: x * names.k * len(members) * len(table) * Derived.k)
    assert f(1.0) == 2.0
    names.k = 2.0
    assert f(1.0) == 4.0
    members.add(3)
    assert f(1.0) == 6.0
    table["b"] = 1.0
    assert f(1.0) == 12.0
    Base.k = 2.0
    assert f(1.0) == 24.0


def test_bodies_that_an_earlier_trace_left_in_jax_are_traced_again():
    """JAX keeps the bodies of nested jits and loops by identity; none is used for old Python values."""
    flag = {"rate": 0.0}

    @jax.jit
    def inner(x):
        return x * flag["rate"]

    def step(carry, x):
        return carry * flag["rate"], None

    def loss(x):
        return inner(x) + jax.lax.scan(step, x, jnp.arange(2.0))[0]

    for rate in (2.0, 3.0, 4.0):
        flag["rate"] = rate
        expected = rate + rate**2
        assert sg.grad(lambda x: loss(x))(1.0) == expected
        assert sg.jit(lambda x: sg.grad(loss)(x))(1.0) == expected
        assert sg.make_ir(loss)(1.0).functions["loss"] is not None
        assert sg.vmap(lambda x: loss(x))(jnp.ones(2)).tolist() == [expected] * 2


def test_a_trace_that_fails_leaves_no_body_to_later_ones():
    flag = {"rate": 2.0, "fail": True}

    @jax.jit
    def inner(x):
        return x * flag["rate"]

    def loss(x):
        y = inner(x)
        if flag["fail"]:
            raise ZeroDivisionError
        return y

    with pytest.raises(ZeroDivisionError):
        sg.jit(lambda x: loss(x))(1.0)
    flag.update(rate=3.0, fail=False)
    assert sg.jit(lambda x: loss(x))(1.0) == 3.0


class Quiet(sg.nn.Module):
    training = True

    def __init__(self):
        self.factor = sg.ParamState(2.0)

    def __call__(self, x):
        return x * self.factor.value if self.training else x * 0


def test_an_attribute_that_comes_to_stand_before_that_of_the_class():
    module, config = Quiet(), types.SimpleNamespace()
    compiled = sg.jit(module)
    assert compiled(1.0) == 2.0
    module.training = False
    assert compiled(1.0) == 0.0

    g = sg.grad(lambda x: x * config.rate if hasattr(config, "rate") else x)
    assert g(1.0) == 1.0
    config.rate = 3.0
    assert g(1.0) == 3.0
    assert "config has got the attribute 'rate'" in g.explain()


def test_methods_and_attributes_of_classes():
    class Base:
        scale = 1.0

        def act(self, x):
            return x

    class Derived(Base):
        pass

    it = Derived()
    f = sg.jit(lambda x: it.act(x) * it.scale)
    assert f(2.0) == 2.0
    Derived.scale = 3.0
    assert f(2.0) == 6.0
    Base.act = lambda self, x: x * 10
    assert f(2.0) == 60.0
    it.act = lambda x: -x
    assert f(2.0) == -6.0


def test_a_global_that_is_defined_later(monkeypatch):
    def f(x):
        try:
            return x * LATER
        except NameError:
            return x

    compiled = sg.jit(f)
    assert compiled(1.0) == 1.0
    monkeypatch.setitem(globals(), "LATER", 5.0)
    assert compiled(1.0) == 5.0


def test_static_arguments_are_told_apart_by_type():
    def f(x, n):
        return x * (2 if isinstance(n, bool) else 3 if isinstance(n, int) else 5)

    compiled = sg.jit(f, static_argnums=1)
    assert [float(compiled(1.0, n)) for n in (1, 1.0, True)] == [3.0, 5.0, 2.0]


def test_arrays_in_the_place_of_other_members_and_defaults():
    cache = [None]
    f = sg.jit(lambda x: x if cache[0] is None else x * cache[0])
    f(2.0)
    cache[0] = np.arange(3.0)
    assert f(2.0).tolist() == [0.0, 2.0, 4.0]

    def g(x, *, k=np.ones(2)):  # noqa: B008 (that is the point)
        return x * k

    compiled = sg.jit(g)
    compiled(6.0)
    g.__kwdefaults__ = {"k": np.zeros(2)}
    assert compiled(6.0).tolist() == [0.0, 0.0]


def test_the_sign_of_zero_and_the_order_of_a_dict():
    sign, table = 0.0, {"a": 1.0, "b": 2.0}

    def f(x):
        for key, value in table.items():
            x = x * value + (1 if key == "a" else 5)
        return jnp.copysign(x, sign)

    compiled = sg.jit(f)
    assert compiled(2.0) == 11.0
    table["a"] = table.pop("a")
    assert compiled(2.0) == 10.0
    sign = -0.0
    assert compiled(2.0) == -10.0


def test_other_containers_that_change_in_place():
    for held in (collections.deque([1.0, 2.0]), bytearray(b"\x01"), array.array("d", [1.0])):
        f = sg.jit(lambda x, held=held: x * held[0])
        assert f(2.0) == 2.0
        held[0] = 5
        assert f(2.0) == 10.0
