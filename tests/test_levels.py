"""Levels: the posterior mean of dequantised data under a law over the levels, against quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from scoresde.nn import MLP, Levels, UNet


class Belief(nn.Module):
    """The same logits everywhere: a law over the levels that does not depend on the input."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.logits.to(x.dtype).expand(*x.shape, len(self.logits))


def by_quadrature(logits: Tensor, x: float, log_snr: float, low: float = -1.0, high: float = 1.0) -> float:
    """E[x0 | x] by the midpoint rule on a grid that the bins' edges lie on."""
    cells = 40_000 * len(logits)
    x0 = low + (high - low) * (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    belief = torch.log_softmax(logits, 0).repeat_interleave(40_000)
    alpha, sigma = math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr)))
    share = torch.softmax(belief - 0.5 * ((x - alpha * x0) / sigma) ** 2, 0)
    return float((share * x0).sum())


LOGITS = torch.tensor([0.3, -2.0, 4.0, -30.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("log_snr", [-25.0, -8.0, -3.0, 0.0, 2.5, 4.0, 7.0, 10.0])
def test_the_estimate_is_the_posterior_mean_in_float64_and_float32(log_snr: float) -> None:
    net, noise = Levels(Belief(LOGITS), 5), torch.tensor([log_snr], dtype=torch.float64)
    for x in (-1.4, -1.0, -0.61, 0.0, 0.2, 0.75, 1.3):
        state = torch.full((1, 1), x, dtype=torch.float64)
        expected = by_quadrature(LOGITS, x, log_snr)
        assert net(state, noise).item() == pytest.approx(expected, abs=2e-7)
        assert net(state.float(), noise.float()).item() == pytest.approx(expected, abs=3e-6)


def test_another_range_shifts_and_stretches_the_estimate() -> None:
    noise = torch.tensor([1.0], dtype=torch.float64)
    net = Levels(Belief(LOGITS), 5, low=0.0, high=3.0)
    for x in (-0.5, 0.4, 2.0):
        state = torch.full((1, 1), x, dtype=torch.float64)
        assert net(state, noise).item() == pytest.approx(by_quadrature(LOGITS, x, 1.0, 0.0, 3.0), abs=1e-6)


def test_far_outside_the_range_the_estimate_is_the_nearest_edge_and_the_gradient_is_finite() -> None:
    net = Levels(Belief(LOGITS.float()), 5)
    x = torch.tensor([[-30.0], [30.0]], requires_grad=True)
    out = net(x, torch.full((2,), 10.0))
    assert out.flatten().tolist() == pytest.approx([-1, 1], abs=1e-5)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs() < 1).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own
def test_forward_mode_derivatives_are_finite_differences() -> None:
    torch.manual_seed(0)
    inner = MLP((2, 3), width=16, depth=1, outputs=4)
    nn.init.normal_(inner.leave.weight, std=0.5)
    net = Levels(inner, 4).double().eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 2, 3, dtype=torch.float64, generator=generator)
    probes = torch.randn(3, 6, 2, 3, dtype=torch.float64, generator=generator)
    log_snr = torch.tensor([-6.0, -2.0, 0.0, 2.0, 5.0, 9.0], dtype=torch.float64)
    slopes = torch.func.vmap(lambda probe: torch.func.jvp(lambda x: net(x, log_snr), (x,), (probe,))[1])(probes)
    for slope, probe in zip(slopes, probes, strict=True):
        difference = (net(x + 1e-6 * probe, log_snr) - net(x - 1e-6 * probe, log_snr)) / 2e-6
        assert torch.allclose(slope, difference, atol=2e-7, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_every_event_shape_keeps_its_shape(shape: tuple[int, ...]) -> None:
    net = Levels(MLP(shape, width=8, depth=1, outputs=3), 3)
    assert net(torch.zeros(4, *shape), torch.zeros(4)).shape == (4, *shape)


def test_a_unet_gives_one_law_per_pixel() -> None:
    inner = UNet((2, 8, 8), channels=16, multipliers=(1,), attention=(), outputs=3)
    nn.init.normal_(inner.leave.weight, std=0.1)
    nn.init.normal_(inner.leave.bias, std=0.1)  # pyright: ignore[reportArgumentType]
    x, log_snr = torch.randn(2, 2, 8, 8), torch.zeros(2)
    logits = inner(x, log_snr)
    assert logits.shape == (2, 2, 8, 8, 3)
    alone = UNet((2, 8, 8), channels=16, multipliers=(1,), attention=())
    state = {**inner.state_dict(), "leave.weight": inner.leave.weight[3:5], "leave.bias": inner.leave.bias[3:5]}  # pyright: ignore
    alone.load_state_dict(state)
    shared = alone(x, log_snr)
    assert torch.allclose(logits[:, 1, :, :, 0], shared[:, 0], atol=1e-5)  # channel 1, level 0 is map 3
    assert torch.allclose(logits[:, 1, :, :, 1], shared[:, 1], atol=1e-5)


def test_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(ValueError, match="outputs = bins = 5, got 3"):
        Levels(MLP((2,), outputs=3), 5)
