"""Tests of the virtual Brownian tree, and of the strong orders that samplers declare along one path."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from linear_gaussian import GaussianData, LinearState, fitted_order
from subclasses import concrete
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde._core.noise import Noise
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.sde import VPSDE, Flow
from scoresde.sampling import (
    DDIM,
    DDPM,
    ODE,
    EulerMaruyama,
    ExponentialSDE,
    Sampler,
    SamplingContext,
    StepSampler,
    TorchSDE,
    UniformAngle,
    VirtualBrownianTree,
    sample,
)

TIMES = [0.0, 1e-9, 3e-5, 3.1e-5, 0.7, 1.2, 1.21, 1.9999, 2.0, 2.001, 4.0, 1e3, 1e7]
PAIRS = list(zip(TIMES, TIMES[1:]))
CLOCK = VPSDE(tau_min=1e-2)
DATA = GaussianData(-1.3, 2.0)
NORMAL = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([0.25, 4.0]), CLOCK)
RING = GaussianMixture.ring()
STOCHASTIC = [
    pytest.param(s, id=repr(s).replace("steps=", ""))
    for s in [*(kind() for kind in concrete(StepSampler)), DDPM(rev_var="beta")]
    if s.strong_order is not None
]


def _empty(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.empty(shape, dtype=dtype)


# --- increments -------------------------------------------------------------------------------------------------------


def test_increments_are_independent_with_variance_equal_to_the_time_difference() -> None:
    count = 40_000
    path = VirtualBrownianTree(_empty(count), range(count))
    unit = torch.stack([path.normal(a, b) for a, b in PAIRS])
    assert unit.mean(1).abs().max() < 4 / math.sqrt(count)
    covariance = unit @ unit.T / count
    off = covariance - torch.diag(covariance.diag())
    assert off.abs().max() < 4.5 / math.sqrt(count)
    assert (covariance.diag() - 1).abs().max() < 4.5 * math.sqrt(2 / count)


@pytest.mark.parametrize("per_sample", [False, True], ids=["one seed", "seeds per sample"])
def test_an_increment_is_normally_distributed_over_elements_and_over_samples(per_sample: bool) -> None:
    count = 20_000
    path = VirtualBrownianTree(_empty(count, 1), range(count) if per_sample else 3)
    draws = path.normal(0.3, 0.31).flatten().sort().values
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    distance = (torch.special.ndtr(draws) - quantiles).abs().max()
    assert distance < 1.95 / math.sqrt(count)  # the Kolmogorov bound at level 0.001


def test_increments_add_up() -> None:
    path = VirtualBrownianTree(_empty(5, 3), range(5))
    for a, b, c in [(0.0, 1e-3, 2.0), (0.31, 0.32, 0.33), (0.9, 1.0, 1.1), (1e-5, 3.0, 1e7)]:
        whole = path.increment(a, c)
        torch.testing.assert_close(path.increment(a, b) + path.increment(b, c), whole, rtol=0, atol=1e-13 * c**0.5)
    whole = sum(path.increment(a, b) for a, b in PAIRS)
    torch.testing.assert_close(whole, path.increment(0.0, 1e7), rtol=0, atol=1e-11)


def test_the_path_does_not_depend_on_earlier_queries() -> None:
    queries, first = [*PAIRS, (0.31, 0.95), (3e-5, 4.0), (0.0, 1.2)], VirtualBrownianTree(_empty(2, 3), [4, 5])
    expected = {pair: first.increment(*pair) for pair in queries}
    for seed in range(5):
        other, shuffled = VirtualBrownianTree(_empty(2, 3), [4, 5]), random.Random(seed).sample(queries, len(queries))
        assert all(torch.equal(other.increment(*pair), expected[pair]) for pair in shuffled)
    assert all(
        torch.equal(VirtualBrownianTree(_empty(2, 3), [4, 5]).increment(*pair), expected[pair]) for pair in queries
    )


def test_the_path_of_a_sample_depends_on_its_seed_alone() -> None:
    whole = VirtualBrownianTree(_empty(4, 2, 3), [7, 0, 2**62, 7]).increment(0.2, 0.9)
    alone = VirtualBrownianTree(_empty(1, 2, 3), [2**62]).increment(0.2, 0.9)
    assert torch.equal(whole[2], alone[0])
    assert torch.equal(whole[0], whole[3])
    assert len(whole.flatten().unique()) == 18


def test_the_path_is_the_same_in_single_precision_and_in_any_memory_format() -> None:
    wide = VirtualBrownianTree(_empty(2, 3, 4, 4), 1)
    narrow = VirtualBrownianTree(_empty(2, 3, 4, 4, dtype=torch.float32).to(memory_format=torch.channels_last), 1)
    for pair in PAIRS[2:]:
        assert narrow.normal(*pair).dtype == torch.float32
        torch.testing.assert_close(narrow.normal(*pair).double(), wide.normal(*pair), rtol=0, atol=2e-4)


@pytest.mark.parametrize("event", [(), (3,), (2, 3), (1, 2, 3), (1, 2, 2, 3)], ids=str)
def test_every_event_shape_has_a_path_and_one_seed_gives_distinct_elements(event: tuple[int, ...]) -> None:
    draws = VirtualBrownianTree(_empty(4, *event), 1).normal(0.1, 0.2)
    assert draws.shape == (4, *event)
    assert len(draws.unique()) == draws.numel()
    assert VirtualBrownianTree(_empty(4, *event), range(4)).normal(0.1, 0.2).shape == (4, *event)


def test_increments_in_order_cost_a_few_draws_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, draw = [0], VirtualBrownianTree._draw
    monkeypatch.setattr(
        VirtualBrownianTree, "_draw", lambda *args: (calls.__setitem__(0, calls[0] + 1), draw(*args))[1]
    )
    path, times = VirtualBrownianTree(_empty(1), 1), [1e-4 * 1.02**i for i in range(300)]
    for a, b in zip(times, times[1:]):
        path.increment(a, b)
    assert calls[0] < 10 * 300
    tensors = [value for value in vars(path).values() if isinstance(value, Tensor)]
    assert len(tensors) + len(path._branch) + 1 <= 17


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (-1.0, 1.0, r"0 <= a < b < inf, got a = -1\.0, b = 1\.0"),
        (1.0, 1.0, r"0 <= a < b < inf"),
        (2.0, 1.0, r"0 <= a < b < inf"),
        (1.0, math.inf, r"0 <= a < b < inf"),
        (math.nan, 1.0, r"0 <= a < b < inf"),
        (1.0, 1.00001, r"resolves 2\*\*-12 of its time, got a step from 1\.0 to 1\.00001.*take fewer steps"),
    ],
)
def test_invalid_times_and_times_closer_than_the_resolution_are_refused(a: float, b: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VirtualBrownianTree(_empty(2), 1).increment(a, b)


def test_a_wrong_number_of_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seeds must have one entry per sample, 3, got 2"):
        VirtualBrownianTree(_empty(3, 2), [1, 2])


# --- strong order -----------------------------------------------------------------------------------------------------


def _coupled_rollout(sampler: StepSampler, taus: list[float], fine: list[float]) -> LinearState:
    """The steps on the exact distribution, with every noise a sum of those of the finer grid on the sampler's clock."""
    clock, x, memory = (
        [sampler.brownian_clock(tau) for tau in fine],
        LinearState(torch.eye(2)[1].double().numpy()),
        None,
    )
    for i, (tau, s) in enumerate(zip(taus, taus[1:])):
        ratio = (len(fine) - 1) // (len(taus) - 1)
        draws: list[int] = []

        def noise(first: int = i * ratio, last: int = (i + 1) * ratio, draws: list[int] = draws) -> LinearState:
            assert not draws, "a second draw in a step is not on the path: declare no strong order"
            draws.append(first)
            basis = torch.zeros(2 + len(fine), dtype=torch.float64)
            for j in range(first, last):
                basis[2 + j] = math.sqrt((clock[j + 1] - clock[j]) / (clock[last] - clock[first]))
            return LinearState(basis.numpy())

        x, memory = sampler.step(DATA.predict, x, tau, s, noise, memory)
    return x


def _difference(sampler: StepSampler, steps: int) -> float:
    """Exact root mean square difference of the last states of n and of 2n steps along one path."""
    sampler = replace(sampler, grid=UniformAngle())
    taus, fine = (sampler.grid.times(CLOCK, n) for n in (steps, 2 * steps))
    ends = [_coupled_rollout(replace(sampler, steps=len(grid) - 1), grid, fine) for grid in (taus, fine)]
    difference = ends[0].add(ends[1], alpha=-1.0).coefficients
    mean, std = DATA.moments(taus[0])
    return math.sqrt(
        (difference[0] + difference[1] * mean) ** 2 + (difference[1] * std) ** 2 + float((difference[2:] ** 2).sum())
    )


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_a_sampler_converges_along_one_path_at_its_declared_strong_order(sampler: StepSampler) -> None:
    # in methods of higher weak order the error of the noise is small at first, and the slope decreases to the order
    slope = fitted_order(lambda n: _difference(sampler, n), [256, 512])
    assert slope == pytest.approx(sampler.strong_order, abs=0.1)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_samples_converge_with_more_steps_only_if_they_are_coupled(sampler: StepSampler) -> None:
    def differences(coupled: bool) -> list[float]:
        ends = [
            sample(
                NORMAL,
                256,
                replace(sampler, steps=n, grid=UniformAngle()),
                generator=torch.Generator().manual_seed(1),
                coupled=coupled,
            ).x
            for n in (32, 64, 128)
        ]
        return [float((one - other).square().mean().sqrt()) for one, other in zip(ends, ends[1:])]

    coupled, independent = differences(True), differences(False)
    assert sampler.strong_order is not None
    assert math.log2(coupled[0] / coupled[1]) > sampler.strong_order - 0.25
    assert min(independent) > 0.8 * max(independent) > 5 * coupled[-1]


def test_only_stochastic_samplers_have_a_strong_order() -> None:
    assert [s.strong_order for s in (DDPM(), EulerMaruyama(), ExponentialSDE(), DDIM())] == [1.0, 1.0, 1.0, None]


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [DDPM(9), EulerMaruyama(9), ExponentialSDE(9)], ids=repr)
def test_a_coupled_sample_with_seeds_does_not_depend_on_its_batch(sampler: StepSampler) -> None:
    seeds = [5, 3, 11, 8, 2]
    whole = sample(RING, 5, sampler, seeds=seeds, coupled=True).x
    split = sample(RING, 5, sampler, seeds=seeds, coupled=True, batch_size=2).x
    torch.testing.assert_close(split, whole, rtol=0, atol=1e-12)
    assert torch.equal(sample(RING, 5, sampler, seeds=seeds, coupled=True).x, whole)
    assert not torch.equal(sample(RING, 5, sampler, seeds=seeds).x, whole)


def test_with_a_generator_every_batch_has_another_path_and_the_same_start_as_uncoupled() -> None:
    before = torch.get_rng_state()
    settings: dict[str, Any] = {"init": torch.ones(4, 2, dtype=torch.float64), "batch_size": 2, "coupled": True}
    one, other = (sample(NORMAL, 4, DDPM(5), generator=torch.Generator().manual_seed(1), **settings).x for _ in "ab")
    assert torch.equal(one, other)
    assert len(one.unique(dim=0)) == 4
    assert torch.equal(torch.get_rng_state(), before)
    starts = []
    for coupled in (True, False):
        trajectory = sample(NORMAL, 4, DDPM(5), seeds=range(4), coupled=coupled, trajectory=True).trajectory
        assert trajectory is not None
        starts.append(trajectory[0])
    assert torch.equal(starts[0], starts[1])


def test_coupling_does_not_change_a_deterministic_sampler() -> None:
    one, other = (sample(NORMAL, 3, DDIM(5), seeds=range(3), coupled=coupled).x for coupled in (True, False))
    assert torch.equal(one, other)


@pytest.mark.parametrize("sampler", [ODE(), TorchSDE(steps=4)], ids=repr)
def test_coupling_a_sampler_without_steps_is_refused(sampler: Sampler) -> None:
    with pytest.raises(
        TypeError, match=r"coupled needs a sampler whose steps state .*, got (ODE|TorchSDE)\(.*StepSampler"
    ):
        sample(NORMAL, 3, sampler, coupled=True)


def test_a_step_finer_than_the_resolution_of_the_path_is_refused() -> None:
    with pytest.raises(ValueError, match=r"resolves 2\*\*-12 of its time.*fewer steps, or leave coupled out"):
        sample(NORMAL, 1, ExponentialSDE(1_000_000), coupled=True)


def test_coupling_works_from_infinite_noise_to_the_data() -> None:
    model = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64), 1e-6, Flow())
    samples = sample(model, 3, DDPM(9), seeds=range(3), coupled=True)
    assert samples.tau == 0.0
    torch.testing.assert_close(samples.x, torch.tensor([[0.7, -1.3]] * 3).double(), rtol=0, atol=0.02)


def test_only_the_first_noise_of_a_step_is_taken_from_the_path() -> None:
    @dataclass(frozen=True)
    class TwoDraws(StepSampler):
        order: ClassVar[None] = None
        stochastic: ClassVar[bool] = True

        def step(self, predict: Any, x: Any, tau: float, s: float, noise: Any, memory: Any) -> tuple[Any, Any]:
            return x, [*(memory or []), (noise(), noise())]

    path, sampler, draws = VirtualBrownianTree(_empty(3, 2), 1), TwoDraws(3, UniformAngle()), []
    object.__setattr__(
        sampler, "step", lambda *args: draws.append(TwoDraws.step(sampler, *args)[1][-1]) or (args[1], [])
    )
    source = Noise(torch.Generator().manual_seed(1))
    sampler.run(torch.zeros(3, 2).double(), SamplingContext(NORMAL.predict, CLOCK, source, CLOCK.tau_max, None, path))
    independent, same_path = Noise(torch.Generator().manual_seed(1)), VirtualBrownianTree(_empty(3, 2), 1)
    taus = UniformAngle().times(CLOCK, 3)
    for (first, second), tau, s in zip(draws, taus, taus[1:]):
        snr = [math.exp(ou.log_snr(each)) for each in (tau, s)]
        torch.testing.assert_close(first, same_path.normal(*snr), rtol=0, atol=1e-12)
        assert torch.equal(second, independent.normal(first))
    assert sampler.strong_order is None


@pytest.mark.parametrize("sampler", [DDPM(5), EulerMaruyama(5), ExponentialSDE(5)], ids=repr)
@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("source", ["seeds", "generator"])
def test_coupled_sampling_works_without_tensor_values(sampler: StepSampler, device: str, source: str) -> None:
    with FakeTensorMode(), torch.device(device):
        model = ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), V(), (3,))
        seeds = range(4) if source == "seeds" else None
        samples = sample(model, 4, sampler, device=device, seeds=seeds, coupled=True)
    assert samples.x.shape == (4, 3)
    assert samples.x.device.type == device


@pytest.mark.cuda
@pytest.mark.parametrize("seeds", [1, [3, 4, 5, 6]], ids=["one seed", "seeds per sample"])
def test_no_coupled_step_synchronizes_and_the_path_is_that_of_the_cpu(seeds: Any) -> None:
    model = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64, device="cuda"), 0.25, CLOCK)
    x = torch.full((4, 2), 0.3, dtype=torch.float64, device="cuda")
    context = SamplingContext(model.predict, model.sde, Noise(), CLOCK.tau_max, None, VirtualBrownianTree(x, seeds))
    with torch.no_grad():
        ExponentialSDE(9).run(x, context)
        torch.cuda.set_sync_debug_mode("error")
        try:
            end, _ = ExponentialSDE(9).run(x, context)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    model, x = model.cpu(), x.cpu()
    context = SamplingContext(model.predict, model.sde, Noise(), CLOCK.tau_max, None, VirtualBrownianTree(x, seeds))
    torch.testing.assert_close(end.cpu(), ExponentialSDE(9).run(x, context)[0], rtol=0, atol=1e-10)
