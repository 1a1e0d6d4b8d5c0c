"""What must hold for every step sampler, whoever wrote it? Any event, view, type, batch and number of steps; its text.

On exact models, where elements, samples and views are independent of each other in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from linear_gaussian import GaussianData, walk
from sampler_cases import every
from torch import Tensor

from scoresde import sampling as sampler
from scoresde._core.noise import Noise
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.cli.parsing import parse
from scoresde.process import schedule
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP
from scoresde.sampling import (
    AnnealedLangevin,
    Chain,
    EulerMaruyama,
    ExplicitGrid,
    ExponentialSDE,
    PredictorCorrector,
    RungeKutta,
    SamplingContext,
    StepSampler,
    sample,
)
from scoresde.storage import spec

D = torch.float64
VIEWS = [pytest.param(view, id=view.__name__) for view in (VPSDE, VE, SubVP, Flow)]
RING = GaussianMixture.ring()


def _start(sde: SDE) -> float:
    """The end of the clock, or where a trace of signal is left if the clock has none there."""
    return min(sde.tau_max, 5.0)


def _gaussian(shape: tuple[int, ...], sde: SDE, dtype: torch.dtype = D) -> Gaussian:
    size = math.prod(shape)
    mean, var = torch.linspace(-1.0, 1.0, size, dtype=dtype), torch.linspace(0.1, 1.5, size, dtype=dtype)
    return Gaussian(mean.reshape(shape), var, sde)


# --- events, views, types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("way", every())
def test_an_event_of_any_rank_is_walked_as_its_flat_self_in_every_view_and_type(
    way: StepSampler, view: type[SDE]
) -> None:
    sde = view()

    def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        out = sample(_gaussian(shape, sde, dtype), 2, way, seeds=[3, 1], start=_start(sde)).x
        assert (out.shape, out.dtype) == ((2, *shape), dtype)
        return out.reshape(2, -1)

    torch.testing.assert_close(drawn((), D), drawn((1,), D), rtol=1e-12, atol=1e-12)
    flat, single = drawn((12,), D), drawn((12,), torch.float32)
    for shape in ((3, 4), (3, 2, 2), (1, 3, 2, 2)):  # a series, an image, a volume
        torch.testing.assert_close(drawn(shape, D), flat, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(drawn((3, 2, 2), torch.float32), single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", every())
def test_elements_are_walked_each_for_itself(way: StepSampler) -> None:
    if isinstance(way, PredictorCorrector):
        way = replace(way, corrections=0)  # they are sized by the whole event
    sde = VE()
    model, noise = _gaussian((3, 4), sde), torch.randn(2, 3, 4, dtype=D, generator=torch.Generator().manual_seed(1))

    class Columns(Noise):
        """The noise of the elements looked at, the same for the whole and for a part."""

        def __init__(self, columns: slice) -> None:
            super().__init__(torch.Generator().manual_seed(2))
            self.columns = columns

        def normal(self, like: Tensor) -> Tensor:
            return super().normal(noise)[..., self.columns]

    whole, _ = way.run(noise, SamplingContext(model.predict, sde, Columns(slice(None)), _start(sde)))
    rows = model.variances.reshape(3, 4)
    part = Gaussian(model.means.reshape(3, 4)[:, 1:3], rows[:, 1:3].reshape(-1), sde)
    end, _ = way.run(noise[..., 1:3], SamplingContext(part.predict, sde, Columns(slice(1, 3)), _start(sde)))
    torch.testing.assert_close(end, whole[..., 1:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("view", VIEWS[1:])
@pytest.mark.parametrize("way", every(even=True))
def test_a_view_is_the_same_walk_seen_through_its_scale(way: StepSampler, view: type[SDE]) -> None:
    plain, seen = (_gaussian((2, 3), kind(tau_min=1e-3)) for kind in (VPSDE, view))
    x = torch.randn(4, 2, 3, dtype=D)
    ends = [
        sample(m, 4, way, seeds=range(4), start=3.0, init=m.sde.scale(3.0) * x).x / m.sde.scale(1e-3)
        for m in (plain, seen)
    ]
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("way", every())
def test_from_the_view_s_own_prior_samples_have_the_exact_recursion_s_law(
    way: StepSampler, view: type[SDE], steps: int
) -> None:
    way, sde, data, n = replace(way, steps=steps), view(), GaussianData(0.7, 0.5), 4000
    if isinstance(way, PredictorCorrector):
        way = replace(way, corrections=0)  # its corrections are not linear in x: tests/test_langevin.py
    model = Gaussian(torch.full((n,), 0.7, dtype=D), 0.25, sde)
    taus = way.grid.times(sde, steps, _start(sde))
    drawn = sample(model, 2, way, seeds=[1, 2], start=taus[0], trajectory=True)
    assert drawn.trajectory is not None
    assert drawn.taus == tuple(taus)
    assert len(set(taus)) == steps + 1
    end = walk(way, sde, data, taus)
    first, last = drawn.trajectory[0] / float(sde.scale(taus[0])), drawn.x / float(sde.scale(taus[-1]))
    rest = last - end.bias - end.gain * first
    variance = end.variance - (end.gain * data.law(taus[0])[1]) ** 2
    error, digits = math.sqrt(1 / rest.numel()), 1e-10 * max(1.0, abs(end.gain))
    if end.draws == 0:
        assert float(rest.abs().max()) < digits
        return
    assert float(rest.mean()) == pytest.approx(0.0, abs=4.5 * error * math.sqrt(variance) + digits)
    assert float(rest.var()) == pytest.approx(variance, rel=4.5 * math.sqrt(2) * error, abs=digits)


class _Shared(Noise):
    """The same numbers in every type."""

    def normal(self, like: Tensor) -> Tensor:
        return super().normal(like.to(D)).to(like.dtype)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("way", every(12))
def test_single_and_double_precision_agree(way: StepSampler, view: type[SDE]) -> None:
    sde, x = view(tau_min=1e-3), torch.randn(3, 2, 3, dtype=D)
    ends = []
    for dtype in (torch.float32, D):
        path = SamplingContext(_gaussian((2, 3), sde, dtype).predict, sde, _Shared(seeds=[5, 2, 9]), 3.0)
        end, _ = way.run(x.to(dtype), path)
        assert end.dtype == dtype
        ends.append(end.to(D))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", every(even=True))
def test_a_start_without_signal_is_refused_or_the_limit_of_later_and_later_ones(way: StepSampler) -> None:
    model = Gaussian(torch.tensor([0.7, -1.3], dtype=D), 0.25, Flow())
    settings: dict[str, Any] = {"seeds": [1, 2, 3], "init": torch.randn(3, 2, dtype=D)}
    how = getattr(way, "how", None)  # what works in log-SNR or on noise estimates cannot begin there
    refused = isinstance(way, (EulerMaruyama, ExponentialSDE, AnnealedLangevin))
    refused |= how is not None and (how.prediction == "eps" or how.variable != "angle")
    if refused:
        with pytest.raises(ValueError, match=r"got tau = inf; use .*(clipped clock|start=)"):
            sample(model, 3, way, **settings)
        return
    late = sample(model, 3, way, start=34.0, **settings).x  # alpha = 2e-15
    torch.testing.assert_close(sample(model, 3, way, **settings).x, late, rtol=0, atol=1e-9)


# --- batches ----------------------------------------------------------------------------------------------------------


def _ways_of_drawing() -> Iterator[Any]:
    """Every sampler with fresh noise, and on one Brownian path where it draws any."""
    for param in every():
        (way,) = param.values
        yield pytest.param(way, False, id=f"{param.id}-fresh")
        if way.stochastic:
            yield pytest.param(way, True, id=f"{param.id}-coupled")


@pytest.mark.parametrize(("way", "coupled"), list(_ways_of_drawing()))
def test_a_sample_depends_on_its_seed_and_not_on_its_batch(way: StepSampler, coupled: bool) -> None:
    seeds = [5, 3, 11, 8, 2, 40]

    def drawn(chosen: list[int]) -> Tensor:
        return sample(RING, len(chosen), way, seeds=chosen, coupled=coupled).x

    whole, turn = drawn(seeds), [4, 0, 5, 2, 1, 3]
    split = torch.cat([drawn(seeds[:1]), drawn(seeds[1:4]), drawn(seeds[4:])])
    torch.testing.assert_close(split, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(drawn([seeds[i] for i in turn]), whole[turn], rtol=1e-10, atol=1e-12)
    assert len(whole.unique(dim=0)) == 6


@pytest.mark.parametrize("way", every())
def test_a_walk_leaves_nothing_behind_on_the_sampler(way: StepSampler) -> None:
    settings: dict[str, Any] = {"seeds": [1, 2]}
    before = repr(way), sample(RING, 2, way, **settings).x
    sample(_gaussian((4,), VE(tau_min=1e-2)), 3, way)
    assert torch.equal(sample(RING, 2, way, **settings).x, before[1])
    assert repr(way) == before[0]


# --- steps and calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", every(even=True))
def test_network_calls_are_those_of_a_step_times_the_steps_and_those_of_the_start(way: StepSampler) -> None:
    one = sample(RING, 1, replace(way, steps=1), seeds=[1]).nfe
    for steps in (8, 17):
        sampler = replace(way, steps=steps)
        assert sample(RING, 1, sampler, seeds=[1]).nfe == steps * one + getattr(sampler, "start_calls", 0)


@pytest.mark.parametrize("way", every(even=True))
def test_one_step_is_the_same_whatever_the_grid_calls_it(way: StepSampler) -> None:
    sde = RING.sde
    one = sample(RING, 3, replace(way, steps=1), seeds=[1, 2, 3])
    own = ExplicitGrid((sde.tau_max, sde.tau_min))
    assert torch.equal(sample(RING, 3, replace(way, steps=1, grid=own), seeds=[1, 2, 3]).x, one.x)
    assert one.tau == sde.tau_min


@pytest.mark.parametrize("way", every(12))
def test_on_the_chain_s_grid_every_method_ends_at_zero_without_noise_in_its_last_step(way: StepSampler) -> None:
    model, way = _gaussian((3,), VPSDE(tau_min=1e-3)), replace(way, grid=Chain())
    if isinstance(way, RungeKutta):
        with pytest.raises(ValueError, match=r"a grid must end above 0 where '(rk4|heun)' looks at the end of a step"):
            sample(model, 2, way, seeds=[1, 2])
        return
    drawn = sample(model, 2, way, seeds=[1, 2], trajectory=True)
    assert drawn.taus == tuple(Chain().times(model.sde, 12))
    assert drawn.tau == 0.0
    draws, seen = [0], [0]

    class Counted(Noise):
        def normal(self, like: Tensor) -> Tensor:
            draws[0] += 1
            return super().normal(like)

    def observe(done: int, steps: int, tau: float, x: Tensor) -> None:
        seen.append(draws[0])

    x = torch.ones(2, 3, dtype=D)
    way.run(x, SamplingContext(model.predict, model.sde, Counted(), model.sde.tau_max, observe))
    assert seen[-1] == seen[-2]
    assert (seen[-1] > 0) == way.stochastic


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", every())
def test_a_sampler_is_written_as_text_and_read_back(way: StepSampler) -> None:
    text = spec.to_text(way)
    assert spec.parse(text, spec.known_classes(sampler, schedule), kind=StepSampler) == way
    assert parse(text, StepSampler) == way  # as the command line reads it
    assert parse(type(way).__name__, StepSampler) == type(way)()
