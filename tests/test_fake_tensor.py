"""Does any step sampler look at a tensor's values on the way? Not with tensors that have none."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.parameterization import Eps, Parameterization, V
from scoresde.sampler import DDIM, DDPM, EulerMaruyama, ExponentialSDE, RungeKutta, StepSampler, sample
from scoresde.sde import VPSDE

SAMPLERS = [
    DDPM(5),
    DDPM(5, rev_var="beta"),
    DDIM(5),
    EulerMaruyama(5),
    ExponentialSDE(5),
    RungeKutta(5),
    RungeKutta(5, method="heun"),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("parameterization", [V(), Eps()], ids=repr)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_step_sampler_runs_through_without_values(
    sampler: StepSampler, parameterization: Parameterization, device: str
) -> None:
    with FakeTensorMode(), torch.device(device):
        model = ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), parameterization, (3,))
        drawn = sample(model, 4, sampler, device=device, denoise=True, trajectory=True)
        seeded = sample(model, 4, sampler, device=device, batch_size=3)
    assert drawn.x.shape == seeded.x.shape == (4, 3)
    assert drawn.x.device.type == device
    assert drawn.trajectory is not None
    assert drawn.trajectory.shape[1:] == (4, 3)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_step_sampler_runs_through_on_the_meta_device(sampler: StepSampler) -> None:
    model = ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), V(), (3,)).to("meta")
    assert sample(model, 4, sampler, seeds=range(4)).x.shape == (4, 3)
