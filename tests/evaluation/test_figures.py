"""Which parts are enlarged, and that a figure shows them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pcsr_lightning.evaluation.figures import (
    FRAMES,
    Box,
    Panel,
    save_figure,
    side_by_side,
    telling_boxes,
)


def test_the_first_box_is_where_we_gain_and_the_second_where_classes_mix() -> None:
    truth = torch.zeros(3, 120, 180)
    bicubic = truth.clone()
    bicubic[:, 40:60, 100:120] = 1
    classes = torch.ones(120, 180, dtype=torch.uint8)
    classes[80:, :20] = 0
    classes[80:, :20:2] = 1
    first, second = telling_boxes(bicubic, truth, truth, classes, 2)
    assert (first.side, second.side) == (20, 20)
    assert abs(first.top - 40) <= 2
    assert abs(first.left - 100) <= 2
    assert second.top >= 78
    assert second.left <= 2
    assert abs(first.top - second.top) >= 20 or abs(first.left - second.left) >= 20


def test_no_room_for_a_second_box() -> None:
    picture, classes = torch.rand(3, 17, 18), torch.zeros(17, 18, dtype=torch.uint8)
    assert len(telling_boxes(picture, picture, picture, classes, 2)) == 1


def test_a_figure_shows_pictures_and_enlarged_parts(tmp_path: Path) -> None:
    green, grey = torch.zeros(3, 60, 90), torch.full((3, 60, 90), 0.5)
    green[1] = 1
    green[:, 10:20, 10:20] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    figure = side_by_side(
        [Panel("one", green), Panel("two", grey), Panel("three", grey)],
        [Box(10, 10, 10)],
        shares=(2, (0.25, 0.75)),
    )
    path = tmp_path / "figure.png"
    save_figure(figure, path)
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"))
    assert pixels.shape[1] == 3 * 510
    blue = (pixels == (0, 0, 255)).all(axis=2)
    # 10 x 10 of 60 x 90 pixels in the whole picture, and all of the part below it
    assert 0.5 < blue.sum() / 510**2 < 1.3
    lower_left = blue[-400:, :450]
    assert lower_left.mean() > 0.7
    frame = tuple(int(FRAMES[0][i : i + 2], 16) for i in (1, 3, 5))
    assert (pixels == frame).all(axis=2).sum() > 1000
    legend = figure.axes[2].get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["heavy 25.0 %", "light 75.0 %"]
