"""Contract of every step sampler: event shapes, views, types, batches, numbers of steps, and its text form.

The models are exact: elements, samples and views are independent of each other in closed form.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from linear_gaussian import GaussianData, run_sampler
from sampler_cases import every
from subclasses import concrete
from torch import Tensor

from scoresde import sampling
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
    Sampler,
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
@pytest.mark.parametrize("sampler", every())
def test_an_event_of_any_rank_is_sampled_as_its_flat_self_in_every_view_and_type(
    sampler: StepSampler, view: type[SDE]
) -> None:
    sde = view()

    def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        out = sample(_gaussian(shape, sde, dtype), 2, sampler, seeds=[3, 1], start=_start(sde)).x
        assert (out.shape, out.dtype) == ((2, *shape), dtype)
        return out.reshape(2, -1)

    torch.testing.assert_close(drawn((), D), drawn((1,), D), rtol=1e-12, atol=1e-12)
    flat, single = drawn((12,), D), drawn((12,), torch.float32)
    for shape in ((3, 4), (3, 2, 2), (1, 3, 2, 2)):  # a series, an image, a volume
        torch.testing.assert_close(drawn(shape, D), flat, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(drawn((3, 2, 2), torch.float32), single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", every())
def test_elements_are_sampled_independently_of_each_other(sampler: StepSampler) -> None:
    if isinstance(sampler, PredictorCorrector):
        sampler = replace(sampler, corrections=0)  # the size of a correction depends on the whole event
    sde = VE()
    model, noise = _gaussian((3, 4), sde), torch.randn(2, 3, 4, dtype=D, generator=torch.Generator().manual_seed(1))

    class Columns(Noise):
        """The noise of some columns, the same for the whole event and for a part of it."""

        def __init__(self, columns: slice) -> None:
            super().__init__(torch.Generator().manual_seed(2))
            self.columns = columns

        def normal(self, like: Tensor) -> Tensor:
            return super().normal(noise)[..., self.columns]

    whole, _ = sampler.run(noise, SamplingContext(model.predict, sde, Columns(slice(None)), _start(sde)))
    variances = model.variances.reshape(3, 4)
    part = Gaussian(model.means.reshape(3, 4)[:, 1:3], variances[:, 1:3].reshape(-1), sde)
    end, _ = sampler.run(noise[..., 1:3], SamplingContext(part.predict, sde, Columns(slice(1, 3)), _start(sde)))
    torch.testing.assert_close(end, whole[..., 1:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("view", VIEWS[1:])
@pytest.mark.parametrize("sampler", every(even=True))
def test_samples_of_a_view_are_those_of_vp_times_its_scale(sampler: StepSampler, view: type[SDE]) -> None:
    vp, other = (_gaussian((2, 3), cls(tau_min=1e-3)) for cls in (VPSDE, view))
    x = torch.randn(4, 2, 3, dtype=D)
    ends = [
        sample(m, 4, sampler, seeds=range(4), start=3.0, init=m.sde.scale(3.0) * x).x / m.sde.scale(1e-3)
        for m in (vp, other)
    ]
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-9)


@pytest.mark.usefixtures("any_magnitude")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("sampler", every())
def test_samples_from_the_prior_of_a_view_have_the_distribution_of_the_exact_recursion(
    sampler: StepSampler, view: type[SDE], steps: int
) -> None:
    sampler, sde, data, n = replace(sampler, steps=steps), view(), GaussianData(0.7, 0.5), 4000
    if isinstance(sampler, PredictorCorrector):
        sampler = replace(sampler, corrections=0)  # corrections are not linear in x: see test_langevin.py
    model = Gaussian(torch.full((n,), 0.7, dtype=D), 0.25, sde)
    sampler = sampler.for_model(model)  # the grid depends on the dimension
    taus = sampler.grid.times(sde, steps, _start(sde))
    drawn = sample(model, 2, sampler, seeds=[1, 2], start=taus[0], trajectory=True)
    assert drawn.trajectory is not None
    assert drawn.taus == tuple(taus)
    assert len(set(taus)) == steps + 1
    end = run_sampler(sampler, sde, data, taus)
    first, last = drawn.trajectory[0] / float(sde.scale(taus[0])), drawn.x / float(sde.scale(taus[-1]))
    noise = last - end.bias - end.gain * first
    variance = end.variance - (end.gain * data.moments(taus[0])[1]) ** 2
    error, digits = math.sqrt(1 / noise.numel()), 1e-10 * max(1.0, abs(end.gain))
    if end.draws == 0:
        assert float(noise.abs().max()) < digits
        return
    assert float(noise.mean()) == pytest.approx(0.0, abs=4.5 * error * math.sqrt(variance) + digits)
    assert float(noise.var()) == pytest.approx(variance, rel=4.5 * math.sqrt(2) * error, abs=digits)


class _Shared(Noise):
    """The same numbers in every type."""

    def normal(self, like: Tensor) -> Tensor:
        return super().normal(like.to(D)).to(like.dtype)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("sampler", every(12))
def test_single_and_double_precision_agree(sampler: StepSampler, view: type[SDE]) -> None:
    sde, x = view(tau_min=1e-3), torch.randn(3, 2, 3, dtype=D)
    ends = []
    for dtype in (torch.float32, D):
        context = SamplingContext(_gaussian((2, 3), sde, dtype).predict, sde, _Shared(seeds=[5, 2, 9]), 3.0)
        end, _ = sampler.run(x.to(dtype), context)
        assert end.dtype == dtype
        ends.append(end.to(D))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", every(even=True))
def test_a_start_without_signal_is_refused_or_is_the_limit_of_late_starts(sampler: StepSampler) -> None:
    model = Gaussian(torch.tensor([0.7, -1.3], dtype=D), 0.25, Flow())
    settings: dict[str, Any] = {"seeds": [1, 2, 3], "init": torch.randn(3, 2, dtype=D)}
    interpolation = getattr(sampler, "interpolation", None)  # log-SNR and noise estimates do not exist there
    refused = isinstance(sampler, (EulerMaruyama, ExponentialSDE, AnnealedLangevin))
    refused |= interpolation is not None and (interpolation.prediction == "eps" or interpolation.variable != "angle")
    if refused:
        with pytest.raises(ValueError, match=r"got tau = inf; use .*(clipped clock|start=)"):
            sample(model, 3, sampler, **settings)
        return
    late = sample(model, 3, sampler, start=34.0, **settings).x  # alpha = 2e-15
    torch.testing.assert_close(sample(model, 3, sampler, **settings).x, late, rtol=0, atol=1e-9)


# --- batches ----------------------------------------------------------------------------------------------------------


def _sources_of_noise() -> Iterator[Any]:
    """Every sampler with independent noise and, if it is stochastic, with noise from one Brownian path."""
    for param in every():
        (sampler,) = param.values
        yield pytest.param(sampler, False, id=f"{param.id}-independent")
        if sampler.stochastic:
            yield pytest.param(sampler, True, id=f"{param.id}-coupled")


@pytest.mark.parametrize(("sampler", "coupled"), list(_sources_of_noise()))
def test_a_sample_depends_on_its_seed_and_not_on_its_batch(sampler: StepSampler, coupled: bool) -> None:
    seeds = [5, 3, 11, 8, 2, 40]

    def drawn(chosen: list[int]) -> Tensor:
        return sample(RING, len(chosen), sampler, seeds=chosen, coupled=coupled).x

    whole, permutation = drawn(seeds), [4, 0, 5, 2, 1, 3]
    split = torch.cat([drawn(seeds[:1]), drawn(seeds[1:4]), drawn(seeds[4:])])
    torch.testing.assert_close(split, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(drawn([seeds[i] for i in permutation]), whole[permutation], rtol=1e-10, atol=1e-12)
    assert len(whole.unique(dim=0)) == 6


@pytest.mark.parametrize("sampler", every())
def test_a_run_leaves_no_state_on_the_sampler(sampler: StepSampler) -> None:
    settings: dict[str, Any] = {"seeds": [1, 2]}
    before = repr(sampler), sample(RING, 2, sampler, **settings).x
    sample(_gaussian((4,), VE(tau_min=1e-2)), 3, sampler)
    assert torch.equal(sample(RING, 2, sampler, **settings).x, before[1])
    assert repr(sampler) == before[0]


# --- steps and calls --------------------------------------------------------------------------------------------------


@pytest.fixture
def any_magnitude(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admits diverged samples: one step of some methods is far off, as the exact recursion says."""
    monkeypatch.setattr("scoresde.sampling.divergence.MagnitudeLimit.check", lambda limit, x, sampler: True)


@pytest.mark.usefixtures("any_magnitude")
@pytest.mark.parametrize("sampler", every(even=True))
def test_network_calls_are_those_of_all_steps_and_of_the_start(sampler: StepSampler) -> None:
    one = sample(RING, 1, replace(sampler, steps=1), seeds=[1]).nfe
    for steps in (8, 17):
        longer = replace(sampler, steps=steps)
        assert sample(RING, 1, longer, seeds=[1]).nfe == steps * one + getattr(longer, "start_calls", 0)


@pytest.mark.parametrize("sampler", every(even=True))
def test_one_step_is_the_same_on_every_grid_with_its_ends(sampler: StepSampler) -> None:
    sde = RING.sde
    one = sample(RING, 3, replace(sampler, steps=1), seeds=[1, 2, 3])
    explicit = ExplicitGrid((sde.tau_max, sde.tau_min))
    assert torch.equal(sample(RING, 3, replace(sampler, steps=1, grid=explicit), seeds=[1, 2, 3]).x, one.x)
    assert one.tau == sde.tau_min


@pytest.mark.parametrize("sampler", every(12))
def test_on_the_chain_grid_every_sampler_ends_at_zero_without_noise_in_its_last_step(sampler: StepSampler) -> None:
    model, sampler = _gaussian((3,), VPSDE(tau_min=1e-3)), replace(sampler, grid=Chain())
    if isinstance(sampler, RungeKutta):
        with pytest.raises(ValueError, match=r"a grid must end above 0 where '(rk4|heun)' evaluates the end of a step"):
            sample(model, 2, sampler, seeds=[1, 2])
        return
    drawn = sample(model, 2, sampler, seeds=[1, 2], trajectory=True)
    assert drawn.taus == tuple(Chain().times(model.sde, 12))
    assert drawn.tau == 0.0
    draws, draws_after_step = [0], [0]

    class Counted(Noise):
        def normal(self, like: Tensor) -> Tensor:
            draws[0] += 1
            return super().normal(like)

    def observe(done: int, steps: int, tau: float, x: Tensor) -> None:
        draws_after_step.append(draws[0])

    x = torch.ones(2, 3, dtype=D)
    sampler.run(x, SamplingContext(model.predict, model.sde, Counted(), model.sde.tau_max, observe))
    assert draws_after_step[-1] == draws_after_step[-2]
    assert (draws_after_step[-1] > 0) == sampler.stochastic


# --- fields and text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [cls for cls in concrete(Sampler) if "steps" in inspect.signature(cls).parameters])
def test_the_first_argument_of_a_sampler_is_the_number_of_its_steps(cls: Any) -> None:
    assert cls(7).steps == 7


@pytest.mark.parametrize("sampler", every())
def test_a_sampler_is_written_as_text_and_read_back(sampler: StepSampler) -> None:
    text = spec.to_text(sampler)
    assert spec.parse(text, spec.known_classes(sampling, schedule), kind=StepSampler) == sampler
    assert parse(text, StepSampler) == sampler  # as the command line reads it
    assert parse(type(sampler).__name__, StepSampler) == type(sampler)()
