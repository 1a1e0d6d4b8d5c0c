"""Sentences of the checks of readings: what differs from the stated one, what is excluded, what is undecidable."""

from __future__ import annotations

from scoresde.evaluation.verify.search import Search, Verdict
from scoresde.evaluation.verify.verification import Check

__all__ = ["reading_checks"]

_QUESTIONS = ("output", "sigma_data", "state", "time", "data scale", "column order", "channel order", "orientation")
_MOST_NAMED = 3
_UNEXPLAINED = " This does not explain the error, which stays worse than the linear denoiser's: it may be no mistake."


def reading_checks(found: Search, explained: bool = True) -> list[Check]:
    """One check per question, in the order of the table.

    Args:
        found: The result of the search.
        explained: Whether the best reading is no longer worse than the linear denoiser.
    """
    checks: dict[str, Check] = {}
    for verdict in found.verdicts:
        checks[verdict.question] = _from_verdict(verdict)
    for question in dict.fromkeys(correction.question for correction in found.corrections):
        parts = [correction for correction in found.corrections if correction.question == question]
        names = " and ".join(part.name for part in parts)
        amount = parts[-1].gain
        sentence = f"the network denoises better as if {names}: {amount.text()}."
        remedy = "; ".join(part.remedy for part in parts)
        if not explained:
            sentence += _UNEXPLAINED
            remedy = f"look for another cause first, in the data, the weights and the network's inputs; then: {remedy}"
        evidence = {f"gain as if {names}": (amount.mean, amount.stderr)}
        checks[question] = Check(question, "failed", sentence, remedy, evidence)
    order = {name: i for i, name in enumerate(_QUESTIONS)}
    return sorted(checks.values(), key=lambda check: order.get(check.name, len(order)))


def _from_verdict(verdict: Verdict) -> Check:
    name, amount = verdict.closest
    evidence = {f"gain as if {name}": (amount.mean, amount.stderr)}
    if not verdict.undecided:
        worse = "the only alternative is worse" if verdict.tried == 1 else f"{verdict.tried} alternatives are worse"
        sentence = f"{worse}; the closest, as if {name}: {amount.text()}."
        return Check(verdict.question, "passed", sentence, evidence=evidence)
    named = sorted(verdict.undecided, key=lambda entry: -entry[1].mean)
    evidence |= {f"gain as if {other}": (g.mean, g.stderr) for other, g in named}
    listed = "; ".join(f"as if {other}: {g.text()}" for other, g in named[:_MOST_NAMED])
    more = f"; and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    sentence = f"these data cannot tell it from {len(named)} of {verdict.tried} alternatives: {listed}{more}."
    return Check(verdict.question, "undecidable", sentence, evidence=evidence)
