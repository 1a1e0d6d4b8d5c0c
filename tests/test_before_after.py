"""Sheets of images before and after: what is where, and in which color."""

from __future__ import annotations

import numpy as np
import pytest

from scoresde.data import Description
from scoresde.plots import before_and_after

ORANGE = (214, 93, 14, 255)


def test_a_sheet_shows_the_original_what_was_hidden_and_the_results_in_one_row() -> None:
    before = np.zeros((2, 1, 4, 4))
    before[1] = 16
    after = np.full((2, 3, 1, 4, 4), 16)
    after[0, 1] = 0
    hidden = np.zeros((2, 1, 4, 4), bool)
    hidden[:, :, :, 2:] = True
    sheet = before_and_after(before, after, Description("gray", (1, 4, 4), bins=17), hidden)
    side, gap = 4 * 30, 3  # 600 pixels / (5 images of 4 pixels)
    assert sheet.shape == (2 * side + gap, 5 * side + 3 * gap + 4 * gap, 4)
    first, second = side // 2, side + gap + side // 2

    def at(row: int, column: int, x: float) -> tuple[int, ...]:
        left = column * (side + gap) + (3 * gap if column > 1 else 0)
        return tuple(sheet[row, left + int(x * side)].tolist())

    black, white = (0, 0, 0, 255), (255, 255, 255, 255)
    assert [at(first, 0, 0.25), at(second, 0, 0.75)] == [black, white]
    assert [at(first, 1, 0.25), at(first, 1, 0.75), at(second, 1, 0.25)] == [black, ORANGE, white]
    assert [at(first, column, 0.5) for column in (2, 3, 4)] == [white, black, white]
    assert [at(second, column, 0.5) for column in (2, 3, 4)] == [white, white, white]
    assert sheet[first, 2 * side + 2 * gap][3] == 0  # the space between before and after is transparent


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, \*D\) before and \(n, k, \*D\) after"):
        before_and_after(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), None)
    with pytest.raises(ValueError, match="hidden must be bool"):
        before_and_after(np.zeros((2, 4, 4)), np.zeros((2, 1, 4, 4)), None, np.zeros((2, 4), bool))
