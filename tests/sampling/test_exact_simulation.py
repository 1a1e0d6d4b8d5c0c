"""Exact simulation of categories: its distribution by χ², its times, its calls, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from discrete_laws import Enumerated, smooth_mixture
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.analytic import CategoricalMixture, DiscreteTable
from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet
from scoresde.process import Categorical, ou
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.sampling import Ancestral, ExactSimulation, sample

D = torch.float64


def _deviation(exact: Enumerated, x: Tensor) -> float:
    """χ² against the truth in standard deviations of its own; states that are rarely expected are pooled."""
    counts = torch.bincount(exact.index(x), minlength=len(exact.states)).to(D)
    expected = len(x) * exact.law().nan_to_num(0.0)
    rare = expected < 5
    assert float(counts[expected == 0].sum()) == 0
    bins = [(counts[~rare], expected[~rare])]
    if float(expected[rare].sum()) > 5:
        bins.append((counts[rare].sum()[None], expected[rare].sum()[None]))
    observed, mean = (torch.cat(parts) for parts in zip(*bins))
    degrees = len(observed) - 1
    return float(((observed - mean).square() / mean).sum() - degrees) / math.sqrt(2 * degrees)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "entries"), [("uniform", 3), ("absorbing", 6), ("binomial", 3), ("columns", 2)])
def test_exact_simulation_is_exact(kernel: str, entries: int) -> None:
    exact, generator = Enumerated(smooth_mixture(kernel, entries, 1.5)), torch.Generator()
    drawn = sample(exact.model, 100_000, ExactSimulation(), generator=generator.manual_seed(1), batch_size=10_000)
    assert abs(_deviation(exact, drawn.x)) < 4.5
    chain = sample(exact.model, 100_000, Ancestral(8), generator=generator.manual_seed(1))
    assert _deviation(exact, chain.x) > 6  # the test sees the error of eight steps


def test_forbidden_combinations_never_come_out_of_exact_simulation() -> None:
    states = torch.tensor([[0, 0, 0, 1], [1, 1, 2, 2], [2, 0, 1, 1]])
    table = DiscreteTable(states, torch.tensor([0.5, 0.3, 0.2], dtype=D), Categorical(3, "absorbing"))
    drawn = sample(table, 20_000, ExactSimulation(), generator=torch.Generator().manual_seed(2))
    shares = [float((drawn.x == state).all(1).double().mean()) for state in states.to(D)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=4.5 * math.sqrt(0.25 / 20_000))
    assert sum(shares) == 1.0
    assert drawn.nfe == 4


class _Watched(CategoricalMixture):
    """Keeps the states and times of its calls."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def predict(self, x: Tensor, tau: Any, **cond: object) -> DiscretePrediction:
        self.seen.append((x, torch.as_tensor(tau, dtype=D).expand(len(x))))
        return super().predict(x, tau, **cond)


def test_the_noise_at_which_entries_are_unmasked_falls_as_order_statistics_of_uniform_numbers() -> None:
    process = Categorical(3, "absorbing")
    model = _Watched(weights=torch.ones(1), probs=torch.full((1, 4, 3), 1 / 3, dtype=D), process=process)
    init = torch.full((20_000, 4), 3.0, dtype=D)
    sample(model, 20_000, ExactSimulation(), generator=torch.Generator().manual_seed(1), init=init, start=0.8)
    levels = -torch.expm1(-2.0 * torch.stack([tau for _, tau in model.seen])) / ou.beta(0.8, 0.0)
    expected = [4 / 5, 3 / 5, 2 / 5, 1 / 5]
    assert levels.mean(1).tolist() == pytest.approx(expected, abs=4.5 * 0.2 / math.sqrt(20_000))
    first = (model.seen[0][0] != model.seen[1][0]).double()
    assert first.mean(0).tolist() == pytest.approx([0.25] * 4, abs=4.5 * math.sqrt(0.19 / 20_000))
    level_of_each = (first * levels[0].unsqueeze(1)).sum(0) / first.sum(0)  # which entry is first says nothing of when
    assert level_of_each.tolist() == pytest.approx([4 / 5] * 4, abs=4.5 * 0.17 / math.sqrt(5_000))


def test_jumps_are_proposed_at_the_bound_of_the_rates() -> None:
    process = Categorical((3, 2), tau_min=0.1)
    probs = torch.tensor([[[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]]], dtype=D)
    model = _Watched(weights=torch.ones(1), probs=probs, process=process)
    init = torch.zeros(20_000, 2, dtype=D)
    sample(model, 20_000, ExactSimulation(), generator=torch.Generator().manual_seed(1), init=init, start=1.0)
    times = torch.stack([tau for _, tau in model.seen[:-1]])
    count = (times > 0.1).sum(0).to(D)
    mean = 2 * (math.log(ou.beta(1.0, 0.0)) - math.log(ou.beta(0.1, 0.0))) + (4 - 2 / 3 - 1) * 0.9
    assert float(count.mean()) == pytest.approx(mean, abs=4.5 * math.sqrt(mean / 20_000))
    assert float(count.var()) == pytest.approx(mean, rel=0.05)  # a Poisson number


def test_the_calls_of_exact_simulation_are_those_of_the_slowest_sample_and_the_two_steps_at_the_ends() -> None:
    process = Categorical(3, tau_min=0.01)
    model = _Watched(weights=torch.ones(1), probs=torch.full((1, 2, 3), 1 / 3, dtype=D), process=process)
    seeds = list(range(8))
    calls = [sample(model, 1, ExactSimulation(), seeds=[seed]).nfe for seed in seeds]
    model.seen.clear()
    drawn = sample(model, 8, ExactSimulation(), seeds=seeds)
    assert drawn.nfe == len(model.seen) == max(calls)
    assert len(set(calls)) > 1


def test_a_state_without_masks_needs_no_call() -> None:
    model = smooth_mixture("absorbing")
    init = torch.tensor([[0.0, 1.0, 2.0, 0.0]], dtype=D)
    drawn = sample(model, 1, ExactSimulation(), seeds=[1], init=init, start=1.0)
    assert torch.equal(drawn.x, init)
    assert drawn.nfe == 0


def test_first_hitting_runs_without_tensor_values_and_thinning_says_what_does() -> None:
    def drawn(kernel: str) -> Tensor:
        process = Categorical(3, kernel)
        mask = kernel == "absorbing"
        net = CategoricalNet(MLP(CategoricalNet.inner_shape((4,), 3, mask), width=8, depth=1), (4,), 3, mask)
        return sample(ScoreModel(net, process), 2, ExactSimulation(), device="meta", trajectory=True).x

    with FakeTensorMode(), torch.device("meta"):
        assert drawn("absorbing").shape == (2, 4)
        with pytest.raises(TypeError, match=r"tensors without values; take Ancestral\(\) or TauLeaping\(\)"):
            drawn("uniform")


def test_the_last_draw_of_a_sample_does_not_depend_on_how_long_its_batch_runs() -> None:
    model, seeds = smooth_mixture("uniform", 3, 1.0, tau_min=0.5), list(range(30))  # much is left to the last step
    whole = sample(model, 30, ExactSimulation(), seeds=seeds).x
    parts = [sample(model, 10, ExactSimulation(), seeds=seeds[i : i + 10]).x for i in (0, 10, 20)]
    assert torch.equal(torch.cat(parts), whole)
