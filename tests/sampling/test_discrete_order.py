"""Declared orders of the samplers of categories, by the exact distribution of their last state; no random numbers."""

from __future__ import annotations

import math

import pytest
import torch
from discrete_laws import Enumerated, smooth_mixture, total_variation
from torch import Tensor

from scoresde.analytic import DiscreteTable
from scoresde.process import Categorical, ou
from scoresde.process.discrete import DiscreteProcess
from scoresde.sampling import (
    Ancestral,
    Chain,
    DiscretePredictorCorrector,
    DiscreteSampler,
    ExplicitGrid,
    TauLeaping,
    ThenZero,
    TrapezoidalLeaping,
    UniformAngle,
    UniformLogSNR,
)
from scoresde.sampling.discrete_corrector import correct

KERNELS = ["uniform", "absorbing", "binomial", "columns"]


def _errors(exact: Enumerated, samplers: list[DiscreteSampler], start: float | None = None) -> list[float]:
    truth = exact.law().nan_to_num(0.0)
    return [total_variation(exact.last_law(sampler, start), truth) for sampler in samplers]


def _slopes(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in zip(errors, errors[1:])]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_chain_has_order_one_from_pure_noise_on_six_entries(kernel: str) -> None:
    exact = Enumerated(smooth_mixture(kernel, 6, 1.0))
    slopes = _slopes(_errors(exact, [Ancestral(steps) for steps in (8, 16, 32)]))
    assert slopes == pytest.approx([Ancestral.order] * 2, abs=0.05)


def test_a_table_of_all_states_gives_the_law_of_its_mixture() -> None:
    mixture = Enumerated(smooth_mixture("uniform", 5, 1.0))
    table = Enumerated(DiscreteTable(mixture.states, mixture.law(), Categorical(3)))
    torch.testing.assert_close(table.last_law(Ancestral(4)), mixture.last_law(Ancestral(4)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
def test_leaps_have_order_one_on_steps_even_in_log_snr(kernel: str) -> None:
    exact, grid = Enumerated(smooth_mixture(kernel, 4, 1.0)), ThenZero(UniformLogSNR())
    slopes = _slopes(_errors(exact, [TauLeaping(steps, grid) for steps in (32, 64, 128)], start=1.5))
    assert slopes == pytest.approx([TauLeaping.order] * 2, abs=0.15)


def test_a_leap_of_the_absorbing_kernel_is_the_step_of_the_chain() -> None:
    exact = Enumerated(smooth_mixture("absorbing", 4, 2.0))
    torch.testing.assert_close(exact.last_law(TauLeaping(5)), exact.last_law(Ancestral(5)), rtol=0, atol=1e-14)


def test_a_leap_of_one_entry_has_the_probabilities_of_its_rates() -> None:
    exact = Enumerated(smooth_mixture("uniform", 1, 1.0))
    grid = ExplicitGrid((1.0, 0.4))
    rates = exact.predict(exact.states, 1.0).rates.squeeze(1)  # per unit of tau, here from each state
    length = (ou.log_snr(0.4) - ou.log_snr(1.0)) * ou.beta(1.0, 0.0) / 2.0
    leave = -torch.expm1(-length * rates.sum(1, keepdim=True))
    transition = leave * rates / rates.sum(1, keepdim=True) + torch.diag(1.0 - leave.squeeze(1))
    torch.testing.assert_close(exact.last_law(TauLeaping(1, grid), 1.0), exact.law(1.0) @ transition)


@pytest.mark.parametrize("theta", [0.5, 0.4])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_trapezoidal_method_has_order_two_from_pure_noise(kernel: str, theta: float) -> None:
    exact = Enumerated(smooth_mixture(kernel))
    slopes = _slopes(_errors(exact, [TrapezoidalLeaping(steps, Chain(), theta) for steps in (12, 24)]))
    assert slopes == pytest.approx([TrapezoidalLeaping.order], abs=0.15)  # from above, with a logarithm of the steps


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
def test_the_trapezoidal_method_has_order_two_on_six_entries(kernel: str) -> None:
    exact = Enumerated(smooth_mixture(kernel, 6))
    slopes = _slopes(_errors(exact, [TrapezoidalLeaping(steps) for steps in (6, 12)]))
    # from above, with a logarithm of the steps, as in the test before; with six entries later than with four
    assert -0.1 < slopes[-1] - TrapezoidalLeaping.order < 0.25


@pytest.mark.parametrize("kernel", KERNELS)
def test_where_probabilities_are_cut_the_trapezoidal_method_is_still_better_than_the_chain(kernel: str) -> None:
    exact = Enumerated(smooth_mixture(kernel, 4, 3.0))
    chain, trapezoidal = _errors(exact, [Ancestral(16), TrapezoidalLeaping(8)])
    assert trapezoidal < 0.9 * chain


def test_two_steps_of_the_trapezoidal_method_at_one_entry_are_exact() -> None:
    exact = Enumerated(smooth_mixture("uniform", 1, 2.0))
    torch.testing.assert_close(exact.last_law(TrapezoidalLeaping(2)), exact.law(), rtol=0, atol=1e-14)


def test_one_step_of_the_trapezoidal_method_is_exact_for_two_masked_entries() -> None:
    exact = Enumerated(smooth_mixture("absorbing", 2, 0.5))
    assert _errors(exact, [Ancestral(1)])[0] > 1e-3
    assert _errors(exact, [TrapezoidalLeaping(1), TrapezoidalLeaping(1, theta=0.3)]) == pytest.approx(
        [0.0, 0.0], abs=1e-14
    )


def _corrected(exact: Enumerated, s: float, length: float) -> Tensor:
    return exact.after(lambda x, noise: correct(exact.predict, x, s, length, noise), exact.law(s))


@pytest.mark.parametrize("s", [0.02, 0.8])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_correction_keeps_the_distribution_up_to_second_order_in_its_length(kernel: str, s: float) -> None:
    exact = Enumerated(smooth_mixture(kernel, 4, 1.0))
    errors = [total_variation(_corrected(exact, s, length), exact.law(s)) for length in (0.04, 0.02, 0.01)]
    assert _slopes(errors) == pytest.approx([2.0, 2.0], abs=0.1)


def test_many_corrections_lead_from_noise_to_the_distribution() -> None:
    exact, s = Enumerated(smooth_mixture("binomial", 4, 1.0)), 0.3
    law = exact.prior()
    before = total_variation(law, exact.law(s))
    for _ in range(400):
        law = exact.after(lambda x, noise: correct(exact.predict, x, s, 0.05, noise), law)
    assert total_variation(law, exact.law(s)) < 0.02 * before


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_predictor_corrector_has_order_one(kernel: str) -> None:
    exact = Enumerated(smooth_mixture(kernel, 4, 1.0))
    slopes = _slopes(_errors(exact, [DiscretePredictorCorrector(steps) for steps in (8, 16, 32)]))
    assert slopes == pytest.approx([DiscretePredictorCorrector.order] * 2, abs=0.1)


def test_without_corrections_it_is_the_chain() -> None:
    exact, grid = Enumerated(smooth_mixture("uniform", 3, 1.0)), ThenZero(UniformAngle())
    chain = exact.last_law(Ancestral(4, grid))
    assert torch.equal(exact.last_law(DiscretePredictorCorrector(4, grid, corrections=0)), chain)


def test_noise_and_data_without_dependence_are_sampled_without_error_in_one_step() -> None:
    exact = Enumerated(smooth_mixture("columns", 4, 0.0))
    assert isinstance(exact.model.sde, DiscreteProcess)
    assert _errors(exact, [Ancestral(1), TauLeaping(1), TrapezoidalLeaping(1)]) == pytest.approx([0.0] * 3, abs=1e-14)
