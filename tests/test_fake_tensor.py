"""Every step sampler runs on tensors without values, so no step reads a value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sampler_cases import every, every_discrete
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.parameterization import Eps, Parameterization, V
from scoresde.process.sde import VE, VPSDE
from scoresde.sampling import DiscreteSampler, StepSampler, sample

SAMPLERS = every(5)
PROCESSES = [Categorical(3, "absorbing"), Categorical((2, 3, 2)), Binomial()]


class _OneProduct(nn.Module):
    """A network of one operation, because the tests concern the operations of the samplers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return x * self.weight


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("device", "parameterization"), [("meta", V()), ("cpu", Eps())], ids=["meta, v", "cpu, eps"])
def test_a_step_sampler_runs_without_tensor_values(
    sampler: StepSampler, device: str, parameterization: Parameterization
) -> None:
    with FakeTensorMode(), torch.device(device):
        model = ScoreModel(_OneProduct(), VPSDE(), parameterization, (3,))
        samples = sample(model, 4, sampler, device=device, batch_size=3, denoise=True, trajectory=True)
    assert samples.x.shape == (4, 3)
    assert samples.x.device.type == device
    assert samples.trajectory is not None
    assert samples.trajectory.shape[1:] == (4, 3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_sampler_runs_on_the_meta_device(sampler: StepSampler) -> None:
    model = ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), V(), (3,)).to("meta")
    assert sample(model, 4, sampler, seeds=range(4)).x.shape == (4, 3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_previews_and_observers_need_no_tensor_values(sampler: StepSampler) -> None:
    taus: list[float] = []
    with FakeTensorMode(), torch.device("meta"):
        model = ScoreModel(_OneProduct(), VE(), V(), (2, 3))
        samples = sample(
            model, 4, sampler, device="meta", previews=True, observe=lambda progress: taus.append(progress.tau)
        )
    assert samples.previews is not None
    assert samples.previews.shape == (5, 4, 2, 3)
    assert taus == sorted(taus, reverse=True)
    assert len(taus) == 5


@pytest.mark.parametrize("sampler", every_discrete(5))
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_sampler_of_categories_runs_without_tensor_values(sampler: DiscreteSampler, process: DiscreteProcess) -> None:
    taus: list[float] = []
    mask, classes = process.states > process.most_classes, process.most_classes
    with FakeTensorMode(), torch.device("meta"):
        net = CategoricalNet(MLP(CategoricalNet.inner_shape((3,), classes, mask), 8, 1), (3,), classes, mask)
        model = ScoreModel(net, process)
        settings: dict[str, Any] = {"device": "meta", "trajectory": True, "previews": True}
        samples = sample(model, 4, sampler, denoise=True, observe=lambda report: taus.append(report.tau), **settings)
    assert samples.x.shape == (4, 3)
    assert samples.x.device.type == "meta"
    assert samples.trajectory is not None
    assert samples.trajectory.shape[1:] == (4, 3)
    assert len(taus) == 5
