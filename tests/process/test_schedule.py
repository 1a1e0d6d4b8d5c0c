"""Every clock of the package: inverse, rate and conversion to betas and back; and the numbers of each paper."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch
from subclasses import concrete
from torch import Tensor

from scoresde.process import ou
from scoresde.process.schedule import (
    Cosine,
    FromBetas,
    GeometricSigma,
    LinearBetas,
    LinearVP,
    LogLinear,
    Schedule,
    Sigmoid,
    StraightPath,
    SubVPClock,
)
from scoresde.process.sde import VPSDE
from scoresde.storage.spec import parse, to_text

# one entry per class whose constructor needs arguments; any other class of the package is tested as cls()
ARGUMENTS = {FromBetas: (FromBetas((0.1, 0.02, 0.3, 0.5)), FromBetas((0.02, 0.5, 1.0)))}
MORE = (LinearVP(2.0, 2.0), Cosine(clip=1.0), Cosine(steps=50), Sigmoid(alpha_bar_min=0.0), Sigmoid(0.0, 3.0, 0.7))


CLOCKS = [clock for cls in concrete(Schedule) for clock in ARGUMENTS.get(cls) or (cls(),)]
every_clock = pytest.mark.parametrize("clock", [*CLOCKS, *MORE], ids=repr)
INSIDE = torch.linspace(0, 1, 402, dtype=torch.float64)[1:-1]


def _tensor(value: float | Tensor) -> Tensor:
    assert isinstance(value, Tensor)
    return value


@every_clock
@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_betas_to_clock_to_betas_is_the_identity(clock, steps):
    betas = clock.to_betas(steps)
    perturbed = [beta * (1 - 1e-7 * (7 * i % 11)) for i, beta in enumerate(betas)]  # not from rounded clock times
    for original in (betas, perturbed):
        recovered = FromBetas(tuple(original)).to_betas(steps)
        assert max(abs(b / a - 1) for a, b in zip(original, recovered, strict=True)) <= 1e-12


@every_clock
def test_clock_to_chain_to_clock_keeps_the_knots(clock):
    knots = clock.knots(100)
    betas = clock.to_betas(100)
    assert knots[0] == 0.0
    # a beta near 1 loses the digits of 1 - beta
    rounding = np.cumsum([0.0] + [2e-16 / (1 - beta) if beta < 1 else math.inf for beta in betas])
    for original, recovered, tolerance in zip(knots, FromBetas(tuple(betas)).knots(100), rounding, strict=True):
        assert original == recovered or abs(recovered - original) <= 1e-12 * original + tolerance
    assert knots[1:] == pytest.approx([clock.tau(k / 100) for k in range(1, 101)], rel=1e-15)


@every_clock
def test_the_inverse_recovers_the_clock_value(clock):
    recovered = _tensor(clock.u(clock.tau(INSIDE)))
    taus, rates = _tensor(clock.tau(INSIDE)), _tensor(clock.rate(INSIDE))
    # rounding of τ times du/dτ, and rounding of the difference in the inverse
    assert bool(
        ((recovered - INSIDE).abs() <= 1e-14 + 1e-15 * taus / rates + 3e-16 * torch.exp(2 * taus) / rates).all()
    )
    assert clock.u(clock.tau_max) == pytest.approx(1.0, abs=1e-12)
    assert clock.u(clock.tau_start) == pytest.approx(0.0, abs=1e-12)
    recovered_taus = _tensor(clock.tau(clock.u(taus)))
    assert torch.allclose(recovered_taus, taus, rtol=1e-11, atol=0)


@every_clock
def test_the_rate_is_the_derivative_of_the_clock(clock):
    u = (INSIDE + 1e-4).clamp(max=0.9999).requires_grad_()
    (slope,) = torch.autograd.grad(_tensor(clock.tau(u)).sum(), u)
    assert torch.allclose(slope, _tensor(clock.rate(u)).detach(), rtol=1e-10, atol=0)
    single = torch.tensor(0.3774, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(_tensor(clock.tau(single)), single)
    assert slope.item() == pytest.approx(clock.rate(0.3774), rel=1e-12)


@every_clock
def test_the_inverse_of_a_0d_knot_has_the_inverse_derivative(clock):
    knot = torch.tensor(clock.tau(0.3774), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(_tensor(clock.u(knot)), knot)
    assert slope.item() == pytest.approx(1 / clock.rate(0.3774), rel=1e-9)


@every_clock
def test_floats_and_tensors_of_any_type_give_the_same_time(clock):
    for name in ("tau", "rate", "u"):
        function = getattr(clock, name)
        arguments = (
            [0.0, 0.25, 0.5, 0.9990234375, 1.0] if name != "u" else [float(clock.tau(v)) for v in (0.25, 0.5, 0.75)]
        )
        of_floats = [function(v) for v in arguments]
        assert all(isinstance(v, float) for v in of_floats)
        of_tensor = function(torch.tensor(arguments, dtype=torch.float64))
        assert of_tensor.tolist() == pytest.approx(of_floats, rel=2e-15, abs=1e-15)
        assert [function(torch.tensor(v, dtype=torch.float64)).item() for v in arguments] == of_tensor.tolist()
        if name != "u":  # these numbers are exact in float32
            assert torch.equal(function(torch.tensor(arguments, dtype=torch.float32)), of_tensor)


@every_clock
def test_the_clock_increases_strictly(clock):
    u = torch.linspace(0, 1, 5001, dtype=torch.float64)
    assert bool((_tensor(clock.tau(u)).diff() > 0).all())
    assert bool((_tensor(clock.rate(u)) >= 0).all())


@every_clock
@pytest.mark.parametrize("bad", [-1e-3, 1.001, math.nan])
def test_a_clock_value_outside_its_range_is_refused(clock, bad):
    for function in (clock.tau, clock.rate):
        for value in (bad, torch.tensor([0.5, bad])):
            with pytest.raises(ValueError, match=r"u must lie in \[0, 1\], got"):
                function(value)
    with pytest.raises(ValueError, match="tau must lie in"):
        clock.u(-1.0)
    if clock.tau_max < math.inf:
        with pytest.raises(ValueError, match="tau must lie in"):
            clock.u(1.01 * clock.tau_max)


@pytest.mark.parametrize("steps", [0, -3, 2.5, "10", True])
def test_a_number_of_steps_that_is_not_a_positive_integer_is_refused(steps):
    with pytest.raises(ValueError, match=r"steps must be a positive integer, got"):
        LinearVP().knots(steps)


@pytest.mark.parametrize("clock", CLOCKS, ids=repr)
def test_the_bound_of_the_chain_converges_to_the_evidence_bound_at_first_order(clock):
    from scoresde.objective.weighting import ELBO, DiscreteVLB
    from scoresde.process.base import Marginal

    u = 0.5005  # between two knots of LinearBetas, so that the step below lies between the same two knots
    limit = ELBO()(Marginal(clock.tau(u), clock.rate(u)))
    for rev_var in ("beta", "beta_tilde"):
        bound, steps, errors = DiscreteVLB(rev_var), [4000 * 2**i for i in range(5)], []
        for count in steps:
            m = Marginal(clock.tau(u), clock.rate(u), clock.tau(u - 1 / count))
            errors.append(abs(count * bound(m) / limit - 1))
        if rev_var == "beta" and max(errors) < 1e-10:
            continue  # exact: alpha_bar is linear in u there
        slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
        assert slope == pytest.approx(-1.0, abs=0.1)


@pytest.mark.parametrize("rev_var", ["beta", "beta_tilde"])
def test_ddpms_chain_converges_to_the_evidence_bound_at_first_order_in_its_length(rev_var):
    from scoresde.objective.weighting import ELBO, DiscreteVLB
    from scoresde.process.base import Marginal

    steps, errors = [125, 250, 500, 1000, 2000], []
    for count in steps:  # betas proportional to 1/K, as in Song's limit
        clock, u = LinearBetas(0.1 / count, 20.0 / count, count), 0.4
        m = Marginal(clock.tau(u), clock.rate(u), clock.tau(u - 1 / count))
        song = Marginal(LinearVP().tau(u), LinearVP().rate(u))
        errors.append(abs(count * float(DiscreteVLB(rev_var)(m)) / float(ELBO()(song)) - 1))
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(-1.0, abs=0.1)


def test_ddpms_linear_betas_are_numpys_linspace():
    betas = np.linspace(1e-4, 0.02, 1000)
    assert LinearBetas().to_betas(1000) == pytest.approx(betas.tolist(), rel=1e-12)
    assert LinearBetas().knots(1000)[1:] == pytest.approx((-0.5 * np.log(np.cumprod(1 - betas))).tolist(), rel=1e-12)


def test_songs_linear_rate_is_half_his_beta_and_integrates_to_the_clock():
    clock = LinearVP()
    for u in (0.0, 0.2, 1.0):
        assert 2 * clock.rate(u) == pytest.approx(0.1 + u * 19.9, rel=1e-15)
        assert clock.tau(u) == pytest.approx(0.25 * u**2 * 19.9 + 0.5 * u * 0.1, rel=1e-15)
    nodes, weights = np.polynomial.legendre.leggauss(3)
    area = sum(0.5 * w * float(clock.rate(0.5 * (1 + x))) for x, w in zip(nodes, weights, strict=True))
    assert area == pytest.approx(clock.tau_max, rel=1e-14)


@pytest.mark.parametrize("steps", [50, 1000])
def test_the_cosine_betas_are_those_of_nichol_and_dhariwal(steps):
    mpmath.mp.dps = 40

    def f(k: int) -> mpmath.mpf:  # pyright: ignore[reportInvalidTypeForm]
        shift = mpmath.mpf(0.008)
        return mpmath.cos((mpmath.mpf(k) / steps + shift) / (1 + shift) * mpmath.pi / 2) ** 2

    alpha_bars = [f(k) for k in range(steps + 1)]
    exact = [min(float(1 - after / before), 0.999) for before, after in zip(alpha_bars, alpha_bars[1:])]
    assert exact[-1] == 0.999
    assert Cosine(steps=steps).to_betas(steps) == pytest.approx(exact, rel=1e-11)


def test_the_cosine_without_clip_ends_without_signal():
    clock = Cosine(clip=1.0)
    assert clock.tau_max == math.inf
    assert clock.to_betas(1000)[-1] == 1.0
    assert Cosine().to_betas(1000)[-1] == pytest.approx(0.999, rel=1e-12)


def test_any_list_of_betas_is_exact_at_its_knots_and_linear_in_alpha_bar_between():
    betas = (0.1, 0.02, 0.3, 0.5)
    clock = FromBetas(betas)
    alpha_bars = np.cumprod([1.0] + [1 - b for b in betas])
    for k in range(5):
        assert ou.alpha_bar(clock.tau(k / 4)) == pytest.approx(alpha_bars[k], rel=1e-15)
    for u in (0.03, 0.4, 0.77, 0.999):
        assert ou.alpha_bar(clock.tau(u)) == pytest.approx(np.interp(u, np.linspace(0, 1, 5), alpha_bars), rel=1e-14)
    assert clock.to_betas(4) == pytest.approx(betas, rel=1e-15)


def test_log_snr_is_linear_under_the_log_linear_clock():
    clock = LogLinear()
    assert _tensor(ou.log_snr(_tensor(clock.tau(INSIDE)))).tolist() == pytest.approx(
        (13.3 - 18.3 * INSIDE).tolist(), abs=1e-13
    )


def test_the_sigmoid_clock_is_chens_curve():
    def curve(u: float, start: float = 0.0, end: float = 3.0, temperature: float = 0.7) -> float:
        a, b, c = (1 / (1 + math.exp(-v / temperature)) for v in (start, end, start + u * (end - start)))
        return (b - c) / (b - a)

    clock = Sigmoid(0.0, 3.0, 0.7, alpha_bar_min=0.0)
    for u in (0.1, 0.5, 0.9):
        assert ou.alpha_bar(clock.tau(u)) == pytest.approx(curve(u), rel=1e-13)
    assert clock.tau_max == math.inf
    assert ou.alpha_bar(Sigmoid(alpha_bar_min=1e-9).tau_max) == pytest.approx(1e-9, rel=1e-12)


def test_the_clock_of_each_view_has_the_noise_to_signal_ratio_of_its_paper():
    for u in (1e-4, 0.2, 0.6, 0.95):
        ratio = math.sqrt(math.expm1(2 * float(GeometricSigma().tau(u))))
        assert ratio == pytest.approx(0.01 * 5000.0**u, rel=1e-12)
        ratio = math.sqrt(math.expm1(2 * float(StraightPath().tau(u))))
        assert ratio == pytest.approx(u / (1 - u), rel=1e-12)
        inner = float(LinearVP().tau(u))
        ratio = math.sqrt(math.expm1(2 * float(SubVPClock().tau(u))))
        assert ratio == pytest.approx(-math.expm1(-2 * inner) / math.exp(-inner), rel=1e-12)


@pytest.mark.parametrize(
    ("betas", "k"),
    [((0.1, 0.0, 0.2), 2), ((0.1, -0.1), 2), ((0.1, 1.1), 2), ((1.0, 0.1), 1), ((0.0,), 1), ((0.1, math.nan), 2)],
)
def test_a_beta_outside_its_range_or_a_one_before_the_end_is_refused_when_the_clock_is_built(betas, k):
    with pytest.raises(ValueError, match=rf"betas must lie in \(0, 1\), or be 1 in the last step; got .* at k = {k}"):
        FromBetas(betas)


def test_a_beta_too_small_to_move_the_clock_is_refused():
    with pytest.raises(ValueError, match="too small to move the clock at k = 2"):
        FromBetas((0.5, 1e-18))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FromBetas(()), "at least one entry"),
        (lambda: LinearBetas(first=0.0), "at k = 1 of 1000"),
        (lambda: LinearBetas(steps=0), "steps must be a positive integer, got 0"),
        (lambda: LinearVP(beta_min=-1.0), "beta_min must be a positive finite number, got -1.0"),
        (lambda: LinearVP(beta_min=3.0, beta_max=2.0), "beta_max must be at least beta_min"),
        (lambda: Cosine(clip=1.5), r"clip must lie in \(0, 1\]"),
        (lambda: Cosine(clip=0.5), "clip must touch the last step only"),
        (lambda: Cosine(shift=0.0), "shift must be a positive"),
        (lambda: LogLinear(-5.0, 13.3), "log_snr_min must be below log_snr_max"),
        (lambda: Sigmoid(alpha_bar_min=1.0), "alpha_bar_min must lie in"),
        (lambda: GeometricSigma(sigma_min=2.0, sigma_max=1.0), "sigma_min must be below sigma_max"),
        (lambda: SubVPClock(StraightPath()), "the inner clock must end at a finite tau"),
    ],
)
def test_invalid_settings_of_a_clock_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_the_printed_form_of_many_betas_is_short_and_their_text_is_exact():
    betas = FromBetas(tuple(0.02 * (k + 1) / 1000 for k in range(1000)))
    assert repr(betas) == "FromBetas(1000 betas, 2e-05 … 0.02)"
    assert len(repr(VPSDE(betas))) < 100
    assert parse(to_text(betas), {"FromBetas": FromBetas}) == betas
    assert repr(FromBetas((0.1, 0.2))) == "FromBetas(betas=(0.1, 0.2))"


@pytest.mark.parametrize("between", ["sigma", "log_sigma"])
@pytest.mark.parametrize("last", [0.02, 1.0])
def test_between_two_knots_sigma_or_its_logarithm_is_linear(between: str, last: float) -> None:
    betas = (*torch.linspace(1e-4, 0.02, 99).double().tolist(), last)
    clock, plain = FromBetas(betas, between), FromBetas(betas)
    assert clock.knots(100) == pytest.approx(plain.knots(100), rel=1e-12)
    bars = np.cumprod(1.0 - np.array(betas))[:99]
    levels = np.sqrt((1 - bars) / bars)
    forward, back = (np.log, np.exp) if between == "log_sigma" else (np.array, np.array)
    for t in (0.5, 17.25, 97.9):  # the level of knot t + 1
        u = (t + 1) / 100
        tau = float(clock.tau(u))
        expected = back(np.interp(t, np.arange(99), forward(levels)))
        assert math.sqrt(math.expm1(2 * tau)) == pytest.approx(expected, rel=1e-12)
        assert float(clock.u(tau)) == pytest.approx(u, rel=1e-12)
        h = 1e-6
        slope = (float(clock.tau(u + h)) - float(clock.tau(u - h))) / (2 * h)
        assert float(clock.rate(u)) == pytest.approx(slope, rel=1e-6)
        several = torch.tensor([u, 0.004, 0.999], dtype=torch.float64)
        singly = torch.tensor([float(clock.tau(v)) for v in several.tolist()], dtype=torch.float64)
        torch.testing.assert_close(clock.tau(several), singly, rtol=1e-13, atol=0)
        torch.testing.assert_close(clock.u(singly), several, rtol=1e-12, atol=0)
    for u in (0.004, 0.999) if last == 1 else (0.004,):  # before the first knot and in a step to infinity
        assert clock.tau(u) == plain.tau(u)
        assert clock.rate(u) == plain.rate(u)


def test_an_unknown_interpolation_of_betas_is_refused() -> None:
    with pytest.raises(ValueError, match="no interpolation is named 'log_sigmas'; did you mean log_sigma"):
        FromBetas((0.1, 0.2), "log_sigmas")
    assert repr(FromBetas((0.1, 0.2), "sigma")) == "FromBetas(betas=(0.1, 0.2), between='sigma')"


@dataclass(frozen=True)
class _Own(Schedule):
    """A clock of a user, whose functions may contradict each other."""

    top: float = 5.0
    inverse: float = 5.0
    slope: float = 5.0

    def _tau(self, u):
        return self.top * u

    def _u(self, tau):
        return tau / self.inverse

    def _rate(self, u):
        return 0.0 * u + self.slope


def test_a_process_refuses_a_clock_that_contradicts_itself():
    assert VPSDE(_Own()).tau_max == 5.0
    with pytest.raises(ValueError, match=r"u\(tau\) must be the inverse .* got u = 0\.8333.* there; correct _u"):
        VPSDE(_Own(inverse=3.0))
    with pytest.raises(
        ValueError, match=r"rate .* must be the derivative .* slope 5 at u = 0\.5, got 10; correct _rate"
    ):
        VPSDE(_Own(slope=10.0))
    with pytest.raises(ValueError, match=r"a clock must increase, .*correct _tau"):
        VPSDE(_Own(top=-5.0))


@every_clock
def test_a_process_takes_every_clock(clock: Schedule):
    assert VPSDE(clock, tau_min=max(1e-5, 1.001 * clock.tau_start)).schedule is clock


def test_a_process_takes_clocks_that_hardly_move_in_the_middle():
    for betas in ((0.9, 1e-10, 0.9), (0.9, 1e-14, 1e-14, 0.9), (1e-7, 1e-7)):
        clock = FromBetas(betas)
        assert VPSDE(clock, tau_min=1e-8).schedule is clock
