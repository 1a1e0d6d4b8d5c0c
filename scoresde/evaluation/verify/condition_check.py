"""The check of conditions: whether the network denoises better with those of the events than with others'."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from scoresde.evaluation.verify.comparison import Bench, Gain, gain, t_bound
from scoresde.evaluation.verify.reading import OutputTarget, Reading
from scoresde.evaluation.verify.verification import Check

__all__ = ["check_condition"]

_MOST_CLASSES = 40
_GAIN = 0.01


def check_condition(
    name: str, classes: int | None, bench: Bench, reading: Reading, target: OutputTarget, errors: Tensor, seed: int
) -> Check:
    """Compares the conditions of the events with shuffled ones, and classes with every renaming of their codes.

    A renaming is chosen on one half of the events and tested on the other.

    Args:
        name: The condition.
        classes: Their number; None for a condition of another kind.
        bench: Noised events.
        reading, target: The best reading.
        errors: Of that reading, ``(L, n)``.
        seed: Of the shuffling.
    """
    values = reading.cond[name]
    label = f"condition {name}"
    if classes is not None and classes <= _MOST_CLASSES:
        renamed = _renaming(name, classes, bench, reading, target, errors)
        if renamed is not None:
            return renamed
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    shuffled = bench.errors(_with(reading, name, values[order]), [target])[0]
    amount = gain(errors, shuffled)
    bound = t_bound(1, errors.shape[1])
    if amount is None:
        return Check(label, "undecidable", "no noise level lies inside the network's times.")
    evidence = {"gain of shuffled conditions": (amount.mean, amount.stderr)}
    if amount.t < -bound:
        return Check(label, "passed", f"{amount.text()} if they are shuffled among the events.", evidence=evidence)
    if amount.t > bound and amount.mean > _GAIN:
        sentence = f"{amount.text()} if they are shuffled: they are not those of the events."
        return Check(label, "failed", sentence, f"compare the codes of {name!r} with those of the training", evidence)
    sentence = f"the network hardly uses it on these data: {amount.text()} if it is shuffled among the events."
    return Check(label, "undecidable", sentence, evidence=evidence)


def _renaming(
    name: str, classes: int, bench: Bench, reading: Reading, target: OutputTarget, errors: Tensor
) -> Check | None:
    """The failed check if a renaming of the classes is better; None if none is."""
    values = reading.cond[name].long()
    every = torch.stack(
        [
            bench.errors(_with(reading, name, torch.full_like(reading.cond[name], c)), [target])[0]
            for c in range(classes)
        ]
    )
    halves = [torch.arange(errors.shape[1]) % 2 == i for i in range(2)]
    found: list[Tensor] = []
    chosen: list[Tensor] = [torch.empty(0)] * 2
    for train, test in (halves, halves[::-1]):
        mapping = _best_mapping(every[..., train], values[train], errors[:, train], classes)
        picked = every[mapping[values[test]], :, test].T
        found.append(picked)
        chosen[int(test[1])] = mapping
    joined = torch.empty_like(errors)
    joined[:, halves[1]], joined[:, halves[0]] = found
    amount = gain(errors, joined)
    if amount is None or amount.t < t_bound(1, errors.shape[1]) or amount.mean < _GAIN:
        return None
    moved = {c: int(chosen[0][c]) for c in range(classes) if int(chosen[0][c]) == int(chosen[1][c]) != c}
    return _failed(name, amount, moved)


def _failed(name: str, amount: Gain, moved: dict[int, int]) -> Check:
    codes = ", ".join(f"{a} is {b}" for a, b in list(moved.items())[:8]) or "the halves of the events disagree which"
    sentence = f"{amount.text()} with the classes renamed ({codes}), on events that did not choose the renaming."
    evidence: dict[str, Any] = {"gain of renamed classes": (amount.mean, amount.stderr)}
    remedy = f"the codes of {name!r} are not those of the training: map them, or sort the names as it did"
    return Check(f"condition {name}", "failed", sentence, remedy, evidence)


def _best_mapping(every: Tensor, values: Tensor, errors: Tensor, classes: int) -> Tensor:
    """The permutation of classes with the least error relative to the stated one, ``(C,)``."""
    levels = ~errors.isnan().any(1)
    relative = (every[:, levels] / errors[levels].mean(1, keepdim=True)).mean(1)  # (C, n)
    cost = torch.zeros(classes, classes, dtype=torch.float64)
    for c in range(classes):
        if bool((values == c).any()):
            cost[c] = relative[:, values == c].sum(1)
    _, columns = linear_sum_assignment(cost.numpy())
    return torch.as_tensor(columns)


def _with(reading: Reading, name: str, values: Tensor) -> Reading:
    return replace(reading, cond={**reading.cond, name: values})
