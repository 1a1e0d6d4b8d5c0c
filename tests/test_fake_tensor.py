"""Does any step sampler look at a tensor's values on the way? Not with tensors that have none."""

from __future__ import annotations

import pytest
import torch
from sampler_cases import every
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process.parameterization import Eps, Parameterization, V
from scoresde.process.sde import VE, VPSDE
from scoresde.sampling import StepSampler, sample

SAMPLERS = every(5)


class _Small(nn.Module):
    """A network of one operation: what is tried is what the samplers do around it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return x * self.weight


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("device", "parameterization"), [("meta", V()), ("cpu", Eps())], ids=["meta, v", "cpu, eps"])
def test_a_step_sampler_runs_through_without_values(
    sampler: StepSampler, device: str, parameterization: Parameterization
) -> None:
    with FakeTensorMode(), torch.device(device):
        model = ScoreModel(_Small(), VPSDE(), parameterization, (3,))
        drawn = sample(model, 4, sampler, device=device, batch_size=3, denoise=True, trajectory=True)
    assert drawn.x.shape == (4, 3)
    assert drawn.x.device.type == device
    assert drawn.trajectory is not None
    assert drawn.trajectory.shape[1:] == (4, 3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_sampler_runs_through_on_the_meta_device(sampler: StepSampler) -> None:
    model = ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), V(), (3,)).to("meta")
    assert sample(model, 4, sampler, seeds=range(4)).x.shape == (4, 3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_kept_along_the_way_needs_no_values_either(sampler: StepSampler) -> None:
    told: list[float] = []
    with FakeTensorMode(), torch.device("meta"):
        model = ScoreModel(_Small(), VE(), V(), (2, 3))
        drawn = sample(model, 4, sampler, device="meta", previews=True, observe=lambda now: told.append(now.tau))
    assert drawn.previews is not None
    assert drawn.previews.shape == (5, 4, 2, 3)
    assert told == sorted(told, reverse=True)
    assert len(told) == 5
