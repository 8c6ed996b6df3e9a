"""A call of a function with States as a pure function, for transforms that know nothing of States."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategrad.errors import GradientError
from stategrad.ir.record import record
from stategrad.state import State
from stategrad.structure import Structure
from stategrad.trace import Leaf
from stategrad.units import Measure

from .plan import operands_under_trace
from .selection import Request, Selection, shown_tree
from .staging import Staged
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


@record
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


@record
class Forms:
    """The pytrees that a user's transform sees: with quantities, or with their mantissas only.

    Attributes:
        args: of each argument that is differentiated by.
        states: of each State that is.
        value: of the value.
    """

    args: tuple[Any, ...]
    states: dict[State, Structure]
    value: Any

    @staticmethod
    def bare(selection: Selection) -> "Forms":
        """Without units, if the request is unit-aware."""
        wanted = selection.request.states
        states = wanted.states if wanted else ()
        structures = (by.structure for by in selection.by_states)
        return Forms(selection.arg_trees, dict(zip(states, structures, strict=True)), selection.value_tree)

    @staticmethod
    def full(selection: Selection) -> "Forms":
        """As the user has them."""
        request, traced = selection.request, selection.traced
        args = tuple(traced.argument_trees[n] for n in chosen_arguments(request, len(traced.argument_trees)))
        states = request.states.states if request.states else ()
        return Forms(args, {s: s.held().structure for s in states}, selection.full_value_tree)


class PureCall:
    """A call of a program as a pure function, with what is differentiated by in front.

    Attributes:
        argnums: which of `given` are differentiated by.
        given: the positional arguments that `fun` is to be called with.
        wrt: the pytree of what is differentiated by.
        measures: the unit of each of its leaves.
    """

    def __init__(
        self,
        selection: Selection,
        staged: Staged,
        container: Container | None,
        forms: Forms,
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> None:
        self._selection, self._program, self._value = selection, staged.program, forms.value
        self._operands = operands_under_trace(staged, args, kwargs)
        values = list(self._operands)
        tree = jax.tree.structure((tuple(args), kwargs))
        each, named = tree.unflatten(range(len(values) - tree.num_leaves, len(values)))
        chosen = chosen_arguments(selection.request, len(args))
        by_args = [
            form.unflatten(jax.tree.leaves(each[n])) for n, form in zip(chosen, forms.args, strict=True)
        ]
        self.argnums = selection.request.argnums
        wrt = tuple(by_args) if is_sequence(self.argnums) or not by_args else by_args[0]
        numbers = tuple(by_args[chosen.index(n)] if n in chosen else each[n] for n in range(len(each)))
        if container is not None:
            states = _state_numbers(container.distinct, staged, values)
            by_states = container.fill([forms.states[s].build(n, statics=False) for s, n in states.items()])
            wrt = by_states if self.argnums is None else (by_states, wrt)
            numbers = (wrt, *(x for n, x in enumerate(numbers) if n not in chosen))
            self.argnums = 0
        else:
            states = {}
        found, self.wrt = jax.tree.flatten(wrt)
        measures = _measures(selection, states, len(staged.inputs))
        self.measures = tuple(measures[n] for n in found)
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
            return self._value.unflatten(results[: self._value.num_leaves]), Kept(results)

        fun.__name__ = fun.__qualname__ = self._selection.traced.function.name
        return fun


def chosen_arguments(request: Request, count: int) -> tuple[int, ...]:
    """The positions of the arguments to differentiate by."""
    if request.argnums is None:
        return ()
    return resolve_argnums(request.argnums, count, "the function")


def _state_numbers(states: Sequence[State], staged: Staged, values: list[Any]) -> dict[State, list[int]]:
    """For each State the numbers of its leaves in `values`; what is no operand is put behind them."""
    leaves = {leaf: i for i, leaf in enumerate(staged.inputs)}
    found: dict[State, list[int]] = {}
    for state in states:
        found[state] = []
        for i, value in enumerate(state.read_leaves()):
            number = leaves.get(Leaf(state, i), len(values))
            if number == len(values):
                values.append(value)
            found[state].append(number)
    return found


def _measures(selection: Selection, states: dict[State, list[int]], inputs: int) -> dict[int, Measure | None]:
    """The unit of each leaf that is differentiated by, by its number."""
    found = {inputs + i: m for i, m in zip(selection.args, selection.arg_measures, strict=True)}
    wanted = selection.request.states
    for state, by in zip(wanted.states if wanted else (), selection.by_states, strict=True):
        found.update(zip(states[state], by.measures, strict=True))
    return found
