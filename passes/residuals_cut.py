"""The choice between keeping and computing again, as a minimum cut.

A value that is wanted later is kept or computed again; to compute it again, the operands of its operation are
wanted. With an edge for each of these sentences, the cheapest way is a minimum cut between what is wanted and
what keeping and computing cost.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from stategrad.ir import Operation, Type, Value
from stategrad.ir.lazy import Lazy
from stategrad.ir.record import record

if TYPE_CHECKING:
    import networkx as nx
    from networkx.algorithms import flow
else:
    nx, flow = Lazy("networkx"), Lazy("networkx.algorithms.flow")

_SOURCE, _SINK = "wanted", "paid"


@record
class Choice:
    """The values that are kept, and the operations that are computed again, in program order."""

    kept: list[Value]
    again: list[Operation]


def choose(
    operations: Sequence[Operation],
    wanted: Iterable[Value],
    keep: Callable[[Value], float | None],
    again: Callable[[Operation], float | None],
) -> Choice:
    """The cheapest way to have the `wanted` values later.

    Args:
        operations: in program order; what they do not make can only be kept.
        keep: the price of keeping a value; None if that is out of the question.
        again: the price of an operation; None if it cannot be computed again.
    """
    makers = {v: op for op in operations for v in op.results}
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        return Choice([], [])
    graph = _graph(makers, wanted, keep, again)
    # The tree that grew from the source is its side of the cut: no search for it is needed.
    dear, _ = flow.boykov_kolmogorov(graph, _SOURCE, _SINK).graph["trees"]
    kept: dict[Value, None] = {}
    repeated: set[Operation] = set()
    waiting = list(wanted)
    while waiting:
        v = waiting.pop()
        op = makers.get(v)
        if op is None or op not in dear or keep(v) == 0:
            kept[v] = None
        elif op not in repeated:
            repeated.add(op)
            waiting += op.operands
    return Choice(list(kept), [op for op in operations if op in repeated])


def _graph(
    makers: dict[Value, Operation],
    wanted: Iterable[Value],
    keep: Callable[[Value], float | None],
    again: Callable[[Operation], float | None],
) -> "nx.DiGraph[object]":
    """The edges: a wanted value must be kept, or its operation is; that wants its operands, and is paid."""
    graph: nx.DiGraph[object] = nx.DiGraph()
    graph.add_node(_SINK)
    waiting = list(wanted)
    for v in waiting:
        graph.add_edge(_SOURCE, v)
    seen: set[object] = set(waiting)
    while waiting:
        v = waiting.pop()
        op, kept = makers.get(v), keep(v)
        price = None if op is None or kept == 0 else again(op)  # what costs nothing is kept
        _edge(graph, v, _SINK if op is None or price is None else op, kept)
        if op is None or price is None or op in seen:
            continue
        seen.add(op)
        graph.add_edge(op, _SINK, capacity=price)
        for operand in op.operands:
            graph.add_edge(op, operand)
            if operand not in seen:
                seen.add(operand)
                waiting.append(operand)
    return graph


def _edge(graph: "nx.DiGraph[object]", v: object, to: object, price: float | None) -> None:
    if price is None:
        graph.add_edge(v, to)  # without a capacity an edge is never cut
    else:
        graph.add_edge(v, to, capacity=price)


def bytes_of(type: Type) -> int:
    """The memory that an array takes; a key is taken for one of two words."""
    item = type.dtype.numpy.itemsize if type.dtype.numpy is not None else 8
    return item * type.size
