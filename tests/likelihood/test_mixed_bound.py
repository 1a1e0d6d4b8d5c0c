"""The bound of numbers and categories together: exact for an exact model, larger for another, seeded by sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mixed_cases import CASES, mixture
from torch import Tensor

from scoresde.analytic import MixedMixture
from scoresde.guidance import Autoguidance
from scoresde.likelihood import KernelDecoder, continuous_vlb
from scoresde.process import VPSDE, Categorical, Mixed, ou

D = torch.float64


def at_tau_min(model: MixedMixture, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the distribution at tau_min with clean codes, and the exact -log p of both."""
    process, generator = model.sde, torch.Generator().manual_seed(seed)
    numbers, codes = process.split(model.sample(n, generator=generator))
    noise = torch.randn(numbers.shape, dtype=D, generator=generator)
    numbers = process.continuous.perturb(numbers, process.tau_min, noise)
    density = model.numbers._component_terms(numbers, process.tau_min)[0]
    probability = model.codes._entry_probs(codes, 0.0).log().sum(-1)
    return torch.cat([numbers, codes], 1), -torch.logsumexp(density + probability, 1)


@pytest.mark.parametrize("kernel", CASES)
def test_the_bound_of_the_exact_model_is_its_log_density(kernel):
    model = mixture(CASES[kernel])
    x, exact = at_tau_min(model, 1200, 0)
    bound = continuous_vlb(model, x, evaluations=64, replicates=4, generator=torch.Generator().manual_seed(1))
    difference = bound.nats - exact
    assert abs(float(difference.mean())) < 3.5 * float(difference.std()) / len(x) ** 0.5
    assert float(difference.std()) / len(x) ** 0.5 < 0.25
    assert set(bound.terms) == {
        "numeric prior",
        "numeric diffusion",
        "categorical prior",
        "categorical diffusion",
        "categorical reconstruction",
    }
    torch.testing.assert_close(sum(bound.terms.values()), bound.nats)
    # the stated errors are those of the differences
    assert 0.6 < float((difference / bound.stderr).square().median()) / 0.58 < 2.0


@pytest.mark.parametrize("kernel", CASES)
def test_independent_parts_have_the_bounds_of_each_alone(kernel):
    # one component: the terms of the codes sum to -log P(c) and those of the numbers to -log p(y)
    process = CASES[kernel]
    process = Mixed(replace(process.continuous, tau_min=0.1), replace(process.categorical, tau_min=0.1))
    probs = torch.tensor([[[0.2, 0.5, 0.3], [0.7, 0.3, 0.0]]], dtype=D)
    parts = torch.full((1, 1), 0.4, dtype=D), torch.full((1, 1), 0.6, dtype=D), probs
    model = MixedMixture(torch.ones(1), *parts, process)
    x, exact = at_tau_min(model, 1500, 0)
    bound = continuous_vlb(model, x, evaluations=64, replicates=4, generator=torch.Generator().manual_seed(1))
    nats = {part: sum(v for k, v in bound.terms.items() if k.startswith(part)) for part in ("numeric", "categorical")}
    of_codes = -model.codes.log_prob(x[:, 1:])
    assert bound.terms["categorical reconstruction"].mean() > 0.1
    for part, value in {"categorical": of_codes, "numeric": exact - of_codes}.items():
        difference = nats[part] - value
        assert abs(float(difference.mean())) < 3.5 * float(difference.std()) / len(x) ** 0.5
        assert float(difference.std()) / len(x) ** 0.5 < 0.02


def test_the_bound_of_another_model_is_larger_by_its_divergence():
    process = CASES["uniform"]
    model = mixture(process)
    other = MixedMixture(
        model.codes.log_weights.exp(),
        model.numbers.means + 0.2,
        model.numbers.variances,
        model.codes.class_probs,
        process,
    )
    x, exact = at_tau_min(model, 1200, 0)
    bounds = [
        continuous_vlb(each, x, evaluations=32, replicates=2, generator=torch.Generator().manual_seed(1)).nats
        for each in (model, other)
    ]
    density = other.numbers._component_terms(x[:, :2], process.tau_min)[0]
    exact_other = -torch.logsumexp(density + other.codes._entry_probs(x[:, 2:], 0.0).log().sum(-1), 1)
    gap = bounds[1] - bounds[0] - (exact_other - exact)
    assert float((exact_other - exact).mean()) > 0.1
    assert abs(float(gap.mean())) < 3.5 * float(gap.std()) / len(x) ** 0.5


def test_the_value_of_a_sample_depends_on_its_seed_alone():
    model = mixture(CASES["uniform"])
    x, _ = at_tau_min(model, 3, 0)
    whole = continuous_vlb(model, x, evaluations=16, seeds=[1, 2, 3])
    part = continuous_vlb(model, x[[2, 0]], evaluations=16, seeds=[3, 1])
    torch.testing.assert_close(whole.nats[[2, 0]], part.nats, rtol=1e-10, atol=1e-10)
    assert whole.nfe == 16 + 4


def test_what_has_no_such_bound_is_refused():
    model = mixture(CASES["uniform"])
    x, _ = at_tau_min(model, 3, 0)
    with pytest.raises(TypeError, match="takes no decoder"):
        continuous_vlb(model, x, decoder=KernelDecoder())
    with pytest.raises(ValueError, match="data must hold codes"):
        continuous_vlb(model, x + 0.25)
    absorbing = mixture(Mixed(VPSDE(), Categorical((3, 2), "absorbing")))
    assert ou.alpha_bar(absorbing.sde.tau_max) > 0
    with pytest.raises(ValueError, match="ends without signal"):
        continuous_vlb(absorbing, x)
    with pytest.raises(ValueError, match="Autoguidance is guided"):
        continuous_vlb(Autoguidance(model, mixture(CASES["uniform"], 2), 2.0), x)
