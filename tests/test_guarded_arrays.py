"""NumPy arrays that a function reads, changed in place: views of large ones, repeated ones, empty ones."""

import numpy as np
import pytest

import stategrad as sg


@pytest.mark.parametrize("view", [np.s_[:, 3], np.s_[::-1], np.s_[::2, 1::3], np.s_[7, :]])
def test_views_of_large_arrays(view):
    table = np.ones((600, 500))[view]
    f = sg.jit(lambda x: x * table[(1,) * table.ndim])
    assert f(2.0) == 2.0
    table[(1,) * table.ndim] = 5.0
    calls = table.nbytes // 2**16 + 2  # of a large one, each looks at a part
    assert 10.0 in [f(2.0) for _ in range(calls)]


def test_an_array_without_axes_and_one_without_elements():
    scale, empty = np.array(2.0), np.ones((3, 0))
    f = sg.jit(lambda x: x * scale + empty.sum())
    assert f(3.0) == 6.0
    scale[()] = 5.0
    assert f(3.0) == 15.0
