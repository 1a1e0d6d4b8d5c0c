"""Built-in data sources: digits, toy distributions, and errors on unknown names."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scoresde.data import load_data
from scoresde.data.toys import TOYS


def test_the_split_of_digits_never_changes():
    data = load_data("digits")
    assert data.train.shape == (1437, 1, 8, 8)
    assert data.test.shape == (360, 1, 8, 8)
    assert data.description.bins == 17
    assert set(torch.cat([data.train, data.test]).unique().tolist()) == set(range(17))
    assert data.train_labels is not None
    assert data.test_labels is not None
    assert data.test_labels[:8].tolist() == [7, 9, 4, 7, 0, 2, 6, 1]
    assert torch.equal(load_data("digits").train, data.train)
    assert not torch.equal(load_data("digits", seed=1).train, data.train)


def test_labels_of_digits_belong_to_their_images():
    from sklearn.datasets import load_digits

    images, target = map(np.asarray, load_digits(return_X_y=True))
    label_of = {images[i].astype(np.uint8).tobytes(): int(target[i]) for i in range(len(images))}
    data = load_data("digits")
    assert data.train_labels is not None
    assert [label_of[image.numpy().tobytes()] for image in data.train] == data.train_labels.tolist()


@pytest.mark.parametrize("name", sorted(TOYS))
def test_toys_are_reproducible_points_around_the_origin(name):
    data, repeated = load_data(name, n=2000, seed=3), load_data(name, n=2000, seed=3)
    assert (data.train.shape, data.test.shape) == ((1600, 2), (400, 2))
    assert torch.equal(data.train, repeated.train)
    assert data.train.mean(0).norm() < 0.25
    assert 0.4 < data.train.std() < 1.3
    assert data.train_labels is not None
    assert data.train_labels.shape == (1600,)


def test_the_ring_is_a_mixture_of_gaussians():
    data = load_data("ring", n=40_000, modes=3, std=0.05, test_fraction=0)
    assert data.train_labels is not None
    for k in range(3):
        mode = data.train[data.train_labels == k].double()
        center = torch.tensor([math.cos(2 * math.pi * k / 3), math.sin(2 * math.pi * k / 3)])
        assert len(mode) == pytest.approx(40_000 / 3, abs=4 * math.sqrt(40_000 * 2 / 9))
        assert (mode.mean(0) - center).norm() < 4 * 0.05 * math.sqrt(2 / len(mode))
        torch.testing.assert_close(
            torch.cov(mode.T), 0.0025 * torch.eye(2, dtype=torch.float64), rtol=0, atol=0.0025 * 0.07
        )


def test_the_checkerboard_fills_its_squares_and_no_other():
    points = load_data("checkerboard", n=8000, test_fraction=0).train
    corner = points.floor()
    assert bool((corner.sum(1) % 2 == 0).all())
    assert bool((points.abs() <= 2).all())
    _, counts = corner.unique(dim=0, return_counts=True)
    assert len(counts) == 8
    assert (counts - 1000).abs().max() < 4 * math.sqrt(1000 * 7 / 8)


def test_noiseless_curves_lie_on_their_equations():
    spiral = load_data("two_spirals", n=500, std=0.0, test_fraction=0)
    assert spiral.train_labels is not None
    radius = spiral.train.norm(dim=1)
    sign = (1 - 2 * spiral.train_labels)[:, None]
    angle = 3 * math.pi * radius
    curve = sign * radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    torch.testing.assert_close(spiral.train, curve, rtol=0, atol=1e-4)
    moons = load_data("moons", n=500, std=0.0, test_fraction=0)
    assert moons.train_labels is not None
    unrotated = (1 - 2 * moons.train_labels)[:, None] * moons.train + torch.tensor([0.5, 0.25])
    torch.testing.assert_close(unrotated.norm(dim=1), torch.ones(500))
    circles = load_data("circles", n=500, std=0.0, test_fraction=0)
    assert circles.train_labels is not None
    torch.testing.assert_close(circles.train.norm(dim=1), 1 - circles.train_labels / 2)
    roll = load_data("swiss_roll", n=500, std=0.0, test_fraction=0).train
    t = 10 * roll.norm(dim=1)
    torch.testing.assert_close(roll, (t / 10)[:, None] * torch.stack([t.cos(), t.sin()], dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digit", {}, r"unknown data source 'digit'; did you mean digits\? Valid: checkerboard, circles, digits"),
        ("data.doc", {}, "A path must be a folder of images, or end in .npy, .npz"),
        ("ring", {"mode": 3}, r"unknown option of 'ring' 'mode'; did you mean modes\?"),
        ("digits", {"test_fractoin": 0.5}, r"did you mean test_fraction\?"),
        ("here.npy", {"bin": 3}, r"did you mean bins\?"),
        ("digits", {"test_fraction": 1.0}, r"test_fraction must lie in \[0, 1\), got 1.0"),
    ],
)
def test_the_error_on_a_typo_suggests_the_nearest_name(source, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(source, **options)
