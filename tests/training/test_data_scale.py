"""Data far from mean 0 and variance 1 in model units give one warning with both numbers; others give none."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from scoresde.data import Data, Description
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process.sde import VPSDE
from scoresde.training import Training, train

N = 1000


def warning_of(x: Tensor | np.ndarray | Data, description: Description | None = None) -> str:
    events = x.train if isinstance(x, Data) else x
    model = ScoreModel(MLP(tuple(events.shape[1:]), width=4, depth=1), VPSDE(), data=description)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        train(model, x, Training(steps=2, batch_size=4))
    assert len(seen) <= 1
    assert all(w.filename == __file__ for w in seen)  # it points to the call of train
    return str(seen[0].message) if seen else ""


def uniform(low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(N, *shape, generator=torch.Generator().manual_seed(0))


def normal(*shape: int) -> Tensor:
    return torch.randn(N, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "x",
    [
        uniform(0, 255, 2),
        uniform(0, 255, 1, 4, 4),
        normal(2) * 100,
        normal(2) + 40,
        normal(2) * 1e-3,
        uniform(1.7e9, 1.8e9, 1).double(),
    ],
    ids=["bytes", "images", "wide", "shifted", "narrow", "seconds"],
)
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_unscaled_data_warn_once_with_mean_and_deviation_and_the_remedy(x, kind):
    text = warning_of(x if kind == "tensor" else x.numpy())
    numbers = re.search(r"with mean (\S+) and standard deviation (\S+):", text)
    assert numbers is not None, text
    assert float(numbers[1]) == pytest.approx(float(x.double().mean()), rel=1e-3, abs=1e-4)
    assert float(numbers[2]) == pytest.approx(float(x.double().std(correction=0)), rel=1e-3)
    assert "data=sd.Description(name, shape, offset=mean, scale=std)" in text
    assert "sd.load_data(path)" in text


def test_one_unscaled_column_among_many_is_named():
    x = normal(60)
    x[:, 7] += 12
    assert re.search(r"with mean (11\.9|12\.0)\S* and standard deviation (0\.9|1\.0)\S* in column 7:", warning_of(x))


@pytest.mark.parametrize(
    "x",
    [
        normal(3),
        normal(3).double(),
        uniform(-1, 1, 2),
        uniform(0, 1, 1, 4, 4),
        2 * normal(2) + 1,
        0.5 * normal(2),
        torch.where(uniform(0, 1, 1, 4, 4) > 0.97, 1.0, -1.0),
    ],
    ids=["standardized", "float64", "[-1, 1]", "[0, 1]", "variance 4", "variance .25", "sparse images"],
)
def test_scaled_data_give_no_warning(x):
    assert warning_of(x) == ""


def test_the_description_decides_what_model_units_are():
    x = uniform(0, 255, 2)
    mean, std = float(x.mean()), float(x.std())
    assert warning_of(x, Description("bytes", (2,), offset=mean, scale=std)) == ""
    integers = x.to(torch.uint8)
    assert warning_of(Data(integers, integers[:0], Description("bytes", (2,), bins=256))) == ""
    text = warning_of(Data(x, x[:0], Description("bytes", (2,))))
    assert "got 'bytes' with mean 12" in text
    assert "give the Description their mean as offset=" in text


def test_many_events_are_judged_by_some_of_them():
    x = 100 + torch.randn(50_000, 1, generator=torch.Generator().manual_seed(0))
    assert "with mean 100 and standard deviation" in warning_of(x)
