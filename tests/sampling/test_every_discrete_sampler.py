"""Contract of every sampler of categories: event shapes, types, batches, seeds, calls, observers, faults, and its text.

The models are exact: events of any shape are those of their flat form.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from discrete_laws import smooth_mixture
from sampler_cases import every_discrete
from torch import Tensor, nn

from scoresde import sampling
from scoresde.analytic import CategoricalMixture, DiscreteTable, Gaussian
from scoresde.cli.parsing import parse
from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet
from scoresde.process import Categorical, ou, schedule
from scoresde.process.categorical import Binomial
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.process.prediction import Prediction
from scoresde.sampling import (
    DDPM,
    Ancestral,
    Chain,
    DiscretePredictorCorrector,
    DiscreteSampler,
    ExactSimulation,
    ExplicitGrid,
    Progress,
    Sampler,
    TauLeaping,
    TrapezoidalLeaping,
    sample,
)
from scoresde.storage import spec

D = torch.float64
KERNELS = ["uniform", "absorbing", "binomial", "columns"]
STEPS = every_discrete()
ALL = [*STEPS, pytest.param(ExactSimulation(), id="ExactSimulation()")]
PROCESSES = [Categorical(3, tau_min=1e-2), Categorical(3, "absorbing"), Binomial(tau_min=1e-2)]


def _mixture(shape: tuple[int, ...], process: DiscreteProcess, dtype: torch.dtype = D) -> CategoricalMixture:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 12, process.most_classes, generator=generator, dtype=D).to(dtype)
    probs = logits[:, : torch.Size(shape).numel()].softmax(-1)
    return CategoricalMixture(torch.ones(3), probs.reshape(3, *shape, -1), process)


MODELS = {kernel: smooth_mixture(kernel, 4, 2.0, tau_min=1e-2) for kernel in KERNELS}


# --- events and types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("sampler", ALL)
def test_an_event_of_any_rank_is_sampled_as_its_flat_self_in_every_type(
    sampler: Sampler, process: DiscreteProcess
) -> None:
    def drawn(shape: tuple[int, ...], dtype: torch.dtype = D) -> Tensor:
        out = sample(_mixture(shape, process, dtype), 3, sampler, seeds=[3, 1, 5]).x
        assert (out.shape, out.dtype) == ((3, *shape), dtype)
        assert bool(((out >= 0) & (out < process.most_classes) & (out == out.round())).all())
        return out.reshape(3, -1)

    assert torch.equal(drawn(()), drawn((1,)))
    flat = drawn((12,))
    for shape in ((3, 4), (3, 2, 2), (1, 3, 2, 2)):  # a series, an image, a volume
        assert torch.equal(drawn(shape), flat)
    assert torch.equal(drawn((3, 2, 2), torch.float32).to(D), flat)


@pytest.mark.parametrize("sampler", ALL)
def test_columns_have_codes_of_their_own_numbers_of_classes(sampler: Sampler) -> None:
    drawn = sample(MODELS["columns"], 200, sampler, generator=torch.Generator().manual_seed(1)).x
    assert drawn.amax(0).tolist() == [2, 1, 2, 1]


@pytest.mark.parametrize("sampler", ALL)
def test_a_half_precision_network_is_sampled_in_single_precision(sampler: Sampler) -> None:
    process = Categorical(3, tau_min=1e-2)
    net = CategoricalNet(MLP(CategoricalNet.inner_shape((4,), 3), width=8, depth=1), (4,), 3)
    assert sample(ScoreModel(net.bfloat16(), process), 3, sampler, seeds=range(3)).x.dtype == torch.float32


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", ALL)
def test_batches_of_zero_and_of_one_sample_keep_their_shape(sampler: Sampler, kernel: str, n: int) -> None:
    assert sample(MODELS[kernel], n, sampler, seeds=range(n)).x.shape == (n, 4)


# --- batches and seeds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", ALL)
def test_a_sample_depends_on_its_seed_and_not_on_its_batch(sampler: Sampler, kernel: str) -> None:
    seeds = list(range(20, 32))

    def drawn(chosen: list[int]) -> Tensor:
        return sample(MODELS[kernel], len(chosen), sampler, seeds=chosen).x

    whole, permutation = drawn(seeds), torch.randperm(12).tolist()
    assert torch.equal(torch.cat([drawn(seeds[:1]), drawn(seeds[1:5]), drawn(seeds[5:])]), whole)
    assert torch.equal(drawn([seeds[i] for i in permutation]), whole[permutation])
    assert len(whole.unique(dim=0)) > 3


@pytest.mark.parametrize("sampler", ALL)
def test_a_run_leaves_no_state_on_the_sampler_and_the_global_random_state_alone(sampler: Sampler) -> None:
    before = repr(sampler), sample(MODELS["uniform"], 3, sampler, seeds=[1, 2, 3]).x
    sample(MODELS["absorbing"], 5, sampler, generator=torch.Generator().manual_seed(2))
    state = torch.get_rng_state()
    assert torch.equal(sample(MODELS["uniform"], 3, sampler, seeds=[1, 2, 3]).x, before[1])
    sample(MODELS["uniform"], 3, sampler, generator=torch.Generator().manual_seed(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(sampler) == before[0]


# --- steps, calls and times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [
        (Ancestral(7), 7),
        (TauLeaping(7), 7),
        (TrapezoidalLeaping(7), 14),
        (DiscretePredictorCorrector(7, corrections=2), 19),
    ],
    ids=repr,
)
def test_network_calls_are_counted(sampler: DiscreteSampler, calls: int) -> None:
    assert sample(MODELS["uniform"], 2, sampler, seeds=[1, 2]).nfe == calls


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_a_number_of_steps_is_a_positive_integer(steps: Any) -> None:
    for cls in (Ancestral, TauLeaping, TrapezoidalLeaping, DiscretePredictorCorrector):
        with pytest.raises(ValueError, match="steps must be"):
            cls(steps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrapezoidalLeaping(theta=1.0), r"theta must lie in \(0, 1\), got 1.0"),
        (lambda: DiscretePredictorCorrector(corrections=-1), "corrections must be"),
        (lambda: DiscretePredictorCorrector(size=0.0), "size must be"),
    ],
)
def test_settings_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", STEPS)
def test_one_step_is_the_same_on_every_grid_with_its_ends(sampler: DiscreteSampler, kernel: str) -> None:
    model = MODELS[kernel]
    one = sample(model, 3, replace(sampler, steps=1, grid=Chain()), seeds=[1, 2, 3])
    explicit = replace(sampler, steps=1, grid=ExplicitGrid((model.sde.tau_max, 0.0)))
    assert torch.equal(sample(model, 3, explicit, seeds=[1, 2, 3]).x, one.x)
    assert one.tau == 0.0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", STEPS)
def test_a_grid_that_ends_above_zero_leaves_noise_which_a_denoising_removes(
    sampler: DiscreteSampler, kernel: str
) -> None:
    sampler, model = (
        replace(sampler, steps=2, grid=ExplicitGrid((MODELS[kernel].sde.tau_max, 1.0, 0.5))),
        MODELS[kernel],
    )
    noisy = sample(model, 40, sampler, seeds=range(40))
    assert noisy.tau == 0.5
    denoised = sample(model, 40, sampler, seeds=range(40), denoise=True)
    assert (denoised.tau, denoised.nfe) == (0.0, noisy.nfe + 1)
    assert torch.equal(denoised.x, model(noisy.x, 0.5).x0)
    assert bool((noisy.x == 3).any()) == (kernel == "absorbing")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", ALL)
def test_a_given_state_is_continued_from_its_time(sampler: Sampler, kernel: str) -> None:
    model = MODELS[kernel]
    init = model.sample(50, tau=0.05, generator=torch.Generator().manual_seed(1))
    drawn = sample(model, 50, sampler, seeds=range(50), init=init, start=0.05, trajectory=True)
    assert drawn.taus is not None
    assert drawn.trajectory is not None
    assert torch.equal(drawn.trajectory[0], init)
    assert drawn.taus[0] == 0.05
    same = (drawn.x == init).double().mean()  # 90 % of the entries are those of the data
    assert float(same) > 0.7


@pytest.mark.parametrize("sampler", [p for p in ALL if not isinstance(p.values[0], DiscretePredictorCorrector)])
def test_an_entry_that_is_not_masked_stays(sampler: Sampler) -> None:
    model, init = MODELS["absorbing"], torch.tensor([[3.0, 1, 3, 3], [0, 2, 1, 0], [3, 3, 3, 2]], dtype=D)
    drawn = sample(model, 3, sampler, seeds=[1, 2, 3], init=init, start=1.0, denoise=True).x
    assert torch.equal(drawn[init < 3], init[init < 3])
    assert bool((drawn < 3).all())


# --- observers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", ALL)
def test_a_trajectory_leads_from_the_start_to_the_samples_with_a_preview_per_step(
    sampler: Sampler, kernel: str
) -> None:
    model, reports = MODELS[kernel], []
    settings: dict[str, Any] = {"seeds": [1, 2, 3]}
    drawn = sample(model, 3, sampler, trajectory=True, previews=True, observe=reports.append, **settings)
    assert drawn.taus is not None
    assert drawn.trajectory is not None
    assert drawn.previews is not None
    assert len(drawn.trajectory) == len(drawn.taus) == len(drawn.previews) + 1 == len(reports) + 1
    assert list(drawn.taus) == sorted(drawn.taus, reverse=True)
    assert (drawn.taus[0], drawn.taus[-1]) == (model.sde.tau_max, drawn.tau)
    assert torch.equal(drawn.trajectory[-1], drawn.x)
    assert torch.equal(drawn.x, sample(model, 3, sampler, **settings).x)
    assert bool((drawn.previews < model.sde.most_classes).all())
    assert (reports[-1].done, reports[-1].tau) == (reports[-1].steps, drawn.tau)
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    if isinstance(sampler, DiscreteSampler):
        assert drawn.taus == tuple(sampler.grid.times(model.sde, sampler.steps))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", ALL)
def test_a_true_return_value_of_an_observer_stops_sampling_at_that_time(sampler: Sampler, kernel: str) -> None:
    reports: list[Progress] = []

    def until_half(progress: Progress) -> bool:
        reports.append(progress)
        return len(reports) == 2

    drawn = sample(MODELS[kernel], 3, sampler, seeds=[1, 2, 3], observe=until_half)
    assert len(reports) == 2
    assert drawn.tau == reports[-1].tau > 0
    assert torch.equal(drawn.x, reports[-1].x)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ALL)
def test_a_gaussian_model_is_refused(sampler: Sampler) -> None:
    message = rf"{type(sampler).__name__} reverses a process of the class DiscreteProcess, got .*take Adams\(\) or DDPM"
    with pytest.raises(TypeError, match=message):
        sample(Gaussian(torch.zeros(2), 1.0), 2, sampler)


def test_a_gaussian_sampler_is_refused_for_categories() -> None:
    message = r"DDPM reverses a process of the class SDE, got .*take Ancestral\(\) or ExactSimulation\(\)"
    with pytest.raises(TypeError, match=message):
        sample(MODELS["uniform"], 2, DDPM(3))


class _Failing(nn.Module):
    """NaN for chosen samples near the data."""

    event_shape = (4,)

    def forward(self, x: Tensor, log_snr: Tensor, bad: Tensor | None = None) -> Tensor:
        out = torch.zeros(*x.shape, 3)
        if bad is None:
            return out
        return torch.where((bad & (log_snr > -1.0))[:, None, None], torch.nan, out)


@pytest.mark.parametrize("process", [Categorical(3, tau_min=1e-2), Categorical(3, "absorbing")], ids=repr)
@pytest.mark.parametrize("sampler", ALL)
def test_nan_from_the_network_is_traced_to_its_time_and_samples(sampler: Sampler, process: DiscreteProcess) -> None:
    model, bad = ScoreModel(_Failing(), process), torch.tensor([False, True, False, True, False])
    assert sample(model, 5, sampler, seeds=range(5)).x.isfinite().all()
    message = r"call \d+, at tau = ([\d.e-]+), gave NaN or infinity for samples \[(1, 3|1|3)\] of a batch of 5"
    with pytest.raises(RuntimeError, match=message) as caught:
        sample(model, 5, sampler, seeds=range(5), bad=bad)
    match = re.search(message, str(caught.value))
    assert match is not None
    assert ou.log_snr(float(match[1])) > -1.0


@pytest.mark.parametrize("sampler", [Ancestral(4), TrapezoidalLeaping(4), ExactSimulation()], ids=repr)
def test_a_network_is_called_with_one_time_per_sample_within_the_clock(sampler: Sampler) -> None:
    process, seen = Categorical(3, tau_min=0.05), []

    class Watched(CategoricalMixture):
        def predict(self, x: Tensor, tau: Any, **cond: object) -> DiscretePrediction:
            seen.append(tau)
            return super().predict(x, tau, **cond)

    model = Watched(torch.ones(1), torch.full((1, 4, 3), 1 / 3), process)
    assert isinstance(model(torch.zeros(1, 4), 1.0), Prediction)
    seen.clear()
    sample(model, 3, sampler, seeds=range(3))
    times = [torch.as_tensor(tau, dtype=D).expand(3) for tau in seen]
    assert all(bool((t > 0).all()) for t in times)
    if isinstance(sampler, ExactSimulation):
        assert bool(torch.stack(times).amin() >= 0.05)
        assert bool((torch.stack(times).diff(dim=0) <= 0).all())


@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
@pytest.mark.parametrize("sampler", STEPS)
def test_states_that_an_exact_model_excludes_are_no_failure(sampler: DiscreteSampler, kernel: str) -> None:
    table = DiscreteTable(torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]]), process=Categorical(3, kernel))
    drawn = sample(table, 200, replace(sampler, steps=3), generator=torch.Generator().manual_seed(1)).x
    assert drawn.isfinite().all()
    assert float(table.log_prob(drawn).isfinite().double().mean()) < 1.0  # three steps do draw excluded states


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ALL)
def test_a_sampler_is_written_as_text_and_read_back(sampler: Sampler) -> None:
    text = spec.to_text(sampler)
    assert spec.parse(text, spec.known_classes(sampling, schedule), kind=Sampler) == sampler
    assert parse(text, Sampler) == sampler  # as the command line reads it
    assert parse(type(sampler).__name__, Sampler) == type(sampler)()
