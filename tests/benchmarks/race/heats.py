"""Who is best at a number of network calls? Heats on few samples for every peer, a final on all for the best."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from race import from_azula, from_diffusers
from race.entry import Peer
from race.ours import ours, ours_stochastic
from race.problems import END, NOISE_SEED, PROBLEMS, Oracle, Problem
from scoresde.analytic import GaussianMixture
from scoresde.process import ou
from scoresde.sampling import Sampler, sample

__all__ = ["Row", "deterministic", "spread", "stochastic"]

HEAT = 64
SEED, CHUNK = 1, 20_000
SAMPLES = {"ring": (20_000, 200_000), "mixture": (1_000, 200_000)}

Row = dict[str, Any]
"""problem, calls, entrant, ours, lent, error (or ratio and worst), final: one line of results.json."""


def _peer(peer: Peer, law: GaussianMixture, x: Tensor, calls: int, generator: torch.Generator | None) -> Tensor:
    oracle = Oracle(law)
    with torch.no_grad():
        end = peer.run(oracle, x, calls, generator)
    if oracle.calls > calls:
        raise AssertionError(f"{peer.name} made {oracle.calls} network calls of {calls}.")
    return end


def _our(sampler: Sampler, law: GaussianMixture, x: Tensor, calls: int, generator: torch.Generator | None) -> Tensor:
    drawn = sample(law, tuple(x.shape), sampler, init=x, generator=generator)
    if drawn.nfe > calls or abs(drawn.tau - END) > 1e-9 * END:
        raise AssertionError(
            f"{sampler} made {drawn.nfe} network calls of {calls} and ended at {drawn.tau!r}, not {END!r}."
        )
    return drawn.x


def _entry(problem: Problem, calls: int, name: str, is_ours: bool, lent: bool, final: bool) -> Row:
    return {
        "problem": problem.name, "calls": calls, "entrant": name, "ours": is_ours, "lent": lent, "final": final,
    }  # fmt: skip


def _best(rows: Iterable[Row], badness: Callable[[Row], float], count: int) -> set[str]:
    """Names of the best, the best of the library's own spacings apart from those with lent ones."""
    ranked = sorted((row for row in rows if math.isfinite(badness(row))), key=badness)
    return {row["entrant"] for lent in (False, True) for row in [r for r in ranked if r["lent"] == lent][:count]}


def deterministic(
    name: str, calls: Sequence[int], finalists: int = 12, peers: bool = True, seed: int = NOISE_SEED
) -> list[Row]:
    """RMS over all elements at u = 1e-3, of ours and, with ``peers``, of the released ones; the draws' ``seed``."""
    torch.set_num_threads(1)
    problem = Problem(name, PROBLEMS[name](), seed)
    few, exact = problem.start[:HEAT], problem.truth[:HEAT]
    field = [*from_diffusers.deterministic(), *from_azula.deterministic()] if peers else []
    rows: list[Row] = []
    for count in calls:
        print(f"{name}, {count} calls: {len(field)} peers", file=sys.stderr, flush=True)
        heats = []
        for peer in field:
            if count >= peer.least:
                error = (_peer(peer, problem.law, few, count, None) - exact).square().mean().sqrt()
                heats.append(_entry(problem, count, peer.name, False, peer.lent, False) | {"error": float(error)})
        through = _best(heats, lambda row: row["error"], finalists)
        for peer in field:
            if peer.name in through:
                error = problem.error(_peer(peer, problem.law, problem.start, count, None))
                rows.append(_entry(problem, count, peer.name, False, peer.lent, True) | {"error": error})
        rows += [row for row in heats if row["entrant"] not in through]
        for label, sampler in ours(count, problem.law).items():
            error = problem.error(_our(sampler, problem.law, problem.start, count, None))
            rows.append(_entry(problem, count, label, True, False, True) | {"error": error})
    return rows


def spread(law: GaussianMixture, x: Tensor) -> Tensor:
    """Root mean square of the residuals about the true means over the true standard deviations, per component.

    Each sample goes to its most probable component; its dimensions are pooled. 1 is exact; shape ``(components,)``.
    """
    alpha, sigma = float(ou.alpha(END)), float(ou.sigma(END))
    variances = alpha**2 * law.variances + sigma**2
    log_dets = variances.log().expand_as(law.means).sum(1)
    squares, counts = torch.zeros(len(variances)).double(), torch.zeros(len(variances)).double()
    for part in x.to(law.means.dtype).split(CHUNK):
        each = [((part - alpha * m).square() / v).sum(1) for m, v in zip(law.means, variances)]
        square = torch.stack(each, 1)
        near = (law.log_weights - 0.5 * (square + log_dets)).argmax(1)
        squares.index_add_(0, near, square.gather(1, near[:, None])[:, 0].double() / x.shape[1])
        counts.index_add_(0, near, torch.ones(len(near)).double())
    return (squares / counts).sqrt()


def _spread_of(run: Callable[..., Tensor], problem: Problem, n: int) -> Row:
    """Mean over the components of the ratios, and the ratio farthest from 1."""
    generator = torch.Generator().manual_seed(SEED)
    start = problem.noise(SEED, n).to(problem.law.means.dtype)
    ratios = spread(problem.law, torch.cat([run(x=part, generator=generator) for part in start.split(CHUNK)]))
    worst = ratios[(ratios - 1).abs().argmax()]
    return {"ratio": float(ratios.mean()), "worst": float(worst), "samples": n}


def _off(row: Row) -> float:
    return abs(row["ratio"] - 1)


def stochastic(name: str, calls: Sequence[int], finalists: int = 2, peers: bool = True) -> list[Row]:
    """Within-component standard deviation at u = 1e-3 over the truth, float32 network; else as `deterministic`."""
    torch.set_num_threads(1)
    problem = Problem(name, PROBLEMS[name](torch.float32))
    few, many = SAMPLES[name]
    field = [*from_diffusers.stochastic(), *from_azula.stochastic()] if peers else []
    rows: list[Row] = []
    for count in calls:
        print(f"{name}, {count} calls: {len(field)} peers", file=sys.stderr, flush=True)
        heats = []
        for peer in field:
            found = _spread_of(partial(_peer, peer, problem.law, calls=count), problem, few)
            heats.append(_entry(problem, count, peer.name, False, peer.lent, False) | found)
        through = _best(heats, _off, finalists)
        for peer in field:
            if peer.name in through:
                found = _spread_of(partial(_peer, peer, problem.law, calls=count), problem, many)
                rows.append(_entry(problem, count, peer.name, False, peer.lent, True) | found)
        rows += [row for row in heats if row["entrant"] not in through]
        for label, sampler in ours_stochastic(count, problem.law).items():
            found = _spread_of(partial(_our, sampler, problem.law, calls=count), problem, many)
            rows.append(_entry(problem, count, label, True, False, True) | found)
    return rows
