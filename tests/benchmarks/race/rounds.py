"""Rounds of the sampler benchmark: a preliminary round on few samples for all peers, a final on all for the best."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from race import from_azula, from_diffusers
from race.ours import ours, ours_stochastic
from race.peer import Peer
from race.problems import END, NOISE_SEED, PROBLEMS, SPAN, Oracle, Problem
from scoresde.analytic import GaussianMixture
from scoresde.process import ou
from scoresde.sampling import Sampler, sample

__all__ = ["Row", "deterministic", "spread", "stochastic"]

PRELIMINARY_SAMPLES = 64
SEED, CHUNK = 1, 20_000
SAMPLES = {"ring": (20_000, 200_000), "mixture": (1_000, 200_000)}

Row = dict[str, Any]
"""One row of results.json: problem, calls, sampler, ours, custom_spacing, final, and error (or ratio and worst)."""


def _run_peer(peer: Peer, model: GaussianMixture, x: Tensor, calls: int, generator: torch.Generator | None) -> Tensor:
    oracle = Oracle(model, SPAN)
    with torch.no_grad():
        end = peer.run(oracle, x, calls, generator)
    if oracle.calls > calls:
        raise AssertionError(f"{peer.name} made {oracle.calls} network calls; the limit is {calls}.")
    return end


def _run_ours(
    sampler: Sampler, model: GaussianMixture, x: Tensor, calls: int, generator: torch.Generator | None
) -> Tensor:
    samples = sample(model, tuple(x.shape), sampler, init=x, generator=generator)
    if samples.nfe > calls or abs(samples.tau - END) > 1e-9 * END:
        raise AssertionError(
            f"{sampler} made {samples.nfe} network calls and ended at {samples.tau!r}; the limit is {calls} calls, the "
            f"end must be {END!r}."
        )
    return samples.x


def _row(problem: Problem, calls: int, sampler: str, is_ours: bool, custom_spacing: bool, final: bool) -> Row:
    return {
        "problem": problem.name,
        "calls": calls,
        "sampler": sampler,
        "ours": is_ours,
        "custom_spacing": custom_spacing,
        "final": final,
    }


def _best(rows: Iterable[Row], score: Callable[[Row], float], count: int) -> set[str]:
    """Names of the ``count`` samplers with the lowest score, for shipped and for custom spacings separately."""
    ranked = sorted((row for row in rows if math.isfinite(score(row))), key=score)
    groups = ([row for row in ranked if row["custom_spacing"] == custom] for custom in (False, True))
    return {row["sampler"] for group in groups for row in group[:count]}


def deterministic(
    name: str, calls: Sequence[int], finalists: int = 12, peers: bool = True, seed: int = NOISE_SEED
) -> list[Row]:
    """Root mean square error over all elements at u = 1e-3.

    Args:
        name: Of the problem.
        calls: Numbers of network calls.
        finalists: Peers in the final, for shipped and for custom spacings each.
        peers: Whether the released samplers run too.
        seed: Of the initial states.
    """
    torch.set_num_threads(1)
    problem = Problem(name, PROBLEMS[name](), seed)
    few, reference = problem.start[:PRELIMINARY_SAMPLES], problem.truth[:PRELIMINARY_SAMPLES]
    candidates = [*from_diffusers.deterministic(), *from_azula.deterministic()] if peers else []
    rows: list[Row] = []
    for count in calls:
        print(f"{name}, {count} calls: {len(candidates)} peers", file=sys.stderr, flush=True)
        preliminary = []
        for peer in candidates:
            if count >= peer.min_calls:
                error = (_run_peer(peer, problem.model, few, count, None) - reference).square().mean().sqrt()
                preliminary.append(
                    _row(problem, count, peer.name, False, peer.custom_spacing, False) | {"error": float(error)}
                )
        finalist_names = _best(preliminary, lambda row: row["error"], finalists)
        for peer in candidates:
            if peer.name in finalist_names:
                error = problem.error(_run_peer(peer, problem.model, problem.start, count, None))
                rows.append(_row(problem, count, peer.name, False, peer.custom_spacing, True) | {"error": error})
        rows += [row for row in preliminary if row["sampler"] not in finalist_names]
        for label, sampler in ours(count, problem.model).items():
            error = problem.error(_run_ours(sampler, problem.model, problem.start, count, None))
            rows.append(_row(problem, count, label, True, False, True) | {"error": error})
    return rows


def spread(model: GaussianMixture, x: Tensor) -> Tensor:
    """Root mean square of the residuals about the exact means, over the exact standard deviations, per component.

    Each sample belongs to its most probable component; all dimensions are pooled. 1 is exact; ``(components,)``.
    """
    alpha, sigma = float(ou.alpha(END)), float(ou.sigma(END))
    variances = alpha**2 * model.variances + sigma**2
    log_dets = variances.log().expand_as(model.means).sum(1)
    squares, counts = torch.zeros(len(variances)).double(), torch.zeros(len(variances)).double()
    for part in x.to(model.means.dtype).split(CHUNK):
        distances = [((part - alpha * m).square() / v).sum(1) for m, v in zip(model.means, variances)]
        square = torch.stack(distances, 1)
        component = (model.log_weights - 0.5 * (square + log_dets)).argmax(1)
        squares.index_add_(0, component, square.gather(1, component[:, None])[:, 0].double() / x.shape[1])
        counts.index_add_(0, component, torch.ones(len(component)).double())
    return (squares / counts).sqrt()


def _spread_of(run: Callable[..., Tensor], problem: Problem, n: int) -> Row:
    """Mean of the ratios over the components, and the ratio farthest from 1."""
    generator = torch.Generator().manual_seed(SEED)
    start = problem.noise(SEED, n).to(problem.model.means.dtype)
    ratios = spread(problem.model, torch.cat([run(x=part, generator=generator) for part in start.split(CHUNK)]))
    worst = ratios[(ratios - 1).abs().argmax()]
    return {"ratio": float(ratios.mean()), "worst": float(worst), "samples": n}


def _deviation(row: Row) -> float:
    return abs(row["ratio"] - 1)


def stochastic(name: str, calls: Sequence[int], finalists: int = 2, peers: bool = True) -> list[Row]:
    """Standard deviation within a component at u = 1e-3 over the exact one, float32 network.

    Arguments as for `deterministic`.
    """
    torch.set_num_threads(1)
    problem = Problem(name, PROBLEMS[name](torch.float32))
    few, many = SAMPLES[name]
    candidates = [*from_diffusers.stochastic(), *from_azula.stochastic()] if peers else []
    rows: list[Row] = []
    for count in calls:
        print(f"{name}, {count} calls: {len(candidates)} peers", file=sys.stderr, flush=True)
        preliminary = []
        for peer in candidates:
            widths = _spread_of(partial(_run_peer, peer, problem.model, calls=count), problem, few)
            preliminary.append(_row(problem, count, peer.name, False, peer.custom_spacing, False) | widths)
        finalist_names = _best(preliminary, _deviation, finalists)
        for peer in candidates:
            if peer.name in finalist_names:
                widths = _spread_of(partial(_run_peer, peer, problem.model, calls=count), problem, many)
                rows.append(_row(problem, count, peer.name, False, peer.custom_spacing, True) | widths)
        rows += [row for row in preliminary if row["sampler"] not in finalist_names]
        for label, sampler in ours_stochastic(count, problem.model).items():
            widths = _spread_of(partial(_run_ours, sampler, problem.model, calls=count), problem, many)
            rows.append(_row(problem, count, label, True, False, True) | widths)
    return rows
