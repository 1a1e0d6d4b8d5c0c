"""Diverged samples are refused; samples of heavy-tailed exact models are not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import scoresde as sd
from scoresde.analytic import Gaussian, GaussianMixture, KernelDensity
from scoresde.data import Description
from scoresde.guidance import Autoguidance, Clipping
from scoresde.model import ScoreModel
from scoresde.process.parameterization import X0
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, ODE, Adams, Spaced, UniPC, sample
from scoresde.sampling.divergence import guidance_remedy

DIVERGING = UniPC(20, Spaced("trailing"), 3, "eps")


class Constant(nn.Module):
    """A network whose estimate of x_0 is a constant."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


def constant_model(value: float, data: Description | None = None) -> ScoreModel:
    return ScoreModel(Constant(value), VPSDE(), X0(), event_shape=(2,), data=data)


def test_a_diverged_method_is_refused_by_name_with_its_grid_and_the_remedy() -> None:
    model = GaussianMixture.ring(sde=VPSDE(Cosine()))
    pattern = r"UniPC\(.*Spaced.*diverged: 64 of 64 samples.*largest value is .*e\+10.*Karras\(\).*prediction=\"v\""
    with pytest.raises(RuntimeError, match=pattern):
        sample(model, 64, DIVERGING, seeds=range(64))
    with pytest.raises(RuntimeError, match="diverged"):
        sample(Clipping(model, -1e9, 1e9), 64, DIVERGING, seeds=range(64))


@pytest.mark.parametrize("sampler", [Adams(steps=20), DDIM(20), ODE()])
@pytest.mark.parametrize("distance", [1e3, 1e6])
def test_rare_components_far_away_are_no_alarm(sampler: Adams | DDIM | ODE, distance: float) -> None:
    means = torch.tensor([[0.0, 0.0], [distance, 0.0]], dtype=torch.float64)
    model = GaussianMixture(torch.tensor([0.999, 0.001]), means, torch.full((2,), 0.01))
    x = model.sample(4, model.sde.tau_max, torch.Generator().manual_seed(0))
    x[0, 0] = math.exp(-model.sde.tau_max) * distance  # starts where the far component ends
    sample(model, 4, sampler, init=x)
    data = torch.randn(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data[:2] *= distance
    drawn = sample(KernelDensity(data, 0.1), 64, sampler, seeds=range(64))
    assert float(drawn.x.abs().max()) < 10 * distance


@pytest.mark.parametrize(
    ("value", "data", "refused"),
    [
        (900.0, None, False),
        (1100.0, None, True),
        (1e30, None, True),
        (90.0, Description("gray", (2,), bins=256), False),
        (110.0, Description("gray", (2,), bins=256), True),
        (90.0, Description("ages", (2,), low=0.0, high=100.0, offset=50.0, scale=50.0), False),
        (110.0, Description("ages", (2,), low=0.0, high=100.0, offset=50.0, scale=50.0), True),
        (900.0, Description("table", (2,), offset=1e9, scale=1e6), False),
    ],
)
def test_the_limit_follows_from_what_is_known_of_the_data(
    value: float, data: Description | None, refused: bool
) -> None:
    model = constant_model(value, data)
    if not refused:
        assert float(sample(model, 3, DDIM(5), seeds=range(3)).x.mean()) == pytest.approx(value, rel=0.02)
        return
    with pytest.raises(RuntimeError, match=r"DDIM\(.*3 of 3 samples"):
        sample(model, 3, DDIM(5), seeds=range(3))


def test_one_large_sample_among_many_is_counted_alone() -> None:
    model, init = constant_model(0.0), torch.zeros(2000, 2)
    assert sample(model, (2000, 2), DDIM(5), init=init).x.shape == (2000, 2)

    class OneLarge(Constant):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            out = torch.zeros_like(x)
            out[7] = 3e4
            return out

    with pytest.raises(RuntimeError, match="1 of 2000 samples exceed"):
        sample(ScoreModel(OneLarge(0.0), VPSDE(), X0(), (2,)), 2000, DDIM(5), seeds=range(2000))


def test_a_first_state_of_another_scale_widens_the_limit() -> None:
    model = constant_model(1e5)
    assert sample(model, 3, DDIM(5), init=torch.full((3, 2), 1e3)).x.shape == (3, 2)


def test_empty_batches_and_tensors_without_values_pass() -> None:
    assert sample(constant_model(1e9), 0, DDIM(5)).x.shape == (0, 2)
    assert sample(constant_model(1e9).to("meta"), (3, 2), DDIM(5), device="meta").x.shape == (3, 2)


@pytest.mark.parametrize(("scale", "message"), [(1e4, "diverged: 8 of 8"), (1e30, "the network must return finite")])
def test_the_scale_of_a_guided_model_is_the_first_remedy(scale: float, message: str) -> None:
    ring, wide = GaussianMixture.ring(), Gaussian(torch.zeros(2, dtype=torch.float64), 4 * torch.eye(2).double())
    pattern = rf"{message}.*Lower the guidance scale, {scale:g}, or guide in an interval only\.".replace("+", r"\+")
    with pytest.raises(RuntimeError, match=pattern):
        sample(Autoguidance(ring, wide, scale), 8, DDIM(20), seeds=range(8))


def test_a_model_with_several_scales_is_sampled_and_the_largest_is_named() -> None:
    class Two(nn.Module):
        conditions = {"a": sd.Vector(2), "b": sd.Vector(2)}  # noqa: RUF012

        def forward(self, x: Tensor, log_snr: Tensor, a: Tensor, b: Tensor) -> Tensor:
            return a.nan_to_num() + b.nan_to_num()  # NaN is null

    model = ScoreModel(Two(), VPSDE(), X0(), event_shape=(2,))
    guided = sd.Composed(model, {"a": 2.0, "b": -1e5})
    assert sample(guided, 3, DDIM(5), a=torch.ones(3, 2), b=torch.zeros(3, 2)).x.isfinite().all()
    with pytest.raises(RuntimeError, match=r"Lower the guidance scale, 100000, or guide in an interval only"):
        sample(guided, 3, DDIM(5), a=torch.ones(3, 2), b=torch.ones(3, 2))


@pytest.mark.parametrize("scale", [0.5, "large", nn.Linear(2, 2)], ids=["number", "text", "module"])
def test_an_attribute_scale_of_another_model_is_not_taken_for_guidance(scale: object) -> None:
    class Own(Gaussian):
        pass

    model = Own(torch.zeros(2, dtype=torch.float64), 1.0)
    vars(model)["scale"] = scale
    assert len(sample(model, 3, DDIM(5)).x) == 3
    assert guidance_remedy(model) == ""
