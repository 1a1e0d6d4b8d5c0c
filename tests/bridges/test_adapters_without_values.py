"""Adapters read no values of tensors in a call: they run where tensors have none, so nothing waits for a device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from digit_network import SHAPE, DigitNetwork
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import scoresde as sd
from scoresde.adapters import FromSchedule, FromSigma, FromSigmaTable, FromStep, FromTime, OneHot


class Labeled(DigitNetwork):
    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        return super().forward(x, t) * class_labels.sum(1).reshape(-1, 1, 1, 1)


class Denoiser(DigitNetwork):
    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - 0.99 * t, 0.01 + 0.99 * t

    def forward(self, x: Tensor, t: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(super().forward(x, t), 1.0, validate_args=False)


ADAPTERS: dict[str, Callable[[], nn.Module]] = {
    "table": lambda: FromSigmaTable(DigitNetwork(), (0.1, 1.0, 10.0)),
    "rounded table": lambda: FromSigmaTable(DigitNetwork(), (10.0, 1.0, 0.1), True, False, True),
    "one-hot": lambda: FromSigma(OneHot(Labeled(), 3)),
    "schedule": lambda: FromSchedule(Denoiser()),
    "levels": lambda: FromSigma(DigitNetwork(), 0.5, "log half", "score"),
    "steps": lambda: FromStep(DigitNetwork(), sd.LinearBetas()),
    "times": lambda: FromTime(DigitNetwork(), sd.VPSDE(), 999.0),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_runs_on_tensors_without_values(name: str) -> None:
    with FakeTensorMode():
        model = sd.ScoreModel(ADAPTERS[name](), sd.VPSDE(sd.LinearBetas()), sd.Eps(), SHAPE)
        cond = {"label": torch.zeros(2, dtype=torch.int64)} if name == "one-hot" else {}
        out = model(torch.zeros(2, *SHAPE), torch.full((2,), 0.5), **cond).x0
    assert out.shape == (2, *SHAPE)
