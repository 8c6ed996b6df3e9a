"""Records against frozen dataclasses: the same behaviour."""

import copy
import inspect
import pickle
import threading
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from stategrad.ir.record import record


@record
class Point:
    """A record."""

    x: int
    y: int = 2
    notes: list[str] = field(default_factory=list, compare=False)
    size: int = field(init=False, repr=False, default=7)


@dataclass(frozen=True)
class Twin:
    """The same as a dataclass."""

    x: int
    y: int = 2
    notes: list[str] = field(default_factory=list, compare=False)
    size: int = field(init=False, repr=False, default=7)


@record
class Longer(Point):
    """One more field, and a check."""

    z: int = 0

    def __post_init__(self) -> None:
        if self.z < 0:
            raise ValueError("z is negative")


@record
class Empty:
    """No field."""


CALLS = [((1,), {}), ((1, 3), {}), ((1, 3, ["a"]), {}), ((), {"y": 5, "x": 4}), ((1,), {"notes": ["b"]})]


@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_a_record_is_what_the_dataclass_is(args: tuple[int, ...], kwargs: dict[str, int]) -> None:
    ours, theirs = Point(*args, **kwargs), Twin(*args, **kwargs)
    assert {f.name: getattr(ours, f.name) for f in fields(ours)} == {
        f.name: getattr(theirs, f.name) for f in fields(theirs)
    }
    assert repr(ours) == repr(theirs).replace("Twin", "Point")
    assert hash(ours) == hash(theirs)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, [], 4), {}), ((1,), {"x": 2}), ((1,), {"w": 2})]
)
def test_wrong_arguments_are_errors(args: tuple[int, ...], kwargs: dict[str, int]) -> None:
    for cls in (Point, Twin):
        with pytest.raises(TypeError):
            cls(*args, **kwargs)


def test_values_decide_equality() -> None:
    assert Point(1) == Point(1, 2, ["not compared"]) != Point(2)
    assert Point(1) != Twin(1)
    assert Point(1) != Longer(1)
    assert len({Point(1), Point(1, 2), Point(3)}) == 2
    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())


def test_each_instance_gets_its_own_default() -> None:
    assert Point(1).notes is not Point(1).notes


def test_records_are_frozen() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError, match="'x'"):
        point.x = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(FrozenInstanceError, match="'x'"):
        del point.x
    assert point == Point(1)


def test_records_inherit() -> None:
    assert repr(Longer(1, z=4)) == "Longer(x=1, y=2, notes=[], z=4)"
    with pytest.raises(ValueError, match="negative"):
        Longer(1, z=-1)


def test_the_standard_library_knows_records() -> None:
    point = Point(1, 3)
    assert replace(point, y=4) == Point(1, 4)
    assert copy.copy(point) == copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point
    shown = [(p.name, p.kind) for p in inspect.signature(Point).parameters.values()]
    assert shown == [(p.name, p.kind) for p in inspect.signature(Twin).parameters.values()]


def test_methods_of_the_class_stay() -> None:
    @record
    class Named:
        """A record that prints itself."""

        name: str

        def __repr__(self) -> str:
            return f"<{self.name}>"

    assert repr(Named("a")) == "<a>"


def test_fields_are_known_before_the_first_instance() -> None:
    @record
    class Fresh(Point):
        w: int = 3

    assert [f.name for f in fields(Fresh)] == ["x", "y", "notes", "size", "w"]
    assert Fresh.__doc__ == "Fresh"
    assert Fresh(1) == Fresh(1, 2, ["other"], w=3)


def test_threads_may_make_the_first_instance_at_once() -> None:
    for _ in range(20):

        @record
        class Shared:
            """A record."""

            x: int
            notes: list[str] = field(default_factory=list)

        barrier, found = threading.Barrier(4), []

        def make(cls: type = Shared, barrier: threading.Barrier = barrier, found: list = found) -> None:
            barrier.wait()
            found.append(cls(1))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert found == [Shared(1, [])] * 4
