"""The crop index against hand counts and against walking over every picture."""

import doctest

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pcsr_lightning.data import CropIndex, crop_index


def walk(sizes: list[tuple[int, int]], crop: int, stride: int, rest: int) -> list[tuple[int, ...]]:
    """Every crop in order, by loops."""

    def starts(size: int) -> list[int]:
        found = list(range(0, size - crop + 1, stride))
        if found and size - (found[-1] + crop) > rest:
            found.append(size - crop)
        return found

    return [
        (n, top, left)
        for n, (height, width) in enumerate(sizes)
        for top in starts(height)
        for left in starts(width)
    ]


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ((128, 128), 1),
        ((127, 500), 0),
        ((176, 176), 1),  # 48 remain: not more than 48
        ((177, 176), 2),  # 49 remain: one more row, at 49
        ((192, 256), 6),  # 2 rows, 3 columns, nothing remains
        ((1356, 2040), 620),  # 20 rows (12 remain), 30 columns and one more (56 remain)
    ],
)
def test_hand_counts(size: tuple[int, int], count: int) -> None:
    assert len(CropIndex([size])) == count


def test_div2k_has_about_1_59_million_crops() -> None:
    scales = (1, 0.9, 0.8, 0.7, 0.6)
    sizes = [(round(1356 * s), round(2040 * s)) for s in scales]
    # by hand, a row of factors per scale: rows x columns
    assert [int(n) for n in CropIndex(sizes).counts] == [
        20 * 31,
        18 * 27,
        16 * 24,
        14 * 21,
        11 * 18,
    ]
    assert len(CropIndex(sizes * 800)) == 1_585_600


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=6),
    crop=st.integers(1, 20),
    stride=st.integers(1, 12),
    rest=st.integers(0, 12),
)
@example(sizes=[], crop=8, stride=4, rest=3)
@example(sizes=[(7, 7), (8, 8), (3, 60), (9, 12)], crop=8, stride=4, rest=3)
@settings(deadline=None)
def test_agrees_with_walking(
    sizes: list[tuple[int, int]], crop: int, stride: int, rest: int
) -> None:
    index = CropIndex(sizes, crop, stride, rest)
    expected = walk(sizes, crop, stride, rest)
    assert len(index) == len(expected)
    found = index.locate(np.arange(len(index)))
    assert [tuple(map(int, row)) for row in zip(*found, strict=True)] == expected


def test_locates_one_and_any_shape() -> None:
    index = CropIndex([(177, 256), (128, 128)])
    assert tuple(map(int, index.locate(6))) == (1, 0, 0)
    grid = index.locate(np.array([[0, 5], [4, 6]]))
    assert [part.tolist() for part in grid] == [
        [[0, 0], [0, 1]],
        [[0, 49], [49, 0]],
        [[0, 128], [64, 0]],
    ]


@pytest.mark.parametrize("number", [-1, 7, [0, 7]])
def test_numbers_out_of_range_are_errors(number: int | list[int]) -> None:
    with pytest.raises(IndexError, match=r"outside \[0, 7\)"):
        CropIndex([(200, 256), (128, 128)]).locate(number)


@pytest.mark.parametrize("bad", [{"crop": 0}, {"stride": 0}, {"min_rest": -1}])
def test_settings_out_of_range_are_errors(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        CropIndex([(8, 8)], **bad)


def test_the_docstring_is_right() -> None:
    result = doctest.testmod(crop_index)
    assert result.attempted > 2
    assert result.failed == 0
