"""Time grids: their times against the papers, strict descent, exact ends, and refused settings."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from subclasses import concrete

import scoresde.sampling
from scoresde.analytic import Gaussian
from scoresde.process import ou
from scoresde.process.schedule import Cosine, LinearBetas
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP
from scoresde.sampling import (
    DDIM,
    Chain,
    DenseEnds,
    ExplicitGrid,
    Grid,
    Karras,
    PowerU,
    ShiftedFlow,
    Spaced,
    ThenZero,
    UniformU,
    sample,
)
from scoresde.storage import spec

VIEWS = [VPSDE(), VPSDE(LinearBetas()), VPSDE(Cosine()), VE(), SubVP(), Flow()]
MORE = [PowerU(3.0), PowerU(0.5), Karras(1.0), Spaced("linspace")]
GRIDS: list[Grid] = [*(cls() for cls in concrete(Grid) if cls is not ExplicitGrid), *MORE]


def _name(v: Any) -> str:
    return f"{type(v).__name__} on {type(v.schedule).__name__}"


@pytest.mark.parametrize("sde", VIEWS, ids=_name)
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_a_grid_falls_strictly_in_the_requested_number_of_steps_and_keeps_its_ends(grid: Grid, sde: SDE) -> None:
    needs_a_finite_start = type(grid).__name__ in ("Karras", "ThenZero", "UniformTau", "UniformLogSNR")
    for steps in [1, 2, 3, 7, 10, 50, 333, 999, 1000]:
        if steps > 1 + isinstance(grid, ThenZero) and needs_a_finite_start and sde.tau_max == math.inf:
            with pytest.raises(
                ValueError,
                match=r"must fall strictly.*a clock with a finite end|start with some signal.*a clipped clock",
            ):
                grid.times(sde, steps)
            continue
        taus = grid.times(sde, steps)
        assert len(taus) == steps + 1
        assert all(tau > s for tau, s in zip(taus, taus[1:]))
        assert taus[0] == sde.tau_max
        assert taus[-1] == (0.0 if isinstance(grid, (Chain, ShiftedFlow, Spaced, ThenZero)) else sde.tau_min)


@pytest.mark.parametrize("sde", VIEWS, ids=_name)
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_a_start_below_the_end_of_the_clock_is_kept_exactly(grid: Grid, sde: SDE) -> None:
    start = float(sde.schedule.tau(0.4))
    taus = grid.times(sde, 5, start)
    assert taus[0] == start
    assert len(set(taus)) == 6
    assert taus[-1] == grid.times(sde, 1)[-1]


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_a_grid_is_written_as_text_and_read_back(grid: Grid) -> None:
    known = spec.known_classes(scoresde.sampling, kind=Grid)
    assert spec.parse(spec.to_text(grid), known) == grid


# --- each against its paper -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_the_karras_grid_is_the_paper_s_equation_5(rho: float) -> None:
    sde, n = VPSDE(tau_min=1e-4), 18
    taus = Karras(rho).times(sde, n - 1)
    high, low = (math.sqrt(math.expm1(2 * tau)) for tau in (sde.tau_max, sde.tau_min))
    paper = [(high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)]
    ours = [ou.sigma(tau) / ou.alpha(tau) for tau in taus]
    assert ours == pytest.approx(paper, rel=1e-11)


def test_the_karras_grid_tends_to_the_uniform_log_snr_grid() -> None:
    taus = Karras(1e7).times(VPSDE(), 9)
    gaps = np.diff([ou.log_snr(tau) for tau in taus])
    assert gaps == pytest.approx(np.full(9, gaps.mean()), rel=1e-5)


def test_the_quadratic_grid_is_that_of_ddim() -> None:
    # tau_i = (c i)^2 with c such that the last is the end: sqrt(u) even, from sqrt(u_min) where the chain has 0
    sde, n = VPSDE(tau_min=1e-9), 10
    us = [float(sde.schedule.u(tau)) for tau in PowerU().times(sde, n)]
    low = math.sqrt(sde.u_min)
    assert us == pytest.approx([(low + (1 - low) * i / n) ** 2 for i in range(n, -1, -1)], rel=1e-9)
    assert us == pytest.approx([(i / n) ** 2 for i in range(n, -1, -1)], abs=3e-4)


@pytest.mark.parametrize("steps", [1, 3, 10, 13, 50, 333])
def test_an_offset_an_end_and_an_extra_timestep_are_those_of_diffusers_arrays(steps: int) -> None:
    length, points = 1000, steps + 1
    leading = (np.arange(0, steps) * (length // steps))[::-1] + 1
    extra = (np.arange(0, points) * (length // points))[::-1][:-1] + 1
    even = np.linspace(0, length - 1, points).round()[::-1][:-1]
    unrounded = np.linspace(0, length - 1, steps)[::-1] if steps > 1 else [length - 1]
    assert Spaced("leading", offset=1).timesteps(steps) == [k + 1 for k in leading]
    assert Spaced("leading", offset=1, extra=True).timesteps(steps) == [k + 1 for k in extra]
    assert Spaced("linspace", extra=True).timesteps(steps) == [k + 1 for k in even]
    assert Spaced("linspace", rounded=False).timesteps(steps) == pytest.approx([k + 1 for k in unrounded], rel=1e-14)
    sde = VPSDE(LinearBetas())
    start = float(sde.schedule.tau((leading[0] + 1) / length))
    times = Spaced("leading", offset=1, end=1).times(sde, steps, start)
    assert times[-1] == pytest.approx(sde.schedule.knots(length)[1], rel=1e-14)


def test_then_zero_has_the_noise_levels_of_edm() -> None:
    """Karras et al. 2022, eq. 5, and 0 after the last of the n levels."""
    sde, n = VE(tau_min=float(VE().schedule.tau(0.0))), 18
    low, high = 0.01 ** (1 / 7), 50.0 ** (1 / 7)
    sigmas = [(high + i / (n - 1) * (low - high)) ** 7 for i in range(n)] + [0.0]
    times = ThenZero(Karras()).times(sde, n)
    assert [math.sqrt(math.expm1(2 * tau)) for tau in times] == pytest.approx(sigmas, rel=1e-9, abs=0)
    assert ThenZero(Karras()).times(sde, 1) == [sde.tau_max, 0.0]


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_a_shifted_flow_has_the_noise_levels_of_stable_diffusion_3(shift: float) -> None:
    sde, n = Flow(), 7
    even = np.linspace(1.0, 0.01, n)
    expected = [*(shift * even / (1 + (shift - 1) * even)), 0.0]
    levels = [float(sde.schedule.u(tau)) for tau in ShiftedFlow(shift, 0.01).times(sde, n)]
    assert levels == pytest.approx(expected, rel=1e-12)
    last = [float(sde.schedule.u(tau)) for tau in ShiftedFlow(shift).times(sde, n)][-2]
    assert last == pytest.approx(shift / n / (1 + (shift - 1) / n), rel=1e-12)
    later = [float(sde.schedule.u(tau)) for tau in ShiftedFlow(shift, 0.01).times(sde, 3, float(sde.schedule.tau(0.6)))]
    first = 0.6 / (shift - (shift - 1) * 0.6)  # whose shifted level is .6
    even = np.linspace(first, 0.01, 3)
    assert later == pytest.approx([*(shift * even / (1 + (shift - 1) * even)), 0.0], rel=1e-12)


def test_power_1_is_the_uniform_u_grid() -> None:
    assert PowerU(1.0).times(VE(), 13) == pytest.approx(UniformU().times(VE(), 13), rel=1e-9)


def test_the_chain_from_a_start_below_the_end_is_even_in_u_from_there() -> None:
    # Song's clock, tau(u) = u²(20 - 0.1)/4 + 0.1 u/2, at u = .6, .4, .2
    assert Chain().times(VPSDE(), 3, 1.821) == pytest.approx([1.821, 0.816, 0.209, 0.0], rel=1e-12, abs=0)


KNOTS = {
    ("leading", 10): [901, 801, 701, 601, 501, 401, 301, 201, 101, 1],
    ("linspace", 10): [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1],
    ("trailing", 10): [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100],
}


@pytest.mark.parametrize(("spacing", "steps"), KNOTS)
def test_the_spacings_are_those_of_table_2_of_the_paper(spacing: str, steps: int) -> None:
    sde = VPSDE(LinearBetas(steps=1000))
    knots = KNOTS[spacing, steps]
    expected = [float(sde.schedule.tau(k / 1000)) for k in knots] + [0.0]
    assert Spaced(spacing).times(sde, steps, expected[0]) == expected


@pytest.mark.parametrize("steps", [2, 3, 7, 9, 13, 30, 64, 333, 500, 999, 1000])
def test_the_spacings_are_the_arrays_of_diffusers_shifted_by_one_knot(steps: int) -> None:
    sde, length = VPSDE(), 1000
    arrays = {
        "leading": np.arange(0, steps) * (length // steps),
        "linspace": np.linspace(0, length - 1, steps).round(),
        "trailing": np.round(np.arange(length, 0, -length / steps))[::-1] - 1,
    }
    for spacing, timesteps in arrays.items():
        expected = [float(sde.schedule.tau((k + 1) / length)) for k in timesteps[::-1]]
        assert Spaced(spacing, length).times(sde, steps, expected[0]) == [*expected, 0.0]


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_with_all_steps_of_the_chain_a_spacing_is_the_chain(spacing: str) -> None:
    sde = VPSDE(LinearBetas(steps=30))
    assert Spaced(spacing, 30).times(sde, 30) == pytest.approx(Chain().times(sde, 30), rel=1e-15)


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("length", [1, 2, 5, 30, 97])
def test_up_to_the_length_of_the_chain_every_number_of_steps_has_distinct_knots(spacing: str, length: int) -> None:
    sde = VPSDE()
    for steps in range(1, length + 1):
        taus = Spaced(spacing, length).times(sde, steps)
        ks = [float(sde.schedule.u(tau)) * length for tau in taus]
        assert ks == pytest.approx(np.round(ks).tolist(), abs=1e-9)
        assert len({round(k) for k in ks}) == steps + 1


# --- faults -----------------------------------------------------------------------------------------------------------


def test_more_steps_than_knots_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"steps must be at most 1000, the knots .* got 1001; use Chain\(\)"):
        Spaced().times(VPSDE(), 1001)
    with pytest.raises(ValueError, match=r"at most 400, the knots that .* has up to the start, got 401"):
        Spaced().times(VPSDE(), 401, float(VPSDE().schedule.tau(0.4)))


def test_leading_begins_below_the_end_and_the_error_states_the_start() -> None:
    sde = VPSDE()
    with pytest.raises(ValueError, match=r"a grid must begin where sampling starts.*pass start=(\S+)\.$") as caught:
        Spaced("leading").times(sde, 10)
    match = re.search(r"pass start=(\S+)\.$", str(caught.value))
    assert match is not None
    start = float(match[1])
    assert start == pytest.approx(float(sde.schedule.tau(0.901)), rel=1e-12)
    model = Gaussian(torch.zeros(2), torch.eye(2), sde)
    assert sample(model, 2, DDIM(10, Spaced("leading")), start=start, seeds=[1, 2]).x.isfinite().all()


def test_a_start_between_two_knots_is_refused_with_the_nearest_knot() -> None:
    sde = VPSDE()
    start = float(sde.schedule.tau(0.4003))
    with pytest.raises(ValueError, match=r"starts at a knot of its chain, got tau = .* at k = 400\.3; pass start="):
        Spaced().times(sde, 5, start)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("start", [0.0, -1.0, 1e-5, 6.0, math.nan, math.inf])
def test_a_start_outside_the_clock_is_refused(grid: Grid, start: float) -> None:
    with pytest.raises(ValueError, match=r"a start must lie in \(tau_min, tau_max\]"):
        grid.times(VPSDE(), 5, start)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("steps", [0, -3, 2.5, True])
def test_steps_must_be_a_positive_integer(grid: Grid, steps: Any) -> None:
    with pytest.raises(ValueError, match="steps must be a positive integer, got"):
        grid.times(VPSDE(), steps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spaced("leadign"), r"no spacing is named 'leadign'; did you mean leading\?"),
        (lambda: Spaced(length=0), "length must be a positive integer, got 0"),
        (lambda: Spaced(length=10.0), r"length must be a positive integer, got 10\.0"),  # pyright: ignore[reportArgumentType]
        (lambda: PowerU(0.0), r"power must be a positive finite number, got 0\.0"),
        (lambda: Karras(-7.0), r"rho must be a positive finite number, got -7\.0"),
        (lambda: Karras(math.inf), "rho must be a positive finite number, got inf"),
        (lambda: DenseEnds(noise_offset=0.0), r"noise_offset must be a positive finite number, got 0\.0"),
        (lambda: DenseEnds(noise_weight=-0.1), r"noise_weight must be 0 or positive and finite, got -0\.1"),
    ],
)
def test_an_invalid_setting_is_refused_when_the_grid_is_made(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("offset", [1e-4, 0.002, 0.05])
@pytest.mark.parametrize("sde", [VPSDE(), Flow()], ids=repr)
@pytest.mark.parametrize("weight", [0.115, 1.0])
def test_dense_ends_is_even_in_its_coordinate_however_sharp_the_end_of_pure_noise(
    offset: float, sde: SDE, weight: float
) -> None:
    for steps in (2, 10, 1000):
        grid = DenseEnds(3.0, weight, offset)
        phi = np.asarray([ou.angle(tau) for tau in grid.times(sde, steps)])
        coordinate = phi ** (1 / 3) - weight * np.log(0.5 * math.pi + offset - phi)
        np.testing.assert_allclose(np.diff(coordinate), (coordinate[-1] - coordinate[0]) / steps, rtol=1e-6)
