"""Class posteriors against exact mixtures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from scoresde import MLP, VPSDE, AdaptiveSolver, Gaussian, Hutchinson, LinearVP, ScoreModel, class_posterior
from scoresde.likelihood import ExactTrace
from scoresde.model import Model
from scoresde.nn import Classes, Vector
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction

D = torch.float64


class Labeled(Model):
    """An exact Gaussian per class: ``label`` says which one, entry by entry."""

    def __init__(self, classes: list[Gaussian]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(classes)
        self.sde, self.event_shape = classes[0].sde, classes[0].event_shape
        self.cost = 1

    def predict(self, x: Tensor, tau, *, label: Tensor, **cond: object) -> Prediction:
        rows = label.reshape(-1, *(1 for _ in x.shape[1:]))
        v = torch.zeros_like(x)
        for k, part in enumerate(self.parts):
            v = torch.where(rows == k, part.predict(x, tau).v, v)  # pyright: ignore[reportCallIssue]
        return GaussianPrediction(x, tau, v, V())


def exact(classes: list[Gaussian], x: Tensor, prior: Tensor) -> Tensor:
    tau = classes[0].sde.tau_min
    return torch.log_softmax(torch.stack([part.log_prob(x, tau) for part in classes], 1) + prior.log(), 1)


def planar(sde: VPSDE | None = None) -> list[Gaussian]:
    cov = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=D)
    means = ([0.5, -0.2], [-0.4, 0.6], [0.0, 0.0])
    return [Gaussian(torch.tensor(m, dtype=D), c, sde) for m, c in zip(means, (cov, 0.3, 1.7), strict=True)]


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 5.0)])
@pytest.mark.parametrize(("sde", "limit"), [(VPSDE(LinearVP(0.1, 40.0)), 2e-3), (None, 0.05)])
def test_the_posterior_of_gaussian_classes_is_exact_within_its_error(weights, sde, limit, generator):
    classes = planar(sde)  # the default clock ends early: its prior is off by a few hundredths of a nat
    x = torch.randn(20, 2, dtype=D, generator=generator)
    result = class_posterior(Labeled(classes), x, 3, prior=weights)
    prior = torch.ones(3, dtype=D) if weights is None else torch.tensor(weights, dtype=D)
    expected = exact(classes, x, prior / prior.sum())
    error = (result.log_prob - expected).abs()
    assert float(error.max()) < limit
    assert bool((error <= 1.2 * result.bias + 1e-4).all())  # the prior's error is known to first order
    torch.testing.assert_close(result.log_prob.exp().sum(1), torch.ones(20, dtype=D))
    assert not result.stderr.any()
    assert torch.equal(result.predicted, expected.argmax(1))


def test_chosen_classes_are_renormalized_and_keep_their_names(generator):
    classes = planar()
    x = torch.randn(6, 2, dtype=D, generator=generator)
    all_three, two = class_posterior(Labeled(classes), x, 3), class_posterior(Labeled(classes), x, [2, 0])
    expected = torch.log_softmax(all_three.log_density[:, [2, 0]], 1)
    torch.testing.assert_close(two.log_prob, expected, atol=1e-9, rtol=1e-9)
    assert set(two.predicted.tolist()) <= {0, 2}
    assert torch.equal(two.classes, torch.tensor([2, 0]))


def wide(dims: int = 24) -> list[Gaussian]:
    """Classes of correlated Gaussians that differ little, so that a random trace has an error, of common size."""
    axes = torch.linalg.qr(torch.randn(dims, dims, dtype=D, generator=torch.Generator().manual_seed(0)))[0]
    cov = axes @ torch.diag(torch.linspace(0.05, 3.0, dims, dtype=D)) @ axes.T
    return [Gaussian(torch.full((dims,), m, dtype=D), cov * c) for m, c in ((0.0, 1.0), (0.05, 1.0), (0.0, 1.05))]


def test_common_probes_cancel_and_the_standard_error_covers_the_rest(generator):
    classes = wide()
    x = classes[0].sample(40, generator=generator)
    result = class_posterior(Labeled(classes), x, 3, replicates=6, seeds=range(40))
    expected = exact(classes, x, torch.full((3,), 1 / 3, dtype=D))
    error = result.log_prob - expected
    density_error = result.log_density[:, 0] - classes[0].log_prob(x, classes[0].sde.tau_min)
    assert float(error.std()) < 0.5 * float(density_error.std())  # with probes of their own 1.2
    assert float((error.square().mean() / (result.stderr.square().mean() + 1e-8)).sqrt()) < 2.0
    z = error.abs() / (3 * result.stderr + result.bias)
    assert float((z > 1).double().mean()) < 0.1


def test_a_sample_does_not_depend_on_its_neighbors_and_one_replicate_has_no_error(generator):
    classes = wide()
    x = classes[0].sample(4, generator=generator)
    model = Labeled(classes)
    whole = class_posterior(model, x, 3, seeds=[5, 6, 7, 8], replicates=1)
    part = class_posterior(model, x[2:], 3, seeds=[7, 8], replicates=1)
    torch.testing.assert_close(whole.log_prob[2:], part.log_prob, atol=1e-8, rtol=1e-8)
    assert bool(whole.stderr.isnan().all())
    exactly = class_posterior(model, x, 3, trace=ExactTrace())
    assert int(exactly.products[0]) == 3 * 40 * 24
    assert int(whole.products[0]) == 3 * 40 * 2


def test_a_sample_that_does_not_arrive_has_no_posterior(generator):
    x = torch.randn(3, 2, dtype=D, generator=generator)
    result = class_posterior(Labeled(planar()), x, 3, solver=AdaptiveSolver(max_nfe=3))
    assert bool(result.log_prob.isnan().all())
    assert result.predicted.tolist() == [-1, -1, -1]


def test_an_empty_batch_has_an_empty_posterior():
    result = class_posterior(Labeled(planar()), torch.zeros(0, 2, dtype=D), 3)
    assert result.log_prob.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 1}, "two or more different integers"),
        ({"classes": [0, 0]}, "two or more different integers"),
        ({"prior": [1.0, 0.0, 1.0]}, "prior must be 3 positive numbers"),
        ({"prior": [1.0, 1.0]}, "prior must be 3 positive numbers"),
        ({"replicates": 0}, "replicates must be a positive integer"),
        ({"seeds": [1, 2], "generator": torch.Generator()}, "a generator or from seeds"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    settings = {"classes": 3, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        class_posterior(Labeled(planar()), torch.zeros(2, 2, dtype=D), **settings)


def test_a_model_without_the_condition_is_refused():
    with pytest.raises(TypeError, match="reads no conditioning, got label"):
        class_posterior(planar()[0], torch.zeros(2, 2, dtype=D), 3)


def test_arrays_are_converted_and_the_trace_may_be_chosen():
    x = np.zeros((2, 2))
    result = class_posterior(Labeled(planar()), x, 2, trace=Hutchinson(probes=2), seeds=[0, 1])
    assert math.isfinite(float(result.stderr.sum()))


def test_classes_that_the_network_does_not_have_are_refused() -> None:
    net = MLP((2,), width=8, depth=1, conditions={"label": Classes(3), "v": Vector(2)})
    model = ScoreModel(net, VPSDE(), event_shape=(2,))
    x = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"classes must lie in 0 ... 2, got 3; pass 3"):
        class_posterior(model, x, 4)
    with pytest.raises(ValueError, match="label takes each class in turn, got it as a keyword too"):
        class_posterior(model, x, 3, label=torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="v must be a condition of classes, got Vector"):
        class_posterior(model, x, 3, condition="v")
    with pytest.raises(ValueError, match=r"integers from 0 on, or their number, got \[0.7, 1.2\]"):
        class_posterior(model, x, [0.7, 1.2])  # pyright: ignore[reportArgumentType]
