"""What all fits to one model share: noises, their reference solutions, the data's moments, and the surrogate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde._core.call_inputs import empty_state
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde.model import Model, gaussian_process
from scoresde.process import ou
from scoresde.sampling.base import StepSampler
from scoresde.sampling.calibration.candidates import Candidate, candidate_methods, is_small
from scoresde.sampling.calibration.far_noises import with_far_noises
from scoresde.sampling.calibration.fractions import StepFractions
from scoresde.sampling.calibration.noises import NoiseBatch, NoisePool
from scoresde.sampling.calibration.reference import ReferenceSolutions, join, solve_reference
from scoresde.sampling.calibration.surrogate import Sketch, Surrogate
from scoresde.sampling.moments import Moments
from scoresde.sampling.whitened import MAX_START_ALPHA, WhitenedCoordinates

__all__ = ["Preparation", "default_noises", "draw_noises", "prepare", "reference_evaluations", "reference_steps"]

_MIN_NOISES_FOR_MOMENTS, _MAX_ELEMENTS = 16, 4096
_RANDOM_DIVISOR = 5  # with a pool, one in five of the noises is taken at random
_SURROGATE_NOISES = 64
_COMPLEMENT = 32  # directions of the surrogate that stand for those without a principal axis
_MOMENT_STEPS = 20  # of the solutions from which moments are computed
_SHARPENING_STATES = 64  # for each element of an event, see `Moments.sharpened`


@dataclass(frozen=True, eq=False)
class Preparation:
    """What all fits to one model share.

    Attributes:
        fit, held_out: Pools of noises with their reference solutions.
        coordinates: In which candidates run: None for x, and moments for whitened coordinates.
        solved: The reference solutions of ``fit``.
        elements: The recorded elements of these; None for all.
        surrogate: The network near the first of the reference solutions.
    """

    fit: NoisePool
    held_out: NoisePool
    coordinates: tuple[Moments | None, ...]
    solved: ReferenceSolutions
    elements: Tensor | None
    surrogate: Surrogate

    @property
    def surrogate_weights(self) -> Tensor:
        """Weights of the surrogate's noises."""
        return self.fit[:_SURROGATE_NOISES].weights


def default_noises(model: Model, shape: Sequence[int] | None = None) -> int:
    """Noises of a fit by default; more for events whose networks are cheap."""
    event_shape = model.event_shape if shape is None else shape
    return 200 if event_shape is not None and is_small(event_shape) else 75


def draw_noises(
    model: Model, shape: Sequence[int] | None, n: int, generator: torch.Generator | None, dtype: torch.dtype | None
) -> tuple[Tensor, torch.Generator]:
    """``n`` draws from the prior, and the generator that drew them."""
    event_shape = model.event_shape if shape is None else tuple(shape)
    for size in event_shape or ():
        check_integer("each entry of shape", size)
    if event_shape is None:
        raise ValueError("calibrate needs the shape of an event, and the model states none; pass shape=(…).")
    like = empty_state(model, dtype)
    if generator is None:
        generator = torch.Generator(like.device).manual_seed(int(torch.randint(2**62, ())))
    x = model.sde.prior(like.new_empty(n, *event_shape), Noise(generator), model.sde.tau_max)
    model._check_event(x)
    return x, generator


def reference_steps(steps: int) -> int:
    """Steps of the reference: its error is a few percent of what a calibration of ``steps`` steps leaves."""
    return max(40, 8 * steps - 40)


def reference_evaluations(model: Model, originals: Sequence[StepSampler], noises: int, pool: int) -> int:
    """Network evaluations of `prepare`, at most."""
    steps = max(each.steps for each in originals)
    coarse = 4 * pool * noises * (steps + 3) if pool > 1 else 0
    return (2 * noises * (reference_steps(steps) + 1) + noises * (_MOMENT_STEPS + 1) + coarse) * model.cost


def prepare(
    model: Model,
    originals: Sequence[StepSampler],
    batch: NoiseBatch,
    noises: int,
    whiten: bool | Moments,
    generator: torch.Generator,
) -> Preparation:
    """Solves the reference from ``noises`` of each half of a batch, and estimates the moments.

    Args:
        model: The model, in eval mode.
        originals: The samplers to be calibrated, on grids with the same ends.
        batch: Noises; the first half for the fit, the second held out.
        noises: Noises in use of each half. If there are more, the hardest are taken, see `NoisePool.with_hardest`;
            otherwise some are replaced, see `with_far_noises`.
        whiten: Moments, or whether they are estimated.
        generator: Source of randomness.
    """
    original = max(originals, key=lambda each: each.steps)
    fractions = StepFractions.from_grid(original.grid.times(model.sde, original.steps), model.sde.tau_min)
    steps, elements = reference_steps(original.steps), _recorded_elements(batch.x)

    def solve(part: NoiseBatch, kept: Tensor | None = elements) -> ReferenceSolutions:
        return solve_reference(model, fractions, steps, part, kept)

    none = torch.empty(0, dtype=torch.long, device=batch.x.device)
    fit_half, held_out_half = batch[: len(batch) // 2], batch[len(batch) // 2 :]
    n_random = noises if len(fit_half) == noises else -(-noises // _RANDOM_DIVISOR)
    fit_noises, weights = _first(fit_half, n_random, gaussian_process(model).prior_std)
    solved = solve(fit_noises)
    fit = NoisePool(fit_noises, solved.ends, weights)
    held_out_noises, weights = _first(held_out_half, n_random, gaussian_process(model).prior_std)
    held_out = NoisePool(held_out_noises, solve(held_out_noises, none).ends, weights)
    moments = _moments(model, original, batch[:noises], whiten, generator)
    if n_random < noises:
        coarse = Candidate(model, original, candidate_methods(original)[0], moments)
        rows, easy = hardest(fit_half, n_random, noises, coarse)
        hard = solve(fit_half[rows])
        fit = fit.with_hardest(fit_half[rows], hard.ends, easy, len(fit_half))
        rows, easy = hardest(held_out_half, n_random, noises, coarse)
        ends = solve(held_out_half[rows], none).ends
        held_out = held_out.with_hardest(held_out_half[rows], ends, easy, len(held_out_half))
        solved = join([solved, hard])
    coordinates = (None,) if moments is None else (None, moments)
    surrogate = Surrogate(solved[:_SURROGATE_NOISES], _sketch(moments, solved.x0[fit.weights >= 1], elements), elements)
    return Preparation(fit, held_out, coordinates, solved, elements, surrogate)


def _first(half: NoiseBatch, count: int, std: float) -> tuple[NoiseBatch, Tensor]:
    """The first noises of a half with their weights. If these are all, some of them are moved to far noises."""
    if count == len(half):
        return with_far_noises(half, std)
    return half[:count], half.x.new_ones(count)


def hardest(pool: NoiseBatch, n_random: int, noises: int, coarse: Candidate) -> tuple[Tensor, Tensor]:
    """The hardest noises of a pool beyond its first ``n_random``, ``noises - n_random`` of them.

    They are those from which two rollouts of ``coarse``, on different grids, end farthest apart.

    Returns:
        Their rows, and which of the first ``n_random`` noises are easier than every one of them, bool.
    """
    powers = (4 / 3, 5 / 3)
    grids = [coarse.fractions.times(coarse.fractions.power_positions(power, coarse.steps)) for power in powers]
    distances = []
    for begin in range(0, len(pool), noises):
        part = pool[begin : begin + noises]
        rollouts = coarse.rollouts(NoisePool.equally_weighted(part, part.x))  # only the last states are used
        difference = rollouts.end(grids[0]) - rollouts.end(grids[1])
        distances.append(difference.reshape(len(part), -1).square().mean(1))
    distance = torch.cat(distances)
    rows = n_random + distance[n_random:].argsort(descending=True)[: noises - n_random]
    return rows, distance[:n_random] < distance[rows].min()


def _recorded_elements(x: Tensor) -> Tensor | None:
    """Random elements of large events, whose trajectories would need too much memory; None for all."""
    size = x[0].numel()
    if size <= _MAX_ELEMENTS:
        return None
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))[:_MAX_ELEMENTS].to(x.device)


def _moments(
    model: Model, original: StepSampler, like: NoiseBatch, whiten: bool | Moments, generator: torch.Generator
) -> Moments | None:
    """Moments given, or those of coarse solutions from other noises; None where that is impossible or not wanted.

    With moments of the solutions to which it is fitted, a whitened candidate would seem better than it is. They are
    sharpened by the network where that costs no more than a rollout from all noises.

    Args:
        model: The model.
        original: The sampler to be calibrated.
        like: Noises with their conditioning; as many others are drawn.
        whiten: Moments, or whether they are wanted.
        generator: Source of the other noises.
    """
    taus, size = original.grid.times(model.sde, original.steps), like.x[0].numel()
    if ou.alpha(taus[0]) > MAX_START_ALPHA:
        return None
    if isinstance(whiten, Moments):
        _ = WhitenedCoordinates(whiten, like.x)  # raises for moments of another shape
        return whiten
    if not whiten or len(like) < _MIN_NOISES_FOR_MOMENTS or size > _MAX_ELEMENTS:
        return None
    others = replace(like, x=model.sde.prior(torch.empty_like(like.x), Noise(generator), model.sde.tau_max))
    fractions = StepFractions.from_grid(taus, model.sde.tau_min)
    x0 = solve_reference(model, fractions, _MOMENT_STEPS, others, like.x.new_empty(0, dtype=torch.long)).x0
    if _SHARPENING_STATES * (size + 1) > len(like) * original.steps:
        return Moments.of(x0)
    return Moments.of(x0).sharpened(others.predict(model), x0, Noise(generator).normal)


def _sketch(moments: Moments | None, x0: Tensor, elements: Tensor | None) -> Sketch:
    """The coordinates of the surrogate."""
    if elements is None and (moments is not None or len(x0) > 1):
        return Sketch.of_axes(Moments.of(x0) if moments is None else moments, _COMPLEMENT)
    flat = x0.reshape(len(x0), -1)
    return Sketch.of_elements(flat if elements is None else flat[:, elements])
