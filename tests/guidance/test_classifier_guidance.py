"""Classifier guidance with an exact classifier is the exact conditional model; other scales follow the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.analytic import Gaussian
from scoresde.guidance import ClassifierGuidance, Clipping
from scoresde.likelihood import TorchDiffEq, differentiable_log_prob, log_prob
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Parameterization, Score, V, Velocity
from scoresde.process.prediction import Prediction
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDPM, ODE, Adams, Heun, sample

OBSERVED, NOISE = 1.2, 0.25  # y = x_0 + sqrt(NOISE) n for data N(0, 1)
PRIOR = Gaussian(torch.zeros(1, dtype=torch.float64), 1.0)
POSTERIOR = Gaussian(torch.tensor([OBSERVED / (1 + NOISE)], dtype=torch.float64), NOISE / (1 + NOISE))


def log_likelihood(x: Tensor, tau: Any) -> Tensor:
    """log p(y | x_tau), of which x_0 given x_tau is N(alpha x, 1 - alpha²)."""
    alpha = torch.as_tensor(ou.alpha(torch.as_tensor(tau, dtype=torch.float64))).to(x).reshape(-1, 1)
    variance = 1 - alpha * alpha + NOISE
    return (-0.5 * (OBSERVED - alpha * x) ** 2 / variance - 0.5 * variance.log()).sum(1)


def points(generator: torch.Generator, rows: int = 5) -> Tensor:
    return torch.randn(rows, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "tau", [1e-5, 0.4, 4.0, torch.tensor([1e-5, 0.1, 0.5, 2.0, 4.0])], ids=["early", "mid", "late", "B"]
)
def test_the_exact_classifier_gives_the_exact_conditional_model(
    tau: Any, mode: Any, generator: torch.Generator
) -> None:
    x = points(generator)
    with mode():
        guided = ClassifierGuidance(PRIOR, log_likelihood)(x.clone(), tau)
        exact = POSTERIOR(x, tau)
        for member in ("eps", "x0", "v", "score"):
            torch.testing.assert_close(getattr(guided, member), getattr(exact, member), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameterization", [V(), V(0.5), Eps(), X0(), Score(), Velocity()], ids=str)
def test_the_gradient_enters_every_target(parameterization: Parameterization, generator: torch.Generator) -> None:
    class Exact(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            p = PRIOR(x, ou.tau_from_log_snr(log_snr.double()))
            return parameterization.target(p.x0, p.eps, ou.tau_from_log_snr(log_snr.double()))

    model, x = ScoreModel(Exact(), VPSDE(), parameterization, (1,)), points(generator)
    guided = ClassifierGuidance(model, log_likelihood, 2.0)(x, 0.4).score
    prior, posterior = PRIOR(x, 0.4).score, POSTERIOR(x, 0.4).score
    torch.testing.assert_close(guided, prior + 2.0 * (posterior - prior), rtol=1e-5, atol=1e-5)


def test_outside_of_the_interval_the_classifier_is_not_evaluated(generator: torch.Generator) -> None:
    times: list[Any] = []

    def recorded(x: Tensor, tau: Any) -> Tensor:
        times.append(tau)
        return log_likelihood(x, tau)

    guided, x = ClassifierGuidance(PRIOR, recorded, 3.0, interval=(0.2, 1.5)), points(generator)
    sample(guided, 5, Heun(20), seeds=range(5))
    assert times
    assert all(0.2 <= tau <= 1.5 for tau in times)
    each = torch.tensor([0.1, 0.2, 0.8, 1.5, 1.6], dtype=torch.float64)
    together = guided(x, each).v
    for i, tau in enumerate(each.tolist()):
        torch.testing.assert_close(together[i], guided(x, tau).v[i], rtol=1e-9, atol=1e-9)
    scales = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0])
    per_sample = ClassifierGuidance(PRIOR, log_likelihood, scales)(x, 0.4).score
    for i, scale in enumerate(scales.tolist()):
        alone = ClassifierGuidance(PRIOR, log_likelihood, scale)(x, 0.4).score
        torch.testing.assert_close(per_sample[i], alone[i], rtol=1e-12, atol=1e-12)


def test_where_no_signal_is_left_the_state_is_not_guided(generator: torch.Generator) -> None:
    guided, x = ClassifierGuidance(PRIOR, log_likelihood, 3.0), points(generator)
    for tau in (800.0, torch.full((5,), 800.0, dtype=torch.float64)):
        assert torch.equal(guided.predict(x, tau).v, PRIOR.predict(x, tau).v)


@pytest.mark.parametrize("sampler", [ODE(), Heun(50), Adams(steps=30)], ids=lambda s: type(s).__name__)
def test_guided_samples_are_those_of_the_conditional_model(sampler: Any) -> None:
    guided = sample(ClassifierGuidance(PRIOR, log_likelihood), 16, sampler, seeds=range(16))
    exact = sample(POSTERIOR, 16, sampler, seeds=range(16))
    torch.testing.assert_close(guided.x, exact.x, rtol=1e-4, atol=1e-4)
    assert guided.nfe == exact.nfe


def test_the_log_density_of_exact_guidance_is_that_of_the_conditional_model(generator: torch.Generator) -> None:
    guided, x = ClassifierGuidance(PRIOR, log_likelihood), points(generator)

    def at_the_end(z: Tensor) -> Tensor:
        return POSTERIOR.log_prob(z, PRIOR.sde.tau_max)

    expected = POSTERIOR.log_prob(x, PRIOR.sde.tau_min)
    result = log_prob(guided, x, prior_log_prob=at_the_end).log_prob
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-3)
    leaf = x.clone().requires_grad_()
    value = differentiable_log_prob(guided, leaf, solver=TorchDiffEq(rtol=1e-6, atol=1e-6), prior_log_prob=at_the_end)
    torch.testing.assert_close(value.detach(), expected, rtol=0, atol=1e-3)
    gradient = torch.autograd.grad(value.sum(), leaf)[0]
    torch.testing.assert_close(gradient, POSTERIOR(x, PRIOR.sde.tau_min).score, rtol=0, atol=1e-2)


def test_only_scale_one_at_all_times_and_scale_zero_are_scores(generator: torch.Generator) -> None:
    make = lambda *a, **k: Clipping(ClassifierGuidance(PRIOR, log_likelihood, *a, **k), -99.0, 99.0)  # noqa: E731
    models = [make(1.0), make(0.0, interval=(0.1, 1.0)), make(2.0), make(1.0, interval=(0.1, 1.0)), make(torch.ones(5))]
    assert [model.why_no_score() is None for model in models] == [True, True, False, False, False]
    with pytest.raises(ValueError, match=r"log_prob needs a model whose field is the score .*p\(x\) p\(y \| x\)\^w"):
        log_prob(models[2], points(generator))


def test_conditions_of_the_classifier_do_not_reach_the_model(generator: torch.Generator) -> None:
    seen: list[dict[str, Any]] = []

    def log_prob_fn(x: Tensor, tau: Any, **cond: Tensor) -> Tensor:
        seen.append(cond)
        return (x[:, 0] * cond["label"]).sin()

    model = ScoreModel(MLP((2,), 8, 1, 8, conditions={"style": Classes(3)}), VPSDE(), V(), (2,))
    guided = ClassifierGuidance(model, log_prob_fn, names=["label"])
    label, style = torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0])
    sample(guided, 3, DDPM(4), label=label, style=style)
    assert all(torch.equal(call["label"], label) and torch.equal(call["style"], style) for call in seen)
    with pytest.raises(TypeError, match="'other' is neither an option nor read by the network"):
        sample(guided, 3, DDPM(4), label=label, style=style, other=style)
    plain = ClassifierGuidance(model, log_prob_fn)
    with pytest.raises(TypeError, match="'label' is neither an option nor read by the network"):
        sample(plain, 3, DDPM(4), label=label, style=style)


def test_a_classifier_that_is_a_module_runs_in_eval_mode_and_follows_the_model() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: Tensor, tau: Any) -> Tensor:
            assert not self.training
            return self.layer(x)[:, 0]

    guided = ClassifierGuidance(ScoreModel(MLP((2,), 8, 1, 8), VPSDE(), V(), (2,)), Net())
    guided.train()
    sample(guided, 3, DDPM(4))
    assert all(module.training for module in guided.modules())
    assert guided.double().log_prob_fn.layer.weight.dtype == torch.float64


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_sampling_reads_no_tensor_values(device: str) -> None:
    with FakeTensorMode(), torch.device(device):
        model = ScoreModel(MLP((3,), 8, 1, 8), VPSDE(), V(), (3,))
        guided = ClassifierGuidance(model, lambda x, tau: -x.square().sum(1), 2.0, interval=(0.2, 1.5))
        for sampler in (DDPM(3), Adams(steps=3), Heun(3)):
            assert sample(guided, 4, sampler, device=device).x.shape == (4, 3)
        assert guided(torch.zeros(4, 3), torch.zeros(4).add(0.5)).v.shape == (4, 3)


def test_a_learned_variance_passes_and_jacobians_see_the_guidance(generator: torch.Generator) -> None:
    x = points(generator).requires_grad_()
    guided: Prediction = ClassifierGuidance(PRIOR, log_likelihood, 2.0)(x, 0.4)
    slope = torch.autograd.grad(guided.score.sum(), x)[0]
    prior, posterior = (1 / (ou.alpha(0.4) ** 2 * v + ou.sigma(0.4) ** 2) for v in (1.0, NOISE / (1 + NOISE)))
    torch.testing.assert_close(slope, torch.full_like(slope, -prior - 2 * (posterior - prior)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda x, tau: x.sum(),
            ValueError,
            r"log_prob_fn must return one log-probability per sample, \(5,\), got \(\)",
        ),
        (lambda x, tau: x, ValueError, r"got \(5, 1\)"),
        (lambda x, tau: 1.0, ValueError, r"got float"),
        (lambda x, tau: x.detach().sum(1), RuntimeError, r"log_prob_fn must depend on x by differentiable operations"),
    ],
)
def test_invalid_classifiers_are_refused(function: Any, error: Any, message: str, generator: torch.Generator) -> None:
    with pytest.raises(error, match=message):
        ClassifierGuidance(PRIOR, function)(points(generator), 0.4)
