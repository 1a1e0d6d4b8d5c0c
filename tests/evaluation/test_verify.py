"""`verify`: planted mistakes are found by name, right uses pass, and what the data cannot decide is called so."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
import pytest
import torch
from emoji_networks import held_out, trained
from planted_mistakes import MISTAKES, Case
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

import scoresde as sd
from scoresde.adapters import FromTime
from scoresde.evaluation import Check
from scoresde.evaluation.verify.comparison import gain, t_bound
from scoresde.evaluation.verify.moments import LinearDenoiser
from scoresde.evaluation.verify.reading import DataMap, OutputTarget, Reading
from scoresde.evaluation.verify.step_check import fits
from scoresde.evaluation.verify.times import shifted

LIMIT = 64  # events; the mistakes are found with as many


@functools.cache
def case(name: str) -> Case:
    return MISTAKES[name]()


NAMED = {
    "sign flipped": "its output is -(eps)",
    "eps read as v": "its output is eps",
    "eps read as x_0": "its output is eps",
    "v read as x_0": "its output is v",
    "linear for cosine betas": "the clock Cosine()",
    "cosine for linear betas": "the clock LinearBetas()",
    "[0, 1] for [-1, 1]": "[-1, 1] where the data are given in [0, 1]",
    "[-1, 1] for [0, 1]": "[0, 1] where the data are given in [-1, 1]",
    "wrong sigma_data": "V(sigma_data=0.5)",
    "averaged weights not applied": "with averaged weights",
    "channel order": "its channels are BGR",
    "VE for VP": "it takes x (variance preserving)",
    "VP for VE": "it takes x / alpha (variance exploding)",
    "transposed images": "its images are transposed",
    "missing scaling_factor": "latents times the scaling_factor 0.18215",
    "shifted flow time": "3 times as small",
}
"""What the sentence says, of the mistakes that need no more events than `LIMIT`."""

TWICE = {"eps read as x_0", "v read as x_0", "cosine for linear betas", "[-1, 1] for [0, 1]", "VP for VE"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in TWICE else []) for name in NAMED]
)
def test_a_planted_mistake_is_found_by_name(name: str) -> None:
    planted = case(name)
    result = sd.verify(planted.wrong, planted.data, limit=LIMIT, **planted.options)
    assert not result.ok
    assert result.exit_code == 1
    named = [check for check in result.failed if check.name in planted.finds]
    assert named, str(result)
    assert any(NAMED[name] in check.sentence for check in named), str(result)


def test_every_mistake_of_the_benchmark_is_tested() -> None:
    assert {*NAMED, "step too late by one", "step too early by one", "transposed labels"} == set(MISTAKES)


@pytest.mark.parametrize(("name", "remedy"), [("step too late by one", "-1"), ("step too early by one", "-1")])
def test_a_step_that_is_off_by_one_is_found_with_the_offset_to_write(name: str, remedy: str) -> None:
    planted = case(name)
    check = sd.verify(planted.wrong, planted.data).check("step")
    assert check.outcome == "failed", check
    assert check.remedy == f"FromStep(…, offset={remedy})"


def test_renamed_classes_are_found_and_named() -> None:
    planted = case("transposed labels")
    check = sd.verify(planted.wrong, planted.data).check("condition label")
    assert check.outcome == "failed", check
    assert "0 is 3" in check.sentence
    right = sd.verify(planted.right, planted.right_data or planted.data).check("condition label")
    assert right.outcome == "passed", right


def test_two_mistakes_at_once_are_both_named() -> None:
    sign, order = case("sign flipped"), case("channel order")
    result = sd.verify(sign.wrong, order.data, limit=LIMIT)
    assert {"output", "channel order"} <= {check.name for check in result.failed}, str(result)


def test_the_right_use_of_a_network_raises_no_alarm() -> None:
    result = sd.verify(trained("eps"), held_out(), others={"the raw weights": trained("eps", raw=True)})
    assert result.ok, str(result)
    assert {check.outcome for check in result.checks} == {"passed"}, str(result)
    ratios = [error / linear for error, linear in zip(result.error, result.linear_error)]
    assert max(ratios) < 1.2
    assert min(ratios) < 0.6


def test_an_exact_model_passes_and_its_error_is_that_of_the_linear_denoiser(generator: torch.Generator) -> None:
    model = sd.Gaussian(torch.tensor([1.0, -1.0, 0.5]), torch.tensor([0.2, 1.0, 3.0]))
    x = torch.randn(4000, 3, generator=generator) * torch.tensor([0.2, 1.0, 3.0]).sqrt() + torch.tensor(
        [1.0, -1.0, 0.5]
    )
    result = sd.verify(model, x)
    assert result.ok, str(result)
    for error, linear in zip(result.error, result.linear_error):
        assert error == pytest.approx(linear, rel=0.15)


def test_a_score_of_twice_the_size_is_found_by_both_identities(generator: torch.Generator) -> None:
    class Doubled(sd.Model):
        def __init__(self) -> None:
            super().__init__()
            self.model = sd.Gaussian(torch.zeros(4), 1.0)
            self.sde, self.event_shape = self.model.sde, (4,)

        def predict(self, x: Tensor, tau: sd.process.ou.Scalar, **cond: object) -> sd.process.Prediction:  # pyright: ignore
            return sd.process.GaussianPrediction(x, tau, 2 * self.model.predict(x, tau).eps, sd.Eps())

    result = sd.verify(Doubled(), torch.randn(2000, 4, generator=generator))
    check = result.check("score scale")
    assert check.outcome == "failed"
    for value, stderr in check.evidence.values():
        assert value == pytest.approx(2.0, abs=6 * stderr)


def test_gray_images_do_not_decide_the_order_of_channels() -> None:
    data = held_out()
    gray = data.test.float().mean(1, keepdim=True).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    result = sd.verify(trained("eps"), dataclasses.replace(data, test=gray), limit=LIMIT)
    assert result.check("channel order").outcome == "undecidable"


def test_a_mistake_in_the_output_alone_needs_no_call_twice() -> None:
    class Flipped(nn.Module):
        """The noise estimate of normal data of variance 4, with the wrong sign; keeps what it is called with."""

        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            calls.append((x.detach().numpy().tobytes(), log_snr.numpy().tobytes()))
            alpha, sigma = torch.sigmoid(log_snr[:1]).sqrt(), torch.sigmoid(-log_snr[:1]).sqrt()
            return -sigma * x / (4 * alpha**2 + sigma**2)

    calls: list[tuple[bytes, bytes]] = []
    model = sd.ScoreModel(Flipped(), sd.VPSDE(), sd.Eps(), event_shape=(3,))
    result = sd.verify(model, 2 * torch.randn(200, 3), limit=LIMIT)
    assert "its output is -(eps)" in result.check("output").sentence
    assert len(set(calls)) > 0.9 * len(calls)  # the other checks call it at times of their own


class Recorder(nn.Module):
    """Keeps what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen = [x, t]
        return x


def test_a_network_that_is_called_at_another_time_gets_the_state_of_the_true_one(generator: torch.Generator) -> None:
    net, flow = Recorder(), sd.Flow(tau_min=1e-4)
    model = sd.ScoreModel(FromTime(net, flow), flow, sd.Velocity(), event_shape=(2,))
    y, sigma = torch.randn(3, 2, generator=generator, dtype=torch.float64), 0.5
    output = Reading(model, (2,), time=shifted(3.0)).output(y, sigma, torch.arange(3))
    assert output is not None
    torch.testing.assert_close(net.seen[0], (y / (1 + sigma)).float(), rtol=1e-5, atol=1e-6)  # (1 - t) x_0 + t eps
    torch.testing.assert_close(net.seen[1], torch.full((3,), 3 * sigma / (1 + 3 * sigma)), rtol=1e-5, atol=0)


def test_a_map_of_the_data_scales_the_noise_level_with_them(generator: torch.Generator) -> None:
    variance = torch.tensor([0.25, 4.0])
    scaled = sd.Gaussian(torch.full((2,), -1.0), 4 * variance)  # of 2 x - 1
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    y = x + 0.7 * torch.randn(3, 2, generator=generator, dtype=torch.float64)
    output = Reading(scaled, (2,), data=DataMap(2.0, -1.0)).output(y, 0.7, torch.arange(3))
    assert output is not None
    expected = y * (variance / (variance + 0.49)).double()  # the posterior mean of N(0, variance)
    torch.testing.assert_close(output.x0(OutputTarget("eps", sd.Eps())), expected, rtol=1e-5, atol=1e-6)


def test_the_gain_is_a_mean_over_events_of_relative_differences() -> None:
    current = torch.tensor([[1.0, 3.0], [10.0, 30.0]], dtype=torch.float64)
    other = torch.tensor([[1.0, 1.0], [10.0, 10.0]], dtype=torch.float64)
    found = gain(current, other)  # per event 0 and 1 (means of the levels 2 and 20)
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    assert found.stderr == pytest.approx(math.sqrt(0.5) / math.sqrt(2))
    assert found.t == pytest.approx(1.0)


def test_the_bound_is_that_of_the_t_distribution() -> None:
    assert t_bound(1, 10**6) == pytest.approx(3.2905, abs=1e-3)  # two-sided normal quantile at 0.001
    assert t_bound(1, 2) == pytest.approx(636.6, rel=1e-3)  # Cauchy
    assert t_bound(100, 64) > t_bound(1, 64)


def test_the_linear_denoiser_is_the_posterior_mean_of_gaussian_data(generator: torch.Generator) -> None:
    x = torch.randn(40, 6, generator=generator, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    linear = LinearDenoiser.fit(x)
    covariance = LedoitWolf().fit(x.numpy()).covariance_
    kernel = covariance @ np.linalg.inv(covariance + 0.7**2 * np.eye(6))
    y = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    expected = x.numpy().mean(0) + (y.numpy() - x.numpy().mean(0)) @ kernel.T
    np.testing.assert_allclose(linear(y, 0.7).numpy(), expected, rtol=1e-9)
    assert linear.error(0.7) == pytest.approx(0.7**2 * np.trace(kernel) / 6)
    assert linear.error(linear.sigma_at(0.3)) == pytest.approx(0.3 * linear.variance())


def test_the_linear_denoiser_of_fewer_events_than_dimensions_has_the_full_covariance(
    generator: torch.Generator,
) -> None:
    x = torch.randn(8, 20, generator=generator, dtype=torch.float64)
    covariance = LedoitWolf().fit(x.numpy()).covariance_
    kernel = covariance @ np.linalg.inv(covariance + np.eye(20))
    y = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    expected = x.numpy().mean(0) + (y.numpy() - x.numpy().mean(0)) @ kernel.T
    np.testing.assert_allclose(LinearDenoiser.fit(x)(y, 1.0).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("shift", [-1, 0, 1, 2])
def test_the_offset_of_steps_is_the_one_whose_parabola_fits(shift: int) -> None:
    levels = torch.tensor([9.2, 8.4, 7.9, 7.5, 7.2, 6.9, 6.7, 6.5], dtype=torch.float64)
    shapes = torch.stack(
        [
            torch.stack([(levels[2 + o : 5 + o] - levels[2 + h : 5 + h]) ** 2 for o in (-2, -1, 1, 2)])
            - (levels[2:5] - levels[2 + h : 5 + h]) ** 2
            for h in (-2, -1, 0, 1, 2)
        ]
    )
    differences = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64) * shapes[shift + 2]
    left = fits(differences, shapes)
    assert int(left.argmin()) - 2 == shift
    assert float(left.min()) < 1e-12


def test_the_check_of_another_package_is_added(generator: torch.Generator) -> None:
    model = sd.Gaussian(torch.zeros(2), 1.0)
    x = torch.randn(64, 2, generator=generator)
    chain = Check("chain", "failed", "The chains differ by 0.1.", "use its betas")
    result = sd.verify(model, x, peer=lambda given: chain if given is model else None)  # pyright: ignore
    assert result.check("chain") is chain
    assert not result.ok
    assert "Remedy: use its betas." in " ".join(str(result).split())
    with pytest.raises(KeyError, match="no check is named 'chains'"):
        result.check("chains")


def test_conditions_that_the_network_needs_are_asked_for() -> None:
    with pytest.raises(ValueError, match="a network with the condition 'label' needs it"):
        sd.verify(trained("class"), held_out().test)


def test_too_few_events_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 events, got 8"):
        sd.verify(sd.Gaussian(torch.zeros(2), 1.0), torch.randn(8, 2))


def test_the_network_is_restored_to_training_mode() -> None:
    net = sd.MLP((2,), 8, 1)
    model = sd.ScoreModel(net, sd.VPSDE(), sd.V(), (2,)).train()
    sd.verify(model, torch.randn(64, 2), limit=32)
    assert model.training
    assert net.training
    assert isinstance(net, nn.Module)


@pytest.mark.parametrize("units", ["data", "model"])
def test_a_value_that_is_not_finite_is_reported_at_its_index_in_the_data(units: Literal["data", "model"]) -> None:
    x = torch.randn(6000, 2, generator=torch.Generator().manual_seed(0))  # more than are looked at
    x[5987, 1] = math.nan
    with pytest.raises(ValueError, match=r"5987, 1"):
        sd.verify(sd.Gaussian(torch.zeros(2), 1.0), x, units=units)


def test_events_without_dimensions_are_denoised(generator: torch.Generator) -> None:
    class Linear(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return x * torch.sigmoid(-log_snr).sqrt()  # E[eps | x] = sigma x of standard normal data

    model = sd.ScoreModel(Linear(), sd.VPSDE(), sd.Eps(), event_shape=())
    result = sd.verify(model, torch.randn(2000, generator=generator))
    assert result.ok, str(result)
    for error, linear in zip(result.error, result.linear_error):
        assert error == pytest.approx(linear, rel=0.2)


@pytest.mark.parametrize("value", [0.0, 3.3])
def test_data_that_do_not_vary_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="the data do not vary"):
        sd.verify(sd.Gaussian(torch.zeros(2), 1.0), torch.full((64, 2), value))


class Normal(nn.Module):
    """The exact noise estimate of normal data of a mean and covariance."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        self.mean, self.covariance = mean.double(), covariance.double()

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        alpha, variance = torch.sigmoid(log_snr[0].double()).sqrt(), torch.sigmoid(-log_snr[0].double())
        noised = alpha**2 * self.covariance + variance * torch.eye(len(self.mean), dtype=torch.float64)
        flat = x.reshape(len(x), -1).double() - alpha * self.mean
        return (variance.sqrt() * torch.linalg.solve(noised, flat.T).T).reshape(x.shape).to(x.dtype)


class Identity(nn.Module):
    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return 5 * torch.sin(3 * x)


def normal_data(mean: Tensor, covariance: Tensor, generator: torch.Generator) -> Tensor:
    return mean + torch.randn(4000, len(mean), generator=generator) @ torch.linalg.cholesky(covariance).T


def test_swapped_columns_of_a_table_are_named(generator: torch.Generator) -> None:
    mean, covariance = torch.tensor([1.0, -1.0, 0.0, 0.5]), torch.diag(torch.tensor([0.1, 1.0, 0.4, 2.0]))
    model = sd.ScoreModel(Normal(mean, covariance), sd.VPSDE(), sd.Eps(), event_shape=(4,))
    x = normal_data(mean, covariance, generator)
    assert sd.verify(model, x, limit=LIMIT).check("column order").outcome == "passed"
    check = sd.verify(model, x[:, [0, 3, 2, 1]], limit=LIMIT).check("column order")
    assert check.outcome == "failed", check
    assert "its columns 1 and 3 are swapped" in check.sentence


def test_a_series_that_runs_backwards_is_found(generator: torch.Generator) -> None:
    spread = torch.diag(torch.linspace(0.2, 1.5, 8) ** 2)  # grows with time
    model = sd.ScoreModel(Normal(torch.zeros(8), spread), sd.VPSDE(), sd.Eps(), event_shape=(1, 8))
    x = normal_data(torch.zeros(8), spread, generator).unsqueeze(1)
    assert sd.verify(model, x, limit=LIMIT).check("orientation").outcome == "passed"
    check = sd.verify(model, x.flip(-1), limit=LIMIT).check("orientation")
    assert check.outcome == "failed", check
    assert "its series run backwards in time" in check.sentence


def test_a_better_reading_that_is_still_bad_is_not_called_the_cause(generator: torch.Generator) -> None:
    model = sd.ScoreModel(Identity(), sd.VPSDE(), sd.X0(), event_shape=(6,))  # an untrained network
    x = 3 + normal_data(torch.zeros(6), 0.9 + 0.1 * torch.eye(6), generator)
    result = sd.verify(model, x, limit=LIMIT)
    causes = [check for check in result.failed if "denoises better as if" in check.sentence]
    assert causes, str(result)
    assert all("This does not explain the error" in check.sentence for check in causes)
    assert all(check.remedy.startswith("look for another cause first") for check in causes)
    assert "no reading that was tried makes it small enough" in result.check("denoising").remedy
