"""A user's JAX-style gradient transform, applied to the program of a function inside of a trace of ours."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from stategrad.arguments import function_name
from stategrad.errors import GradientError
from stategrad.state import State
from stategrad.trace import Leaf, trace

from .plan import commit_under_trace, operands_under_trace
from .recipes import AsIs
from .selection import Request, Selection, shown_tree
from .staging import Staged, stage
from .static import Static
from .wanted import WantedStates, is_sequence, resolve_argnums


@jax.tree_util.register_pytree_node_class
class Kept:
    """All results of the program, on their way through a user's transform as its auxiliary data."""

    def __init__(self, results: Sequence[Any]) -> None:
        self.results = results

    def tree_flatten(self) -> tuple[Sequence[Any], None]:
        return self.results, None

    @classmethod
    def tree_unflatten(cls, _: None, results: Sequence[Any]) -> "Kept":
        return cls(results)


@jax.tree_util.register_pytree_node_class
class PerState:
    """Something for each State, once, in place of a container that JAX cannot walk or that repeats a
    State.
    """

    def __init__(self, each: Sequence[Any]) -> None:
        self.each = each

    def tree_flatten(self) -> tuple[Sequence[Any], None]:
        return self.each, None

    @classmethod
    def tree_unflatten(cls, _: None, each: Sequence[Any]) -> "PerState":
        return cls(each)


@dataclass(frozen=True)
class Container:
    """The container of States, as a user's transform sees it.

    Attributes:
        distinct: the States, each once.
        direct: whether the user's container is a pytree that holds each State once.
    """

    wanted: WantedStates
    distinct: tuple[State, ...]
    direct: bool

    @staticmethod
    def of(wanted: WantedStates) -> "Container":
        """Looks whether JAX can walk the user's container."""
        distinct = tuple(dict.fromkeys(wanted.states))
        try:
            jax.tree.leaves(wanted.fill(range(len(wanted.states))))
        except (TypeError, ValueError):  # keys that cannot be sorted
            return Container(wanted, distinct, False)
        return Container(wanted, distinct, len(distinct) == len(wanted.states))

    def fill(self, each: Sequence[Any]) -> Any:
        """The container with something for each of `distinct`."""
        return self.wanted.fill(each) if self.direct else PerState(each)

    def restore(self, found: Any) -> Any:
        """What the user gets: in their own container wherever another one stood for it."""
        if self.direct:
            return found
        return jax.tree.map(self._restored, found, is_leaf=lambda node: isinstance(node, PerState))

    def _restored(self, node: Any) -> Any:
        if not isinstance(node, PerState):
            return node
        found = {s: self.restore(x) for s, x in zip(self.distinct, node.each, strict=True)}
        return self.wanted.fill([found[s] for s in self.wanted.states])


class Applied:
    """What a user's transform makes of a function with States; to be called in a trace of ours."""

    def __init__(
        self,
        target: Callable[..., Any],
        transform: Callable[..., Any],
        params: dict[str, Any],
        request: Request,
        static: Static,
    ) -> None:
        functools.update_wrapper(self, target)
        self.__name__ = function_name(target)
        self._target, self._transform, self._params = target, transform, params
        self._request, self._static = request, static
        self.container = None if request.states is None else Container.of(request.states)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self._static.hide(args, kwargs)
        traced = trace(self._target, args, kwargs)
        selection = self._request.select(traced)
        staged = stage(traced, AsIs().derive(traced))
        pure = PureCall(selection, staged, self.container, args, kwargs)
        transformed = self._transform(pure.fun(), argnums=pure.argnums, has_aux=True, **self._params)
        if not callable(transformed):
            raise self._refused(f"a function of the same arguments, not {transformed!r}")
        gradients, results = self._parts(transformed(*pure.given, **kwargs))
        self._check(staged, results)
        commit_under_trace(staged, results)
        value, aux = selection.split_value(results[: traced.results])
        return self._request.outcome(gradients, value, aux)

    def _parts(self, found: Any) -> tuple[Any, Sequence[Any]]:
        """The gradients and the results of the program in what a transformed function gives."""
        if isinstance(found, (tuple, list)) and len(found) == 2:
            first, second = found
            if isinstance(second, Kept):
                return first, second.results
            if isinstance(first, (tuple, list)) and len(first) == 2 and isinstance(first[1], Kept):
                return second, first[1].results
        given = shown_tree(jax.tree.structure(found))
        raise self._refused(
            f"a function that gives (gradients, aux) with the aux that it was given, not {given}"
        )

    def _check(self, staged: Staged, results: Sequence[Any]) -> None:
        for expected, given in zip(staged.program.results, results, strict=True):
            type = jax.typeof(given)
            if (type.shape, type.dtype) != (expected.shape, expected.dtype):
                raise self._refused(
                    f"the aux of one call, as it was given: {expected.str_short()}, not {type.str_short()}"
                )

    def _refused(self, expected: str) -> GradientError:
        return GradientError(f"transform {shown(self._transform)} of {self.__name__} must return {expected}")


def shown(transform: Callable[..., Any]) -> str:
    """The name of a transform."""
    return getattr(transform, "__name__", repr(transform))


class PureCall:
    """A call of a program as a pure function, with what is differentiated by in front.

    Attributes:
        argnums: which of `given` are differentiated by.
        given: the positional arguments that `fun` is to be called with.
    """

    def __init__(
        self,
        selection: Selection,
        staged: Staged,
        container: Container | None,
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> None:
        self._selection, self._program = selection, staged.program
        self._operands = operands_under_trace(staged, args, kwargs)
        values = list(self._operands)
        tree = jax.tree.structure((tuple(args), kwargs))
        numbers, named = tree.unflatten(range(len(values) - tree.num_leaves, len(values)))
        argnums = selection.request.argnums
        if container is not None:
            leaves = {leaf: i for i, leaf in enumerate(staged.inputs)}
            states = container.fill([_numbered(state, leaves, values) for state in container.distinct])
            numbers, argnums = _with_states(states, argnums, numbers), 0
        self.argnums = argnums
        self.given = jax.tree.map(values.__getitem__, numbers)
        self._numbers, self._tree = jax.tree.flatten((numbers, named))

    def fun(self) -> Callable[..., Any]:
        """The function: `fun(*given, **kwargs) -> (value, Kept)`."""

        def fun(*given: Any, **kwargs: Any) -> tuple[Any, Kept]:
            leaves, tree = jax.tree.flatten((given, kwargs))
            if tree != self._tree:
                raise GradientError(
                    f"the transform of {fun.__name__} called it with {shown_tree(tree)}, not with the "
                    f"structure of its arguments: {shown_tree(self._tree)}"
                )
            operands = list(self._operands)
            for number, leaf in zip(self._numbers, leaves, strict=True):
                if number < len(operands):
                    operands[number] = leaf
            results = self._program.bind(*operands)
            return self._selection.split_value(results[: self._selection.traced.results])[0], Kept(results)

        fun.__name__ = fun.__qualname__ = self._selection.traced.function.name
        return fun


def _numbered(state: State, leaves: dict[Leaf, int], values: list[Any]) -> Any:
    """The State's pytree with numbers in `values` for leaves; what is no operand is put behind them."""
    numbers = []
    for i, value in enumerate(state.read_leaves()):
        numbers.append(leaves.get(Leaf(state, i), len(values)))
        if numbers[-1] == len(values):
            values.append(value)
    return state.held().structure.build(numbers, statics=False)


def _with_states(states: Any, argnums: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    """What is differentiated by as one argument, and then the other arguments."""
    if argnums is None:
        return (states, *args)
    chosen = resolve_argnums(argnums, len(args), "the function")
    by = tuple(args[n] for n in chosen) if is_sequence(argnums) else args[chosen[0]]
    return ((states, by), *(a for n, a in enumerate(args) if n not in chosen))
