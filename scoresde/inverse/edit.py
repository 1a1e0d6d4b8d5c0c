r"""SDEdit: an event is noised to $x_\tau = \alpha x_0 + \sigma\varepsilon$, and a sampler leads it back to the data.

The later τ, the more changes. For data N(m, c²) per entry and $v = \alpha^2c^2 + \sigma^2$ the edit of x has

- by the probability-flow ODE mean $m + \alpha(c/\sqrt v)(x - m)$ and variance $\sigma^2c^2/v$;
- by the reverse SDE mean $m + (\alpha^2c^2/v)(x - m)$ and variance $c^2\sigma^2/v + (\alpha c^2/v)^2\sigma^2$.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import check_per_sample, cond_inputs
from scoresde._core.checks import check_kind, check_seeds
from scoresde._core.noise import Noise
from scoresde.inverse.replacement import Replacement
from scoresde.inverse.seeds import later_seeds
from scoresde.inverse.units import KnownEvents
from scoresde.likelihood.batching import batches
from scoresde.model import Model, refuse_unknown
from scoresde.process.mixed import Mixed
from scoresde.process.sde import SDE
from scoresde.sampling import DDPM, Ancestral, MixedSampler, Sampler, Samples, sample

__all__ = ["Edited", "edit"]


@dataclass(frozen=True, eq=False)
class Edited:
    """Edited events.

    Attributes:
        data: In data units where the model knows its data, else in model units, ``(n, *D)``. Entries that were kept
            are those that arrived, bit for bit.
        x: Model units, ``(n, *D)``.
        tau: OU time to which the events were noised.
        nfe: Network evaluations per event.
    """

    data: Tensor = field(repr=False)
    x: Tensor = field(repr=False)
    tau: float
    nfe: int


def edit(
    model: Model,
    x: ArrayLike,
    tau: float | None = None,
    sampler: Sampler | None = None,
    *,
    strength: float | None = None,
    mask: ArrayLike | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    denoise: bool = False,
    batch_size: int | None = None,
    **cond: Tensor,
) -> Edited:
    r"""Edits events: noises them to ``tau``, and samples from there.

    Args:
        model: Trained or exact.
        x: Events, ``(n, *D)``: in data units where the model knows its data (``model.data``), integers included; else
            in model units. They are converted once, through the description, integers at the centers of their bins.
        tau: OU time to which the events are noised, in (tau_min, tau_max].
        sampler: Any; default ``DDPM(steps=250)``, of categories ``Ancestral(steps=250)``, of numbers and categories
            ``MixedSampler()``. It starts at ``tau``; a step sampler makes all its steps from there.
        strength: Instead of ``tau``: the schedule's u in (0, 1], so that ``tau`` is τ(u). 1 leaves nothing of x.
        mask: Which entries are kept exactly, true for those: ``(n, *D)``, ``(*D)``, or what broadcasts to an event,
            such as ``(H, W)``. The sampler sees them as noised originals at every step (`Replacement`), and what comes
            back has their values as they arrived. Where known and changed entries are independent this is exact; where
            they are not, `inpaint` fits the rest better.
        generator: Source of all randomness; default a new generator seeded from the global one.
        seeds: One integer in [0, 2**63) per event instead. An edit then depends on its own seed, not on its batch.
        denoise: Ends with one more network call, as in `sample`.
        batch_size: Events at once; default all.
        **cond: Passed to the network, one entry per event, ``(n, …)``.

    Returns:
        See `Edited`.

    Raises:
        TypeError: If the model is not a Model, the sampler not a Sampler or the mask not bool.
        ValueError: If not exactly one of ``tau`` and ``strength`` is given or it is out of range; if the events
            contradict the description; if shapes or seeds do not fit.
        RuntimeError: As `sample`.

    Example:
        >>> import torch
        >>> from scoresde import Adams, GaussianMixture, edit
        >>> ring = GaussianMixture.ring()
        >>> edited = edit(ring, torch.zeros(4, 2, dtype=torch.float64), 0.5, Adams(steps=10), seeds=range(4))
        >>> edited.data.shape, edited.nfe
        (torch.Size([4, 2]), 10)

    Source: Meng et al. 2022 (SDEdit), algorithms 1 and 2.
    """
    refuse_unknown(edit, model, cond)
    sampler = default_sampler(model) if sampler is None else sampler
    check_kind("sampler", sampler, Sampler)
    check_arguments(edit, locals())
    start = _start(model, tau, strength)
    events, cond = KnownEvents.of(model, x), cond_inputs(model, cond)
    known = None if mask is None else events.model_mask(mask)
    check_per_sample(cond, len(events.x), "event")
    if generator is not None and seeds is not None:
        raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
    seeds = None if seeds is None else check_seeds(seeds, len(events.x))
    if generator is None and seeds is None:
        generator = torch.Generator(events.x.device).manual_seed(int(torch.randint(2**62, ())))
    scale = float(model.sde.scale(min(start, 300.0)))
    parts: list[Samples] = []
    for rows in batches(len(events.x), batch_size) or [slice(0, 0)]:
        x0, later = events.x[rows], None if seeds is None else later_seeds(seeds[rows])
        noise = Noise(generator, None if seeds is None else seeds[rows])
        init = model.sde.perturb(x0, start, model.sde.draw_noise(x0, noise)) * scale
        used = model if known is None else Replacement(model, x0, known[rows])
        options: dict[str, Any] = {"generator": generator, "seeds": later, "denoise": denoise}
        each: dict[str, Any] = {name: value[rows] for name, value in cond.items()}
        parts.append(sample(used, init.shape, sampler, start=start, init=init, dtype=init.dtype, **options, **each))
    result = torch.cat([part.x for part in parts])
    if known is not None:
        result = torch.where(known, events.x, result)
    data = events.to_data(result, None if mask is None else events.data_mask(mask))
    return Edited(data, result, start, max(part.nfe for part in parts))


def default_sampler(model: Model) -> Sampler:
    """A chain of 250 steps for the process of a model."""
    if isinstance(model.sde, Mixed):
        return MixedSampler()
    return DDPM(steps=250) if isinstance(model.sde, SDE) else Ancestral(steps=250)


def _start(model: Model, tau: float | None, strength: float | None) -> float:
    """The OU time from which sampling starts."""
    sde = model.sde
    if (tau is None) == (strength is None):
        raise ValueError(
            f"an edit begins at one time, got tau = {tau!r} and strength = {strength!r}; pass tau= (OU time) or "
            "strength= (in (0, 1])."
        )
    if strength is not None:
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], got {strength!r}; 0.4 is moderate.")
        tau = sde.tau_max if strength == 1 else float(sde.schedule.tau(float(strength)))
    assert tau is not None
    check = f"tau must lie in (tau_min, tau_max] = ({sde.tau_min:g}, {sde.tau_max:g}], got {tau!r}"
    if not sde.tau_min < tau <= sde.tau_max * (1 + 1e-6):
        raise ValueError(check + ("; raise the strength." if strength is not None else "."))
    return float(tau)
