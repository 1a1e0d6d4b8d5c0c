"""Every weighting of the package, found by its base class, and each row of the table of the literature's losses."""

from __future__ import annotations

import math

import pytest
import torch
from subclasses import concrete
from torch import Tensor

from scoresde.objective.equivalences import canonical, equivalence_table, equivalences
from scoresde.objective.weighting import (
    EDM,
    ELBO,
    P2,
    SNR,
    CustomWeighting,
    DiscreteVLB,
    LikelihoodWeighting,
    MinSNR,
    Regression,
    SigmoidWeighting,
    Simple,
    Weighting,
)
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.parameterization import X0, Eps, PosteriorMean, Score, V, Velocity
from scoresde.process.schedule import (
    Cosine,
    FromBetas,
    GeometricSigma,
    LinearBetas,
    LinearVP,
    LogLinear,
    Sigmoid,
    StraightPath,
)

ARGUMENTS = {CustomWeighting: (CustomWeighting(lambda m: 0.25 * m.snr),)}
MORE = (
    DiscreteVLB("beta_tilde"),
    SNR(0.0),
    MinSNR(math.inf),
    P2(0.3, 0.5),
    EDM(0.0, 1.0, 1.0),
    Regression(PosteriorMean()),
)
CLOCKS = [
    LinearVP(),
    LinearBetas(),
    Cosine(),
    LogLinear(),
    Sigmoid(),
    GeometricSigma(),
    StraightPath(),
    FromBetas((0.2, 1.0)),
]
LOG_SNRS = torch.linspace(-4.9, 4.9, 197, dtype=torch.float64)


ALL = [w for cls in concrete(Weighting) for w in ARGUMENTS.get(cls) or (cls(),)]
every = pytest.mark.parametrize("weighting", [*ALL, *MORE], ids=repr)


@every
@pytest.mark.parametrize("clock", CLOCKS, ids=repr)
def test_a_weight_is_one_finite_number_at_least_0_per_time_the_same_for_floats_and_tensors(weighting, clock):
    times = [(float(clock.tau(u)), float(clock.rate(u)), float(clock.tau(0.5 * u))) for u in (0.02, 0.3, 0.5, 0.9)]
    if isinstance(weighting, Regression) and clock.tau_max > LinearBetas().tau_max:
        times = [(min(tau, 5.0), rate, s) for tau, rate, s in times]  # PosteriorMean has no time after its own chain's
    weight = weighting(Marginal(*torch.tensor(times, dtype=torch.float64).unbind(1)))
    assert isinstance(weight, Tensor)
    assert weight.shape == (4,)
    assert weight.dtype == torch.float64
    assert bool((torch.isfinite(weight) & (weight >= 0)).all())
    assert bool((weight > 0).any())
    for one, time in zip(weight.tolist(), times, strict=True):
        single = weighting(Marginal(*time))
        assert isinstance(single, float)
        assert single == pytest.approx(one, rel=1e-11)


def _weight(name: str, log_snrs: Tensor = LOG_SNRS) -> Tensor:
    for loss in equivalences():
        if loss.name == name:
            value = loss.canonical()(log_snrs)
            assert isinstance(value, Tensor)
            return value
    raise AssertionError(f"no row {name!r} in {[row.name for row in equivalences()]}")


# w as a function of log-SNR, derived by hand; the names of a group are one loss
def _linear_rate(log_snrs: Tensor) -> Tensor:
    """λ_ELBO of Song's linear clock: β(t)/(2σ²) with t solved from its quadratic."""
    tau = 0.5 * torch.log1p(torch.exp(-log_snrs))
    return 0.5 * torch.sqrt(0.1**2 + 4 * 19.9 * tau) / torch.sigmoid(-log_snrs)


GROUPS = {
    ("DDPM simple: |eps|²", "Song: σ² |score|²", "SNR |x0|²", "α² |v|²", "SNR(power=1)", "MinSNR(gamma=inf)"): (
        lambda v: 1 / _linear_rate(v)
    ),
    ("ELBO", "Likelihood: ½ g² |score|²", "VDM: -½ dSNR/du |x0|²", "1, u drawn ∝ λ_ELBO"): torch.ones_like,
    ("x0 regression", "SNR(power=0)"): lambda v: torch.exp(-v) / _linear_rate(v),
    ("v regression", "(SNR + 1) |x0|²", "EDM's |F|², uniform u"): lambda v: (1 + torch.exp(-v)) / _linear_rate(v),
    ("P2(k=1, gamma=1)", "σ² |eps|²"): lambda v: torch.sigmoid(-v) / _linear_rate(v),
    ("MinSNR(gamma=5)", "min(SNR, 5) |x0|²"): lambda v: torch.clamp(5 * torch.exp(-v), max=1.0) / _linear_rate(v),
    ("flow matching: |velocity|²", "π/2 |v|², cosine clock"): lambda v: torch.exp(-v / 2),
    ("EDM", "EDM on a cosine clock"): lambda v: (
        8
        * (torch.exp(-v) + 0.5**2)
        * torch.exp(torch.distributions.Normal(torch.tensor(2.4, dtype=torch.float64), 2.4).log_prob(v))
    ),
    ("SigmoidWeighting(bias=2)",): lambda v: torch.sigmoid(2 - v),
}


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_the_names_of_a_group_are_one_loss_with_its_papers_weight(names):
    expected = GROUPS[names](LOG_SNRS)
    for name in names:
        assert torch.allclose(_weight(name), expected, rtol=1e-9, atol=0), name


def test_every_row_of_the_table_is_in_one_group_and_the_printed_groups_are_the_same():
    assert sorted(name for names in GROUPS for name in names) == sorted(row.name for row in equivalences())
    text = equivalence_table()
    printed = [
        {name for row in equivalences() if (name := row.name) in [line[:46].strip() for line in block.splitlines()]}
        for block in text.split("-" * 101)[1:]
    ]
    assert sorted(map(sorted, printed)) == sorted(sorted(names) for names in GROUPS)


def test_different_groups_are_different_losses():
    values = [_weight(names[0]) for names in GROUPS]
    for i, a in enumerate(values):
        for b in values[:i]:
            ratio = a / b
            assert (ratio.max() / ratio.min()).item() > 1.1  # not even up to a constant


def test_kingma_and_gaos_closed_forms():
    # their table 1: cosine clock with eps: sech(ℓ/2); with v: e^{-ℓ/2}; straight path with velocity: e^{-ℓ/2}
    cosine = Cosine(shift=1e-12)
    eps = torch.as_tensor(canonical(Simple(), cosine)(LOG_SNRS))
    assert torch.allclose(eps, 1 / (math.pi * torch.cosh(LOG_SNRS / 2)), rtol=1e-9)
    flow = torch.as_tensor(canonical(Simple(), StraightPath(), parameterization=Velocity())(LOG_SNRS))
    assert torch.allclose(flow, torch.exp(-LOG_SNRS / 2), rtol=1e-12)
    uniform_in_log_snr = torch.as_tensor(canonical(Simple(), LogLinear())(LOG_SNRS))
    assert torch.allclose(uniform_in_log_snr, torch.full_like(LOG_SNRS, 2 / 18.3), rtol=1e-12)


@pytest.mark.parametrize("weighting", [ELBO(), LikelihoodWeighting()])
def test_the_elbo_weights_every_log_snr_equally_on_every_clock(weighting):
    for clock in CLOCKS:
        log_snrs = LOG_SNRS if clock != CLOCKS[-1] else LOG_SNRS[LOG_SNRS < 1.0]
        assert torch.allclose(
            torch.as_tensor(canonical(weighting, clock)(log_snrs)), torch.ones_like(log_snrs), rtol=1e-9
        )


@pytest.mark.parametrize("weighting", [EDM(), SigmoidWeighting(), ELBO()])
def test_a_weighting_that_defines_its_weight_of_log_snr_is_the_same_loss_on_every_clock(weighting):
    first = torch.as_tensor(canonical(weighting, CLOCKS[0])(LOG_SNRS))
    for clock in CLOCKS[1:-1]:
        assert torch.allclose(torch.as_tensor(canonical(weighting, clock)(LOG_SNRS)), first, rtol=1e-9)


def test_the_elbos_weight_is_half_the_slope_of_log_snr():
    for clock in CLOCKS:
        u = torch.tensor(0.43, dtype=torch.float64, requires_grad=True)
        tau = clock.tau(u)
        assert isinstance(tau, Tensor)
        (slope,) = torch.autograd.grad(ou.log_snr(tau), u)
        assert ELBO()(Marginal(clock.tau(0.43), clock.rate(0.43))) == pytest.approx(-0.5 * slope.item(), rel=1e-10)


def test_the_discrete_vlb_is_ddpms_formula_for_both_reverse_variances():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    knots = torch.tensor(LinearBetas().knots(1000), dtype=torch.float64)
    m = Marginal(knots[2:], torch.ones(999), knots[1:-1])
    tilde = betas[1:] * (1 - bars[:-1]) / (1 - bars[1:])
    for rev_var, variance in (("beta", betas[1:]), ("beta_tilde", tilde)):
        exact = betas[1:] ** 2 / (2 * variance * (1 - betas[1:]) * (1 - bars[1:]))
        assert torch.allclose(torch.as_tensor(DiscreteVLB(rev_var)(m)), exact, rtol=1e-9)
    gap = ou.log_snr(knots[1:-1]) - ou.log_snr(knots[2:])
    assert torch.allclose(torch.as_tensor(DiscreteVLB("beta_tilde")(m)), 0.5 * torch.expm1(gap), rtol=1e-14)
    first = Marginal(knots[1].item(), 1.0, 0.0)
    assert DiscreteVLB("beta_tilde")(first) == math.inf
    assert DiscreteVLB("beta")(first) == pytest.approx((1e-4**2 / (2 * 1e-4 * (1 - 1e-4) * 1e-4)), rel=1e-10)


def test_min_snr_is_hangs_formula_on_either_side_of_gamma():
    for tau in (0.01, 0.1, 1.0):
        m = Marginal(tau, 1.0)
        assert MinSNR(5.0)(m) == pytest.approx(min(float(m.snr), 5.0) / float(m.snr), rel=1e-14)
        assert SNR(2.0)(m) == pytest.approx(m.snr, rel=1e-14)
        assert P2(0.5, 1.5)(m) == pytest.approx((0.5 + float(m.snr)) ** -1.5, rel=1e-13)


def test_regression_on_a_target_equals_the_weighting_with_its_own_name():
    m = Marginal(torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64), torch.ones(3))
    same = ((Eps(), Simple()), (X0(), SNR(0.0)), (Score(), CustomWeighting(lambda m: m.sigma**-2)))
    for target, weighting in (*same, (V(), CustomWeighting(lambda m: 1 + 1 / m.snr))):
        assert torch.allclose(torch.as_tensor(Regression(target)(m)), torch.as_tensor(weighting(m)), rtol=1e-13)


def test_weightings_refuse_settings_out_of_range():
    with pytest.raises(ValueError, match="unknown rev_var 'tilde'; did you mean beta_tilde"):
        DiscreteVLB("tilde")
    with pytest.raises(ValueError, match=r"needs the steps of a chain; draw timesteps by DiscreteTimesteps\(steps\)"):
        DiscreteVLB()(Marginal(0.5, 1.0))
    for make, text in (
        (lambda: MinSNR(0.0), "gamma must be positive"),
        (lambda: P2(k=0.0), "k must be a positive finite number"),
        (lambda: P2(gamma=-1.0), "gamma must be at least 0"),
        (lambda: EDM(p_std=0.0), "p_std must be a positive finite number"),
    ):
        with pytest.raises(ValueError, match=text):
            make()
