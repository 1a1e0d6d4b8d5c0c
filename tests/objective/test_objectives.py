"""Every objective trains on real data: each target, a learned variance, adaptive timesteps, bf16."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from scoresde.data import load_data
from scoresde.model import Model, ScoreModel
from scoresde.nn import MLP
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import (
    DiscreteLossMomentTimesteps,
    DiscreteTimesteps,
    LearnedClockTimesteps,
    LossMomentTimesteps,
    Timesteps,
    UniformTimesteps,
)
from scoresde.objective.weighting import ELBO, Simple
from scoresde.process.parameterization import X0, Eps, Parameterization, PosteriorMean, Score, V, Velocity
from scoresde.process.prediction import Prediction
from scoresde.process.schedule import LinearBetas
from scoresde.process.sde import VPSDE
from scoresde.training import Training, loss_by_log_snr, train

DIGITS = load_data("digits")
HELD_OUT = DIGITS.description.to_model(DIGITS.description.center(DIGITS.test))
SETTINGS = Training(steps=150, batch_size=128, lr=3e-3, ema=0.95, warmup=20)


def digits_model(parameterization: Parameterization | None = None, outputs: int = 1) -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MLP((1, 8, 8), width=64, depth=1, outputs=outputs)
    return ScoreModel(net, VPSDE(LinearBetas()), parameterization, learned_variance=outputs == 2)


def errors(model: Model) -> Tensor:
    """Error in ε per dimension at three noise levels."""
    return loss_by_log_snr(model, HELD_OUT, (4.0, 1.0, -2.0), generator=torch.Generator().manual_seed(1)).loss


@pytest.mark.parametrize("target", [Eps(), X0(), Score(), V(), V(0.5), Velocity(), PosteriorMean()], ids=repr)
def test_every_target_trains_on_digits(target):
    model = digits_model(target)
    before = errors(model)
    after = errors(train(model, DIGITS, SETTINGS).model)
    assert (after < 0.95 * before).all()
    assert after[2] < 0.7 * before[2]
    if not isinstance(target, PosteriorMean):  # its unit error, seen in eps, grows as its step shrinks
        assert after[2] < 0.25
        assert after[1] < 0.5


def test_the_target_of_edm_is_v_of_its_sigma_data():
    # F = (x0 - c_skip x~)/c_out with x~ = x/alpha, sigma~ = sigma/alpha: Karras et al. 2022, table 1 and eq. 7
    data_std, tau = 0.5, torch.tensor([0.05, 0.4, 1.5], dtype=torch.float64)
    x0, eps = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = torch.sqrt(torch.expm1(2 * tau))[:, None]
    total = torch.sqrt(noise**2 + data_std**2)
    skip, out = data_std**2 / total**2, noise * data_std / total
    edm = (x0 - skip * (x0 + noise * eps)) / out
    assert torch.allclose(V(data_std).target(x0, eps, tau), -edm, rtol=1e-10)


class FixedMix(Model):
    """A model whose learned mix is replaced by a number."""

    def __init__(self, model: ScoreModel, mix: float | None) -> None:
        super().__init__()
        self.inner, self.sde, self.mix = model, model.sde, mix

    def predict(self, x: Tensor, tau: float | Tensor, **cond: object) -> Prediction:
        prediction = self.inner.predict(x, tau, **cond)
        if self.mix is not None and prediction.mix is not None:
            prediction.mix = torch.full_like(prediction.mix, self.mix)
        return prediction


@pytest.mark.parametrize(
    "timesteps",
    [DiscreteTimesteps(50), DiscreteLossMomentTimesteps(DiscreteTimesteps(50))],
    ids=["uniform", "second moments"],
)
def test_a_learned_variance_has_a_lower_bound_than_either_fixed_one_on_held_out_digits(timesteps):
    settings = replace(SETTINGS, steps=250, loss=Loss(Simple(), timesteps, hybrid=0.01))
    model = train(digits_model(outputs=2), DIGITS, settings).model

    @torch.no_grad()
    def bound(mix: float | None) -> float:
        """The bound of the chain from its second step on, nats per dimension."""
        total = 0.0
        for repeat in range(8):
            values = [
                Loss(timesteps=DiscreteTimesteps(50, first=2), hybrid=hybrid)(
                    FixedMix(model, mix), HELD_OUT, torch.Generator().manual_seed(repeat)
                ).mean()
                for hybrid in (1.0, 0.0)
            ]
            total += (values[0] - values[1]).item() / 8 / 64
        return total

    assert bound(None) < 0.98 * min(bound(0.0), bound(1.0))


@pytest.mark.parametrize(
    "timesteps", [LossMomentTimesteps(bins=16, memory=20), LearnedClockTimesteps(bins=16)], ids=repr
)
def test_adaptive_timesteps_have_less_variance_on_digits_than_their_initial_density(timesteps):
    run = train(digits_model(), DIGITS, replace(SETTINGS, loss=Loss(ELBO(), timesteps))).model
    generator = torch.Generator().manual_seed(2)

    def mean_and_std(drawn: Timesteps, state: dict[str, Tensor] | None) -> tuple[float, float]:
        uniforms = torch.rand(len(HELD_OUT), dtype=torch.float64, generator=generator)
        draw = drawn.draw(uniforms, run.sde) if state is None else timesteps.inverse_cdf(uniforms, run.sde, state)
        with torch.no_grad():
            losses = Loss(ELBO()).at(run, HELD_OUT, draw, torch.randn(HELD_OUT.shape, generator=generator))
        return losses.mean().item(), losses.std().item()

    state = timesteps.initial_state(run.sde, torch.device("cpu"))
    for _ in range(120):
        uniforms = torch.rand(128, dtype=torch.float64, generator=generator)
        draw = timesteps.inverse_cdf(uniforms, run.sde, state)
        with torch.no_grad():
            losses = Loss(ELBO()).at(run, HELD_OUT[:128], draw, torch.randn(128, 1, 8, 8, generator=generator))
        state = timesteps.updated_state(state, timesteps.loss_statistics(draw, losses, run.sde), run.sde)
    cases = ((timesteps, None), (timesteps, state), (UniformTimesteps(), None))
    means, stds = zip(*(mean_and_std(drawn, s) for drawn, s in cases))
    assert stds[1] < 0.9 * stds[0]
    assert stds[1] < 0.3 * stds[2]
    assert abs(means[1] - means[0]) < 4 * (stds[0] ** 2 + stds[1] ** 2) ** 0.5 / len(HELD_OUT) ** 0.5


class Recording(nn.Module):
    """Records its inputs and the types in which it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.inputs, self.types = nn.Linear(64, 64), [], []

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        out = self.inner(x.flatten(1))
        self.inputs.append(torch.cat([log_snr.detach(), x.detach().flatten()]))
        self.types.append((x.dtype, log_snr.dtype, out.dtype))
        return out.reshape(x.shape)


def test_under_bf16_timesteps_and_states_keep_full_precision_and_the_network_computes_in_bf16():
    nets = {precision: Recording() for precision in ("no", "bf16")}
    for precision, net in nets.items():
        settings = replace(SETTINGS, steps=1, batch_size=16, precision=precision)
        train(ScoreModel(net, VPSDE(LinearBetas())), DIGITS, settings, device="cpu")
    assert nets["bf16"].types == [(torch.float32, torch.float32, torch.bfloat16)]
    assert nets["no"].types == [(torch.float32, torch.float32, torch.float32)]
    assert torch.equal(nets["no"].inputs[0], nets["bf16"].inputs[0])
