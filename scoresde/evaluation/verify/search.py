"""The search for the reading that denoises best: changes of the stated one, one at a time, while the error falls.

Alternatives that are much worse on a few events and levels are excluded at once; the others are compared on all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from scoresde.evaluation.verify.alternatives import Alternative
from scoresde.evaluation.verify.comparison import Bench, Gain, gain, t_bound
from scoresde.evaluation.verify.reading import OutputTarget, Reading

__all__ = ["Correction", "Search", "Verdict", "search"]

MATERIAL = 0.05  # least share of the error that a mistake costs
_ROUNDS = 3
_FIRST_EVENTS = 16
_MOST_TRIED = 6

Option = tuple[str, OutputTarget, str]  # question, target, remedy


@dataclass(frozen=True)
class Correction:
    """A change of the reading that lowers the error."""

    question: str
    name: str
    remedy: str
    gain: Gain


@dataclass(frozen=True)
class Verdict:
    """What the comparisons of one question say about the last reading.

    Attributes:
        question: Name of the check.
        closest: The alternative with the largest gain, and it.
        undecided: Alternatives that are neither excluded nor better, with their gains.
        tried: Number of alternatives.
    """

    question: str
    closest: tuple[str, Gain]
    undecided: list[tuple[str, Gain]]
    tried: int


@dataclass(frozen=True, eq=False)
class Search:
    """The result.

    Attributes:
        reading, target: The best reading.
        stated, best: Errors of the stated and of the best reading, ``(L, n)``.
        corrections: What differs between the two.
        verdicts: By question, about the best reading.
        bound: The |t| of a significant difference.
    """

    reading: Reading
    target: OutputTarget
    stated: Tensor
    best: Tensor
    corrections: list[Correction]
    verdicts: list[Verdict]
    bound: float


@dataclass(eq=False)
class _Round:
    """Gains over the current reading in one round, by alternative (None: the target alone) and target."""

    current: Tensor
    full: dict[tuple[Alternative | None, int], Tensor] = field(default_factory=dict)
    gains: dict[tuple[Alternative | None, int], Gain] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Errors:
    """Errors of a reading and of its alternatives for all targets; each is evaluated once, since calls are costly."""

    bench: Bench
    reading: Reading
    targets: list[OutputTarget]
    known: dict[tuple[Alternative | None, int | None, tuple[int, ...] | None], Tensor] = field(default_factory=dict)

    def of(
        self, alternative: Alternative | None, events: int | None = None, levels: tuple[int, ...] | None = None
    ) -> Tensor:
        """As `Bench.errors`; ``alternative`` None is the reading itself."""
        key = (alternative, events, levels)
        if key not in self.known:
            reading = self.reading if alternative is None else alternative.change(self.reading)
            self.known[key] = self.bench.errors(reading, self.targets, events, None if levels is None else list(levels))
        return self.known[key]


def search(bench: Bench, reading: Reading, options: list[Option], alternatives: list[Alternative]) -> Search:
    """The reading that denoises best.

    Args:
        bench: Noised events.
        reading: The stated reading.
        options: What the output may estimate, the stated target first.
        alternatives: Other readings.
    """
    bound = t_bound((len(alternatives) + 1) * len(options), len(bench.x0))
    chosen, corrections, stated, best = 0, [], None, None
    done: set[str] = set()
    this = _Round(torch.empty(0))
    errors = _Errors(bench, reading, [target for _, target, _ in options])
    for _ in range(_ROUNDS):
        left = [a for a in alternatives if a.question not in done]
        this = _round(errors, left, chosen)
        stated, best = (this.current if stated is None else stated), this.current
        step = _best(this, chosen, bound)
        if step is None:
            break
        alternative, index = step
        amount = this.gains[step]
        if alternative is not None:
            reading = alternative.change(reading)
            errors = _Errors(bench, reading, errors.targets)  # if the target alone changes, all errors are known
            corrections.append(Correction(alternative.question, alternative.name, alternative.remedy, amount))
            done.add(alternative.question)
        if index != chosen:
            question, target, remedy = options[index]
            corrections.append(Correction(question, f"its output is {target.name}", remedy, amount))
            chosen = index
        best = this.full[step]
    assert stated is not None
    assert best is not None
    verdicts = _verdicts(this, options, chosen, bound)
    return Search(reading, options[chosen][1], stated, best, corrections, verdicts, bound)


def _round(known: _Errors, alternatives: list[Alternative], chosen: int) -> _Round:
    bench, targets = known.bench, known.targets
    base = known.of(None)
    this = _Round(base[chosen])
    for j in range(len(targets)):
        if j != chosen:
            _record(this, None, j, base[j])
    bound = t_bound((len(alternatives) + 1) * len(targets), min(_FIRST_EVENTS, len(bench.x0)))
    usable = [i for i in range(len(bench.sigmas)) if not bool(base[chosen, i].isnan().any())]
    probes = tuple(usable[:: max(1, len(usable) // 3)][:3])
    promising: list[tuple[float, bool, Alternative]] = []
    for alternative in alternatives:
        few = known.of(alternative, _FIRST_EVENTS, probes)
        restricted = torch.full_like(this.current, torch.nan)
        restricted[list(probes)] = this.current[list(probes)]
        first = {j: g for j in range(len(targets)) if (g := gain(restricted, few[j])) is not None}
        this.gains.update({(alternative, j): g for j, g in first.items()})
        left = {j: g.mean for j, g in first.items() if not _excluded(g, bound)}
        if left:
            promising.append((max(left.values()), chosen in left, alternative))
    promising.sort(key=lambda entry: -entry[0])
    better = False
    for i, (_, unexcluded, alternative) in enumerate(promising):
        if i >= _MOST_TRIED and (better or not unexcluded):
            continue  # what is left cannot be the best, or needs no verdict
        errors = known.of(alternative)
        for j in range(len(targets)):
            _record(this, alternative, j, errors[j])
        better |= i < _MOST_TRIED and _best(this, chosen, t_bound(len(promising), len(bench.x0))) is not None
    return this


def _excluded(amount: Gain, bound: float) -> bool:
    return amount.t < -bound or (amount.mean < -0.5 and (amount.t < -4 or amount.mean < -3))


def _record(this: _Round, alternative: Alternative | None, index: int, errors: Tensor) -> None:
    amount = gain(this.current, errors)
    if amount is not None:
        this.full[alternative, index], this.gains[alternative, index] = errors, amount


def _best(this: _Round, chosen: int, bound: float) -> tuple[Alternative | None, int] | None:
    """The best change: one thing alone, unless a second one with it is better still."""
    better = {
        key: this.gains[key] for key in this.full if this.gains[key].mean > MATERIAL and this.gains[key].t > bound
    }
    if not better:
        return None
    single = [key for key in better if key[0] is None or key[1] == chosen]
    joint = max(better, key=lambda key: better[key].mean)
    if not single:
        return joint
    alone = max(single, key=lambda key: better[key].mean)
    further = gain(this.full[alone], this.full[joint])
    return joint if further is not None and further.mean > MATERIAL and further.t > bound else alone


def _verdicts(this: _Round, options: list[Option], chosen: int, bound: float) -> list[Verdict]:
    entries: dict[str, list[tuple[str, Gain]]] = {}
    for (alternative, index), amount in this.gains.items():
        if alternative is None:
            question, target, _ = options[index]
            entries.setdefault(question, []).append((f"its output is {target.name}", amount))
        elif index == chosen:
            entries.setdefault(alternative.question, []).append((alternative.name, amount))
    result = []
    for question, gains in entries.items():
        closest = max(gains, key=lambda entry: entry[1].mean)
        undecided = [entry for entry in gains if not _excluded(entry[1], bound)]
        result.append(Verdict(question, closest, undecided, len(gains)))
    return result
