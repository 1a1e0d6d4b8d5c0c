"""The readings that `verify` compares with the stated one: targets of the output, states, times and data values.

Each `Alternative` changes one thing, the answer to one question. Alternatives of the target cost no network call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from scoresde.evaluation.verify.reading import OutputTarget, Reading, fed_factor, stated_target
from scoresde.evaluation.verify.times import time_alternatives
from scoresde.evaluation.verify.values import order_alternatives, value_alternatives
from scoresde.model import Model, ScoreModel
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Parameterization, Score, V, Velocity

__all__ = ["Alternative", "alternatives", "targets"]

_STATES = {
    "x / alpha (variance exploding)": lambda tau: 1.0 / float(ou.alpha(tau)),
    "x (variance preserving)": lambda _tau: 1.0,
    "x / (alpha + sigma) (flow matching)": lambda tau: 1.0 / (float(ou.alpha(tau)) + float(ou.sigma(tau))),
}


@dataclass(frozen=True, eq=False)
class Alternative:
    """A reading that differs from another one in one thing.

    Attributes:
        question: What it answers, the name of the check.
        name: What the network would be, to complete "as if …".
        remedy: What to write.
        change: The reading with the change.
    """

    question: str
    name: str
    remedy: str
    change: Callable[[Reading], Reading]


def targets(model: Model, deviation: float) -> list[tuple[str, OutputTarget, str]]:
    """Question, target and remedy of each thing that the output may estimate; the first is the stated one.

    Args:
        model: The model.
        deviation: Standard deviation of the data in model units.
    """
    stated = stated_target(model)
    kinds: list[tuple[str, Parameterization, float, str]] = []
    for name, parameterization, text in (
        ("eps", Eps(), "Eps()"),
        ("x_0", X0(), "X0()"),
        ("v", V(), "V()"),
        ("eps - x_0", Velocity(), "Velocity()"),
        ("the score", Score(), "Score()"),
    ):
        kinds.append((name, parameterization, 1.0, f"parameterization={text}"))
        kinds.append((f"-({name})", parameterization, -1.0, f"parameterization={text}, and the output negated"))
    for sigma_data in _sigma_data(model, deviation):
        text = f"V(sigma_data={sigma_data:g})"
        kinds.append((text, V(sigma_data), 1.0, f"parameterization={text}"))
        kinds.append((f"-{text}", V(sigma_data), -1.0, f"parameterization={text}, and the output negated"))
    result = [("output", stated, "")]
    for name, parameterization, factor, remedy in kinds:
        if (parameterization, factor) != (stated.parameterization, stated.factor):
            both_v = isinstance(parameterization, V) and isinstance(stated.parameterization, V) and factor == 1.0
            question = "sigma_data" if both_v else "output"
            result.append((question, OutputTarget(name, parameterization, factor), remedy))
    return result


def _sigma_data(model: Model, deviation: float) -> list[float]:
    """EDM's values: 0.5, the deviation of the data, and neighbors of the stated one; without those that are alike."""
    stated = model.parameterization.sigma_data if _is_v(model) else None  # pyright: ignore
    values = [0.5, 0.25, 2.0, float(f"{deviation:.3g}")]
    kept: list[float] = []
    for value in values:
        others = [*kept, 1.0, *([] if stated is None else [stated])]
        if all(abs(math.log(value / other)) > 0.15 for other in others):
            kept.append(value)
    return kept


def _is_v(model: Model) -> bool:
    return isinstance(model, ScoreModel) and isinstance(model.parameterization, V)


def alternatives(model: Model, x0: Tensor, shape: tuple[int, ...], deviation: float) -> list[Alternative]:
    """Every alternative that costs network calls and can matter for these data.

    Args:
        model: The model.
        x0: Events in stated model units, ``(n, d)``.
        shape: Shape of one event.
        deviation: Their standard deviation.
    """
    return [
        *state_alternatives(model, deviation),
        *(_of_time(*entry) for entry in time_alternatives(model)),
        *(_of_values(*entry) for entry in value_alternatives(x0, shape)),
        *(_of_values(*entry) for entry in order_alternatives(x0, shape)),
    ]


def state_alternatives(model: Model, deviation: float) -> list[Alternative]:
    """Other states that the network may take: x, or what a view or EDM's scaling makes of it."""
    states: dict[str, tuple[str, Callable[[float], float]]] = {name: ("state", f) for name, f in _STATES.items()}
    for sigma_data in _sigma_data(model, deviation):
        name = f"x̃ / sqrt(sigma_data² + σ̃²) with sigma_data = {sigma_data:g}"
        states[name] = ("sigma_data", _edm_factor(sigma_data))
    stated = fed_factor(model)
    result = []
    for name, (question, factor) in states.items():
        ratios = [factor(tau) / stated(tau) for tau in _PROBES]
        if max(abs(math.log(ratio)) for ratio in ratios) > 0.05:
            result.append(_of_state(question, name, factor, stated))
    return result


_PROBES = tuple(float(ou.tau_from_log_snr(v)) for v in (-3.0, 0.0, 3.0))


def _edm_factor(sigma_data: float) -> Callable[[float], float]:
    def factor(tau: float) -> float:
        return 1.0 / math.hypot(sigma_data * float(ou.alpha(tau)), float(ou.sigma(tau)))

    return factor


def _of_state(
    question: str, name: str, factor: Callable[[float], float], stated: Callable[[float], float]
) -> Alternative:
    def ratio(tau: float) -> float:
        return factor(tau) / stated(tau)

    remedy = (
        f"feed the network {name}: an adapter does (scoresde.adapters), FromSigma for x̃ = x / alpha and EDM's scaling, "
        "FromTime for the state of a view, none for x"
    )
    return Alternative(question, f"it takes {name}", remedy, lambda reading: replace(reading, factor=ratio))


def _of_time(question: str, name: str, remedy: str, time: Callable[[float], float | None]) -> Alternative:
    return Alternative(question, name, remedy, lambda reading: replace(reading, time=time))


def _of_values(question: str, name: str, remedy: str, change: Callable[[Reading], Reading]) -> Alternative:
    return Alternative(question, name, remedy, change)
