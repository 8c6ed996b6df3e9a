"""`State`: a named place that functions read and write, and the only thing the transforms keep track of."""

import copy
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import jax

from . import jax_compat as compat
from .errors import StateError
from .frame import Frame, Held
from .no_array import NotAnArray
from .pickles import from_host, to_host
from .resident import LOCK, RESIDENT, Epochs, any_exclusive, arrays_of, is_settled, put, settle, share
from .state_primitives import CellId, direct, read_p, thread, write_p
from .structure import Structure, split
from .user_frame import begun_by_jax, user_line


def refuse_in_callbacks() -> None:
    """To be called before `with LOCK:`, where the caller may be a host callback of a call that runs.

    The lock itself is taken by `with` alone: in a method of Python's that took it, an interrupt could come
    between the taking and the block, and nobody would let go of it any more.

    Raises:
        StateError: in a host callback, while another thread's call runs, which may be waiting for it: it must
            not wait for the call.
    """
    if not isinstance(
        threading.current_thread(), threading._DummyThread
    ):  # JAX's threads are none of Python's
        return
    if not LOCK.acquire(blocking=False):
        if not begun_by_jax():
            return
        raise StateError(
            f"a State is read or written, or a function of stategrad is called, in a host callback"
            f"{user_line()} while a call on States runs; give the callback what it needs as an "
            "argument, and return what is to be written"
        )
    LOCK.release()


class Slot:
    """One array leaf of a State. `exclusive` says that nothing but the State holds the array: it may be
    donated. Then the array may stand with the operands of a call instead (`settle` brings it back).
    """

    __slots__ = ("array", "exclusive")

    def __init__(self, array: Any, exclusive: bool = False) -> None:
        self.array = array
        self.exclusive = exclusive


class Stored:
    """What a State holds outside of traces. Another pytree structure comes with slots of its own, in one
    object: an interrupt finds the State as it was before or as it is afterwards, never with the structure of
    one value and the leaves of another.

    Attributes:
        slots: the array leaves; None if the State lives only inside a traced function.
    """

    __slots__ = ("slots", "structure")

    def __init__(self, slots: tuple[Slot, ...] | None, structure: Structure) -> None:
        self.slots = slots
        self.structure = structure


_numbers = itertools.count()


class State(NotAnArray):
    """A value that functions may read and write, and that gradients may be taken with respect to.

    Args:
        value: any pytree of arrays and numbers; numbers become arrays of jax's default types. Leaves that are
            no arrays (functions, strings) are kept as they are and belong to the structure.
        name: shown in errors, dumps and reports; by default `state0`, `state1`, ….
        tag: any text, for filters.

    Raises:
        StateError: it is created inside a raw JAX transformation, or holds another State.
    """

    __slots__ = ("__weakref__", "_name", "_name_from", "_stored", "cell", "tag")

    def __init__(self, value: Any, name: str | None = None, *, tag: str | None = None) -> None:
        self._name_from = "nothing" if name is None else "user"
        self._name = (
            name if name is not None else (f"state{next(_numbers)}" if compat.is_eager() else "local")
        )
        self.tag = tag
        arrays, structure = split(value, self._name)
        self._stored = Stored(None, structure)
        self.cell = CellId(self, self._name)
        if compat.is_eager():
            self._stored = Stored(tuple(Slot(compat.strong_array(a)) for a in arrays), structure)
        else:
            self._begin_local(arrays)

    @property
    def name(self) -> str:
        """The name shown in errors, dumps and reports."""
        return self._name

    def suggest_name(self, name: str) -> None:
        """Takes a path in a Module as its name, unless it has one; a longer path to the same end wins."""
        if self._name_from == "nothing" or (self._name_from == "path" and name.endswith(f".{self._name}")):
            self._name = self.cell.name = name
            self._name_from = "path"

    @property
    def value(self) -> Any:
        """The value now: the stored one, or inside a traced function the one that the function sees at this
        point. Containers in it are made anew at each read: to change one part, write the whole value back.
        """
        if not compat.is_eager():
            return self._traced_value()
        stored = self._stored
        if stored.slots is None:
            raise self._gone()
        if stored.structure.single:
            slot = stored.slots[0]
            return slot.array if not slot.exclusive else _hand_out(slot)
        return stored.structure.build(_hand_out_all(stored.slots))

    @value.setter
    def value(self, value: Any) -> None:
        arrays, structure = split(value, self._name)
        if compat.is_eager():
            if any(isinstance(a, compat.Tracer) for a in arrays):
                raise StateError(
                    f"the State {self._name!r} is given a value of a trace that is over{user_line()}; "
                    "return the value from the traced function, or write it inside"
                )
            self.store(structure, [compat.strong_array(a) for a in arrays])
        else:
            self.write_leaves(arrays, structure)

    # ------------------------------------------------------------------ outside of traces
    @property
    def slots(self) -> tuple[Slot, ...]:
        """The stored leaves, each with its array.

        Raises:
            StateError: the State lived only inside a traced function.
        """
        slots = self._stored.slots
        if slots is None:
            raise self._gone()
        if not is_settled():
            refuse_in_callbacks()
            with LOCK:
                settle()
        return slots

    @property
    def structure(self) -> Structure:
        """The pytree structure of the stored value."""
        return self._stored.structure

    def store(self, structure: Structure, arrays: Sequence[Any], exclusive: bool = False) -> None:
        """Replaces the stored value. `exclusive`: the arrays are results that nobody else holds."""
        refuse_in_callbacks()
        with LOCK:
            while True:
                settle()
                self._put(structure, arrays, exclusive)
                if is_settled():  # else a signal handler has called a function meanwhile
                    return

    def _put(self, structure: Structure, arrays: Sequence[Any], exclusive: bool) -> None:
        Epochs.sharing += 1
        slots = self._stored.slots
        if slots is None or structure != self._stored.structure or self.cell.local:
            # Before, not after: an interrupt in between must not hide the change.
            Epochs.structure += 1
            Epochs.attributes += 1
            if self.cell.local:
                self.cell = CellId(self, self._name)
            self._stored = Stored(tuple(Slot(a, exclusive) for a in arrays), structure)
        else:
            put(slots, arrays, exclusive)

    def stored_leaf(self, index: int, aval: Any, structure: Structure) -> Any:
        """The stored leaf, for a read that JAX evaluates eagerly; it must still be what the read was traced
        for.
        """
        slots = self.slots
        if structure != self.structure or not compat.same_type(slots[index].array, aval):
            raise StateError(
                f"the State {self._name!r} has changed its structure or type since it was traced{user_line()}"
            )
        return _hand_out(slots[index])

    def _gone(self) -> StateError:
        return StateError(
            f"the State {self._name!r} was created inside a traced function and is gone with it{user_line()}"
            "; create it outside, return its value, or assign a concrete value to it first"
        )

    # ------------------------------------------------------------------ inside of traces
    def held(self) -> Held:
        """Structure and types that the State has at this point of the trace."""
        frame = thread.frame
        found = frame.held(self) if frame is not None else None
        if found is not None:
            return found
        stored = self._stored
        if stored.slots is None:
            raise self._gone()
        return Held(stored.structure, tuple(compat.strong_type(s.array) for s in stored.slots))

    def read_leaves(self) -> list[Any]:
        """Binds a read of each leaf in the current trace."""
        return self._read(self.held())

    def _read(self, held: Held) -> list[Any]:
        frame, trace = thread.frame, compat.current_trace()
        if frame is not None:
            frame.seen[self.cell] = self
        with direct():
            return [
                read_p.bind_with_trace(trace, (), (), self._read_params(held, i))
                for i in range(len(held.types))
            ]

    def _read_params(self, held: Held, leaf: int) -> dict[str, Any]:
        return {
            "cell": self.cell,
            "leaf": (held.version, leaf),
            "aval": held.types[leaf],
            "structure": held.structure,
        }

    def write_leaves(self, arrays: Sequence[Any], structure: Structure) -> None:
        """Binds a write of each leaf in the current trace; another structure or type starts a new version of
        the cell.

        Raises:
            StateError: the structure or type changes inside a loop, a branch or a nested jit.
        """
        frame, held = thread.frame, self.held()
        if structure == held.structure:
            arrays = [compat.adopt_type(a, t) for a, t in zip(arrays, held.types, strict=True)]
        else:
            arrays = [compat.strong_array(a) for a in arrays]
        if frame is not None:
            frame.seen[self.cell] = self
            types = tuple(compat.strong_type(a) for a in arrays)
            if structure != held.structure or types != held.types:
                held = self._retype(frame, held, Held(structure, types, held.version + 1))
        self._bind_writes(arrays, held.version)

    def rewrite_leaf(self, index: int, array: Any) -> None:
        """Binds a write of one leaf, of the type that it has, in the current trace."""
        with direct():
            write_p.bind(array, cell=self.cell, leaf=(self.held().version, index), creates=False)

    def _bind_writes(self, arrays: Sequence[Any], version: int, creates: bool = False) -> None:
        with direct():
            for i, array in enumerate(arrays):
                write_p.bind(array, cell=self.cell, leaf=(version, i), creates=creates)

    def _retype(self, frame: Frame, before: Held, after: Held) -> Held:
        if not frame.at_top:
            raise StateError(
                f"the State {self._name!r} changes its type inside a loop, a branch or a nested jit"
                f"{user_line()}: it holds {_shown(before)} and is given {_shown(after)}; "
                "write a value of the same structure, shape and dtype (convert it), or change the type "
                "outside of the loop"
            )
        frame.hold(self, after)
        return after

    def _traced_value(self) -> Any:
        held = self.held()
        return held.structure.build(self._read(held))

    def _begin_local(self, arrays: Sequence[Any]) -> None:
        frame = thread.frame
        if frame is None:
            raise StateError(
                f"the State {self._name!r} is created inside a raw JAX transformation{user_line()}; "
                "create it outside, or use the transform of the same name in stategrad"
            )
        self.cell.local = True
        arrays = [compat.strong_array(a) for a in arrays]
        frame.created.add(self.cell)
        frame.seen[self.cell] = self
        types = tuple(compat.strong_type(a) for a in arrays)
        frame.retyped[self.cell] = Held(self.structure, types)
        self._bind_writes(arrays, 0, creates=True)

    # ------------------------------------------------------------------ copies and pickles
    def __copy__(self) -> "State":
        return self._twin(self._attributes())

    def __deepcopy__(self, memo: dict[int, Any]) -> "State":
        """Another State of the same name that holds the same value."""
        twin = memo[id(self)] = self._twin({})
        for name, attribute in self._attributes().items():
            object.__setattr__(twin, name, copy.deepcopy(attribute, memo))
        return twin

    def _twin(self, attributes: dict[str, Any]) -> "State":
        """A State that holds the same value; inside a trace one of the trace."""
        twin = object.__new__(type(self))
        if not compat.is_eager():
            State.__init__(twin, self.value, self._name)
        for name, attribute in attributes.items():
            object.__setattr__(twin, name, attribute)
        if not compat.is_eager():
            return twin
        twin._stored = Stored(tuple(map(Slot, _hand_out_all(self.slots))), self.structure)
        twin.cell = CellId(twin, self._name)
        return twin

    def _attributes(self) -> dict[str, Any]:
        """What the State holds beside its value: the name, and what subclasses add."""
        found: Any = object.__getstate__(self)
        merged = {name: value for part in found if part for name, value in part.items()}
        return {name: value for name, value in merged.items() if name not in ("_stored", "cell")}

    def __getstate__(self) -> tuple[dict[str, Any], Any]:
        if not compat.is_eager():
            raise StateError(f"the State {self._name!r} is pickled inside a traced function{user_line()}")
        arrays = list(map(to_host, _hand_out_all(self.slots)))
        return self._attributes(), self.structure.build(arrays)

    def __setstate__(self, given: tuple[dict[str, Any], Any]) -> None:
        attributes, value = given
        alive = hasattr(self, "cell")
        for name, attribute in attributes.items():
            object.__setattr__(self, name, attribute)
        with compat.outside_of_traces():
            arrays, structure = split(jax.tree.map(from_host, value), self._name)
            if not alive:
                self._stored, self.cell = Stored(None, structure), CellId(self, self._name)
            self.store(structure, [compat.strong_array(a) for a in arrays])

    def __repr__(self) -> str:
        kind = type(self).__name__
        slots, structure = self._stored.slots, self._stored.structure
        if slots is None:
            return f"{kind}({self._name!r}, only inside a trace)"
        shown = ", ".join(compat.strong_type(s.array).str_short() for s in slots)
        return f"{kind}({self._name!r}, {shown if structure.single else f'{shown} in {structure}'})"


class ParamState(State):
    """A State that is trained: what `model.states(ParamState)` selects."""

    __slots__ = ()


def _hand_out(slot: Slot) -> Any:
    if slot.exclusive:
        refuse_in_callbacks()
        with LOCK:
            while True:
                settle()
                if RESIDENT.now is None and RESIDENT.running is None:  # after this no signal handler comes
                    slot.exclusive = False
                    Epochs.sharing += 1
                    return slot.array  # inside: the next call of another thread may donate what is read later
    return slot.array


def _hand_out_all(slots: Sequence[Slot]) -> list[Any]:
    """All leaves of one value, between two calls of other threads and of signal handlers."""
    refuse_in_callbacks()
    with LOCK:
        while True:
            settle()
            epoch = Epochs.sharing
            if any_exclusive(slots):
                # Before and after: a signal handler may raise or call a function in between.
                Epochs.sharing += 1
                share(slots)
                Epochs.sharing += 1
                continue
            arrays = arrays_of(slots)
            if epoch == Epochs.sharing and is_settled():
                return arrays  # inside: the next call of another thread may donate what is read later


def _shown(held: Held) -> str:
    types = ", ".join(t.str_short() for t in held.types)
    return types if held.structure.single else f"({types}) in {held.structure}"
