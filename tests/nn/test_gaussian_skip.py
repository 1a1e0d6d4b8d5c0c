"""GaussianSkip: the exact v of normal data, its regression on a condition, and its use in training and storage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as sd
from scoresde.nn import Channels, Classes, GaussianSkip, Vector
from scoresde.storage.checkpoint import load, save

SDE = sd.VPSDE(sd.Cosine())


def correlated(count: int = 4000) -> tuple[Tensor, Tensor, Tensor]:
    """Events (n, 2, 2), a condition (n, 3) and the matrix W of their relation; the residual has unequal variances."""
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(count, 3, generator=generator)
    w = torch.randn(3, 4, generator=generator)
    noise = torch.randn(count, 4, generator=generator) * torch.tensor([0.1, 0.3, 0.5, 1.0])
    return (1.0 + c @ w + noise).unflatten(1, (2, 2)), c, w


def network(**settings: Any) -> sd.MLP:
    return sd.MLP((2, 2), 8, 1, 8, conditions={"c": Vector(3), "label": Classes(2)}, **settings)


def gaussian(mean: Tensor, axes: Tensor, variances: Tensor) -> sd.Gaussian:
    return sd.Gaussian(mean.double(), ((axes * variances) @ axes.mT).double(), SDE)


@pytest.mark.parametrize("tau", [1e-4, 0.1, 3.0])
def test_before_training_it_is_the_exact_model_of_normal_data(tau: float) -> None:
    x0, _, _ = correlated()
    net = GaussianSkip(network()).fit(x0)
    flat = x0.flatten(1)
    torch.testing.assert_close(net.mean, flat.mean(0))
    torch.testing.assert_close(
        (net.axes * net.variances) @ net.axes.mT, flat.mT.cov(correction=0), atol=1e-5, rtol=1e-4
    )
    exact = gaussian(net.mean, net.axes, net.variances)
    x = torch.randn(8, 2, 2, dtype=torch.float64)
    v = sd.ScoreModel(net.double(), SDE, sd.V())(x, tau).v
    torch.testing.assert_close(v.flatten(1), exact(x.flatten(1), tau).v, rtol=1e-4, atol=1e-4)


def test_given_a_condition_it_is_the_exact_model_of_its_regression_and_null_entries_are_all_data() -> None:
    x0, c, w = correlated()
    net = GaussianSkip(network(), "c").fit(x0, {"c": c}, penalty=1e-9)
    torch.testing.assert_close(net.weight, w, atol=0.05, rtol=0)
    torch.testing.assert_close(net.given_variances, torch.tensor([0.01, 0.09, 0.25, 1.0]), rtol=0.1, atol=0)
    model, tau = sd.ScoreModel(net.double(), SDE, sd.V()), 0.3
    x, given = torch.randn(3, 2, 2, dtype=torch.float64), c[:3].double()
    given[2] = torch.nan
    v = model(x, tau, c=given).v.flatten(1)
    for i in (0, 1):
        exact = gaussian(net.given_mean + given[i] @ net.weight, net.given_axes, net.given_variances)
        torch.testing.assert_close(v[i : i + 1], exact(x[i : i + 1].flatten(1), tau).v, rtol=1e-4, atol=1e-4)
    everything = gaussian(net.mean, net.axes, net.variances)
    torch.testing.assert_close(v[2:], everything(x[2:].flatten(1), tau).v, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(x, tau).v, model(x, tau, c=torch.full_like(given, torch.nan)).v)


def test_the_covariance_is_that_of_events_that_the_regression_has_not_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, c = torch.randn(60, 4, generator=generator), torch.randn(60, 40, generator=generator)  # unrelated
    net = GaussianSkip(sd.MLP((4,), 8, 1, 8, conditions={"c": Vector(40)}), "c").fit(x0, {"c": c}, penalty=1e-6)
    residuals = x0 - net.given_mean - c @ net.weight
    assert float(residuals.square().mean()) < 0.5  # the regression has learned noise by heart
    assert float(net.given_variances.mean()) > 1.0


def test_entries_that_are_null_do_not_enter_the_regression() -> None:
    x0, c, _ = correlated(200)
    with_null, far = torch.cat([c, torch.full((50, 3), torch.nan)]), torch.full((50, 2, 2), 9.0)
    a = GaussianSkip(network(), "c").fit(x0, {"c": c})
    b = GaussianSkip(network(), "c").fit(torch.cat([x0, far]), {"c": with_null})
    torch.testing.assert_close(a.weight, b.weight)
    torch.testing.assert_close(a.given_variances, b.given_variances)
    assert float((b.mean - a.mean).abs().min()) > 0.5


def test_it_adds_the_inner_network_times_the_standard_deviation_that_remains() -> None:
    x0, c, _ = correlated(100)
    skip, inner = GaussianSkip(network(), "c").fit(x0, {"c": c}), network()
    inner.load_state_dict(skip.net.state_dict())
    with torch.no_grad():
        for net in (skip.net, inner):
            for parameter in net.parameters():
                parameter.add_(0.1)
    x, log_snr, label = torch.randn(5, 2, 2), torch.zeros(5), torch.tensor([0, 1, 0, 1, 2])
    fixed = GaussianSkip(network(), "c").fit(x0, {"c": c})(x, log_snr, c=c[:5], label=label)
    out = skip(x, log_snr, c=c[:5], label=label)
    remaining = skip.given_variances / (0.5 * skip.given_variances + 0.5)  # variance of v given x, along each axis
    scale = remaining.mean().sqrt()
    torch.testing.assert_close(out - fixed, scale * inner(x, log_snr, c=c[:5], label=label), atol=1e-5, rtol=1e-4)
    assert {name for name, _ in skip.named_parameters()} == {f"net.{name}" for name, _ in inner.named_parameters()}


class Estimate(torch.nn.Module):
    """A network that returns the estimate that it is given."""

    event_shape = (2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.conditions = {"c": Vector(3), "x0_hat": Channels(2, null=False)}
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, log_snr: Tensor, c: Tensor | None = None, x0_hat: Tensor | None = None) -> Tensor:
        assert x0_hat is not None
        return x0_hat


def test_the_inner_network_receives_the_expected_x0_which_callers_do_not_pass() -> None:
    x0, c, _ = correlated(100)
    net = GaussianSkip(Estimate(), "c", "x0_hat").fit(x0, {"c": c})
    plain = GaussianSkip(network(), "c").fit(x0, {"c": c})
    assert set(net.conditions) == {"c"}
    x, log_snr, half = torch.randn(4, 2, 2), torch.zeros(4), 0.5**0.5
    v = plain(x, log_snr, c=c[:4])
    scale = (net.given_variances / (0.5 * net.given_variances + 0.5)).mean().sqrt()
    torch.testing.assert_close(net(x, log_snr, c=c[:4]), v + scale * half * (x - v), atol=1e-5, rtol=1e-4)
    with pytest.raises(TypeError, match=r"x0_hat is computed by this network, got a value for it; leave it out"):
        net(x, log_snr, c=c[:4], x0_hat=x)
    with pytest.raises(ValueError, match=r"estimate must name a condition Channels\(channels=2, null=False\) of net"):
        GaussianSkip(network(), "c", "x0_hat")


def test_a_stored_model_keeps_means_covariances_and_weight(tmp_path) -> None:
    x0, c, _ = correlated(100)
    model = sd.ScoreModel(GaussianSkip(network(), "c").fit(x0, {"c": c}), SDE, sd.V())
    save(model, tmp_path)
    x = torch.randn(4, 2, 2)
    assert torch.equal(load(tmp_path)(x, 0.2, c=c[:4]).v, model(x, 0.2, c=c[:4]).v)


def test_infinite_log_snr_is_allowed_and_gives_finite_values() -> None:
    x0, c, _ = correlated(100)
    net = GaussianSkip(network(), "c").fit(x0, {"c": c})
    log_snr = torch.tensor([torch.inf, -torch.inf])
    assert net(torch.randn(2, 2, 2), log_snr, c=c[:2]).isfinite().all()


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: GaussianSkip(torch.nn.Linear(2, 2)), r"net must declare its event_shape, got a Linear without one"),
        (lambda: GaussianSkip(network(outputs=3)), r"net must have 1 output, got outputs=3"),
        (
            lambda: GaussianSkip(network(), "label"),
            r"condition must name a Vector condition of net, got 'label' and c, l",
        ),
        (lambda: GaussianSkip(network()).fit(torch.zeros(9, 2, 2)), r"at least 2 \* folds = 10 events, got 9"),
        (lambda: GaussianSkip(network()).fit(torch.zeros(20, 4)), r"x0 must have shape"),
        (lambda: GaussianSkip(network(), "c").fit(torch.zeros(20, 2, 2)), r"fit needs the condition 'c'; pass cond="),
        (
            lambda: GaussianSkip(network(), "c").fit(torch.zeros(20, 2, 2), {"c": torch.zeros(20, 2)}),
            r"c must have shape \(20, 3\), got \(20, 2\); pass one vector per event",
        ),
        (lambda: GaussianSkip(network()).fit(torch.full((20, 2, 2), torch.nan)), r"x0 .*finite|finite.*x0"),
        (lambda: GaussianSkip(network()).fit(torch.zeros(20, 2, 2), folds=1), r"folds must be an integer"),
        (
            lambda: GaussianSkip(network()).fit(torch.zeros(20, 2, 2), penalty=0.0),
            r"penalty must be a positive finite number, got 0.0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build()
