"""Rounds of the sampler benchmark on one trained network: a preliminary round on few samples, a final on all.

The preliminary round is held at every second number of calls: all released samplers up to 20 calls, above that the
better third of the round before. The finalists at the other numbers of calls are those of the two neighbors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from race.network_problem import NetworkProblem, end_state
from race.networks import trained
from race.ours import network_samplers
from race.peer import Peer
from race.problems import Oracle
from race.selection import selected_peers
from race.span import Span
from scoresde.metrics import energy_distance
from scoresde.model import gaussian_process
from scoresde.sampling import Sampler

__all__ = ["GROUPS", "Result", "run"]

GROUPS = ("released", "ours", "calibrated")
PRELIMINARY_SAMPLES = {"moons-eps": 64, "circles-x0": 64, "cancer-v": 32, "wine-v": 32, "fashion-v": 2}
_DEFAULT_PRELIMINARY = 8
ALL_UP_TO = 20
MAX_HELD_OUT = 1000

Result = dict[str, Any]
"""Facts of a network ("network", "reference_error", …) and "rows": calls, sampler, group, error, median, distance."""


class Race:
    """A network, its problem and its held-out data, with the rows of samplers on it."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self.problem = NetworkProblem(trained(name, folder), folder / "reference", seed)
        self.span = Span.of(gaussian_process(self.problem.model))
        self.held_out = self.problem.trained.held_out[:MAX_HELD_OUT].double()
        self.few = slice(PRELIMINARY_SAMPLES.get(name, _DEFAULT_PRELIMINARY))

    def facts(self) -> Result:
        """The network's own distance to held-out data, and the floor: that between halves of these data."""
        half = len(self.held_out) // 2
        return {
            "network": self.problem.name,
            "samples": len(self.problem.start),
            "elements": self.problem.start[0].numel(),
            "reference_error": self.problem.reference_error,
            "fine": self.distance(self.problem.truth),
            "floor": _pair(energy_distance(self.held_out[:half], self.held_out[half:])),
        }

    def distance(self, x: Tensor) -> tuple[float, float]:
        """Energy distance to held-out data and its standard error."""
        return _pair(energy_distance(x, self.held_out))

    def peer(self, peer: Peer, calls: int, rows: slice) -> tuple[Tensor, int]:
        """End states of a released sampler, and its network calls."""
        oracle = Oracle(self.problem.model, self.span)
        with torch.no_grad():
            end = peer.run(oracle, self.problem.start[rows], calls, None)
        if oracle.calls > calls:
            raise AssertionError(f"{peer.name} made {oracle.calls} network calls; the limit is {calls}.")
        return end.double(), oracle.calls

    def ours(self, sampler: Sampler, calls: int) -> tuple[Tensor, int]:
        """End states of a sampler of ours, and its network calls."""
        end, made = end_state(self.problem.model, sampler, self.problem.start)
        if made > calls:
            raise AssertionError(f"{sampler} made {made} network calls; the limit is {calls}.")
        return end, made

    def row(self, calls: int, sampler: str, group: str, end: Tensor, made: int) -> Result:
        """Errors over all elements and per sample, and the distance to held-out data."""
        error = _error(end, self.problem.truth)
        per_sample = (end - self.problem.truth).flatten(1).square().mean(1).sqrt()
        finite = bool(torch.isfinite(end).all())
        return {
            "network": self.problem.name,
            "calls": calls,
            "made": made,
            "sampler": sampler,
            "group": group,
            "error": error,
            "median": float(per_sample.median()),
            "distance": self.distance(end) if finite else (math.inf, math.inf),
        }

    def preliminary(self, peers: Sequence[Peer], calls: int) -> dict[str, float]:
        """Error of each peer on the first samples."""
        reference, errors = self.problem.truth[self.few], {}
        for peer in peers:
            if calls >= peer.min_calls:
                error = _error(self.peer(peer, calls, self.few)[0], reference)
                if math.isfinite(error):
                    errors[peer.name] = error
        return errors


def _pair(estimate: Any) -> tuple[float, float]:
    return estimate.value, estimate.stderr


def _error(end: Tensor, reference: Tensor) -> float:
    return float((end - reference).square().mean().sqrt())


def run(
    name: str,
    calls: Sequence[int],
    folder: Path,
    groups: Sequence[str] = ("released", "ours"),
    finalists: int = 8,
    seed: int = 0,
) -> Result:
    """Races the samplers of ``groups`` on a network.

    Args:
        name: Of the network.
        calls: Numbers of network calls, increasing.
        folder: Where weights and references are kept.
        groups: Of `GROUPS`.
        finalists: Released samplers in the final, at each number of calls with a preliminary round.
        seed: Of the initial states.
    """
    torch.set_num_threads(1)
    race = Race(name, folder, seed)
    rows: list[Result] = []
    for count in calls:
        for group in ("ours", "calibrated"):
            samplers = network_samplers(count, race.problem.model, group) if group in groups else {}
            rows += [race.row(count, label, group, *race.ours(sampler, count)) for label, sampler in samplers.items()]
    if "released" in groups:
        rows += _released(race, calls, finalists)
    return {**race.facts(), "rows": rows}


def _released(race: Race, calls: Sequence[int], finalists: int) -> list[Result]:
    every = peers = selected_peers(race.span)
    ranked: dict[int, list[str]] = {}
    order: list[str] = []
    for count in sorted({*calls[::2], calls[-1]}):
        if count > ALL_UP_TO and ranked:  # only the better third of the round before
            better = set(order[: -(-len(order) // 3)])
            peers = [peer for peer in peers if peer.name in better]
        errors = race.preliminary(peers, count)
        order = sorted(errors, key=errors.__getitem__)
        ranked[count] = order[:finalists]
        print(f"{race.problem.name}, {count} calls: {len(errors)} released samplers", file=sys.stderr, flush=True)
    rows = []
    for i, count in enumerate(calls):
        neighbors = [count] if count in ranked else [calls[i - 1], calls[i + 1]]
        names = {name for neighbor in neighbors for name in ranked[neighbor]}
        finals = [peer for peer in every if peer.name in names and count >= peer.min_calls]
        rows += [race.row(count, peer.name, "released", *race.peer(peer, count, slice(None))) for peer in finals]
    return rows
