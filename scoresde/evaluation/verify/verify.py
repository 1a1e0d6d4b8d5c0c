"""`verify(model, data)`: whether a network is called as it was trained, by how well it denoises the user's own data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.checks import check_integer, check_kind, check_seed
from scoresde.data import Data
from scoresde.evaluation.verify.alternatives import alternatives, targets
from scoresde.evaluation.verify.comparison import Bench
from scoresde.evaluation.verify.condition_check import check_condition
from scoresde.evaluation.verify.error_checks import check_denoising, check_weights
from scoresde.evaluation.verify.events import Events, events_of
from scoresde.evaluation.verify.moments import LinearDenoiser
from scoresde.evaluation.verify.reading import Reading
from scoresde.evaluation.verify.score_identities import check_score_scale
from scoresde.evaluation.verify.search import Search, search
from scoresde.evaluation.verify.sentences import reading_checks
from scoresde.evaluation.verify.step_check import check_steps
from scoresde.evaluation.verify.verification import Check, Verification
from scoresde.model import Model, check_model, evaluating, gaussian_process

__all__ = ["verify"]

_FRACTIONS = (0.7, 0.5, 0.3, 0.15, 0.07, 0.03)
"""Errors of the linear denoiser as fractions of the data's variance: the noise levels that are looked at."""

Peer = Callable[[Model], Check]


def verify(
    model: Model,
    data: Data | ArrayLike,
    *,
    units: Literal["data", "model"] = "data",
    cond: Mapping[str, Any] | None = None,
    others: Mapping[str, Model] | None = None,
    peer: Peer | None = None,
    limit: int = 128,
    seed: int = 0,
) -> Verification:
    r"""Checks that a network is called as it was trained, on the user's own data.

    At noise levels where the linear denoiser leaves 70 to 3 % of the data's variance, the network's error of x_0 is
    compared with that of other readings of the same network, on the same noises: another target or sign, another state
    (VP, VE, flow, EDM's scaling), another clock, time or step, data of another range, scale, channel order or
    orientation. A mistake is reported if one reading is better by at least 5 % and significantly so: by a paired
    t-test over events with Bonferroni's bound at 0.001. What the data cannot decide is reported as undecidable.

    Args:
        model: A `ScoreModel`, or any other model, whose noise estimate is then checked.
        data: A `Data` (its test part, if it has 64 events), or events ``(n, *D)``; at least 32 in all. Its values are
            taken to model units by the model's own description, which is part of what is checked.
        units: Of events that are no `Data`: those of the data (integers of quantized data), or of the model. A model
            without a description takes model units.
        cond: Conditions of events that are no `Data`, by name, in data units. A network with conditions needs them.
        others: Models with other weights of the same network, e.g. ``{"averaged weights": model}``.
        peer: Compares the chain with that of another package; called with ``model``, returns a `Check`.
        limit: Largest number of events; low-dimensional ones are noised several times. The cost is proportional.
        seed: Of the choice of events and of all noise.

    Returns:
        The checks. ``print`` shows them as a table; ``ok`` is False if one failed.

    Raises:
        TypeError: If an argument has the wrong kind.
        ValueError: If there are fewer than 32 events, or a condition of the network is absent.

    Source: The linear denoiser is Wiener's. Stein's identity; Hyvärinen 2005, eq. 4; Hutchinson 1989.

    Example:
        >>> import torch
        >>> import scoresde as sd
        >>> model = sd.Gaussian(torch.zeros(2), torch.tensor([0.5, 2.0]))
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> result = sd.verify(model, x * torch.tensor([0.5, 2.0]).sqrt())
        >>> result.ok
        True
    """
    check_model(model)
    gaussian_process(model, "verify")
    check_arguments(verify, locals())
    check_integer("limit", limit, 32)
    begin, seed = time.perf_counter(), check_seed(seed)
    if model.jump_times is not None:
        raise ValueError("a few-step student is no denoiser at one time; verify the model of its velocity, diagonal().")
    events = events_of(model, data, units, cond, limit, seed)
    generator = torch.Generator().manual_seed(seed)
    linear = LinearDenoiser.fit(events.rest)
    sigmas = tuple(linear.sigma_at(fraction) for fraction in _FRACTIONS)
    bench = Bench.draw(events.x0, sigmas, generator, events.repeats)
    with evaluating(model), torch.no_grad():
        found, checks = _checks(model, events, bench, linear, generator, dict(others or {}), seed)
    if peer is not None:
        check = peer(model)
        check_kind("the result of peer", check, Check)
        checks.append(check)
    used = [i for i in range(len(sigmas)) if not bool(found.stated[i].isnan().any())]
    return Verification(
        tuple(checks),
        len(events.x0),
        tuple(-2 * math.log(sigmas[i]) for i in used),
        tuple(float(found.stated[i].mean()) for i in used),
        tuple(linear.error(sigmas[i]) for i in used),
        time.perf_counter() - begin,
    )


def _checks(
    model: Model,
    events: Events,
    bench: Bench,
    linear: LinearDenoiser,
    generator: torch.Generator,
    others: Mapping[str, Model],
    seed: int,
) -> tuple[Search, list[Check]]:
    deviation = math.sqrt(linear.variance())
    stated = Reading(model, events.shape, cond=events.cond)
    options = targets(model, deviation)
    changes = alternatives(model, events.all, events.shape, deviation)
    found = search(bench, stated, options, changes)
    explained = check_denoising(bench, found.best, linear, True).outcome != "failed"
    checks = [check_denoising(bench, found.stated, linear, bool(found.corrections) and explained)]
    checks += reading_checks(found, explained)
    reading, target, best = found.reading, found.target, found.best
    if reading.time is None:
        checks.append(check_steps(reading, events.x0, target, generator))  # pyright: ignore[reportArgumentType]
    for name in events.cond:
        checks.append(check_condition(name, events.classes.get(name), bench, reading, target, best, seed))
    checks.append(check_weights(bench, reading, target, best, others))  # pyright: ignore[reportArgumentType]
    checks.append(check_score_scale(bench, stated, options[0][1], generator))
    return found, [check for check in checks if check is not None]
