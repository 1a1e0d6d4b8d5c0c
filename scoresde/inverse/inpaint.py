r"""Inpainting: draws of the unknown entries of events from $p(x_{unknown} \mid x_{known})$."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import cond_inputs
from scoresde._core.checks import check_integer
from scoresde.data import Description
from scoresde.guidance.posterior import MMPS, PosteriorMethod
from scoresde.inverse.base import PosteriorSampler
from scoresde.inverse.bridge_smc import BridgeSMC
from scoresde.inverse.conditional_draws import ConditionalDraws, knows_entries, refuse_sampler
from scoresde.inverse.units import KnownEvents
from scoresde.model import Model, refuse_unknown
from scoresde.process.sde import SDE
from scoresde.sampling import Sampler

__all__ = ["Inpainted", "inpaint"]


@dataclass(frozen=True, eq=False)
class Inpainted:
    """Draws of completed events.

    Attributes:
        data: In data units where the model knows its data, else in model units, ``(n, draws, *D)``. Without noise the
            known entries are those that arrived, bit for bit.
        x: Model units, ``(n, draws, *E)``.
        nfe: Network evaluations per draw, of a particle method per particle; a product with the Jacobian counts as one.
    """

    data: Tensor = field(repr=False)
    x: Tensor = field(repr=False)
    nfe: int


def inpaint(
    model: Model,
    x: ArrayLike,
    mask: ArrayLike,
    method: PosteriorMethod | PosteriorSampler | None = None,
    sampler: Sampler | None = None,
    *,
    draws: int = 1,
    noise_std: float = 0.0,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    **cond: Tensor,
) -> Inpainted:
    """Draws the unknown entries of events given the known ones.

    Args:
        model: Trained or exact model of complete events.
        x: Events, ``(n, *D)``: in data units where the model knows its data (``model.data``), integers included; else
            in model units. Unknown entries are not read: they need only be valid values.
        mask: Which entries are known, true for those: ``(n, *D)``, ``(*D)``, or what broadcasts to an event, such as
            ``(H, W)``.
        method: How the model is conditioned; default ``MMPS()``, exact for Gaussian data, and ``BridgeSMC()`` of
            categories, and of numbers and categories. A network that reads the condition ``known`` needs none. Or a
            method that takes the observation itself, such as ``TwistedSMC()``.
        sampler: Of the steered model; default ``SASolver(99, noise=Eta(4.0, low=0.3, high=5.0))``. Its noise corrects
            errors of earlier steps, which an ODE sampler keeps, and lets a draw change its mode.
        draws: Number of draws of each event.
        noise_std: Standard deviation of independent noise of the known entries, data units. Integers need none for
            their bins: the position in a bin is independent of other entries.
        generator: Source of all randomness; default a new generator seeded from the global one.
        seeds: One integer in [0, 2**63) per event instead; its draws then do not depend on its batch.
        batch_size: Events at once; default all.
        **cond: Passed to the network, one entry per event, ``(n, …)``.

    Returns:
        See `Inpainted`.

    Raises:
        TypeError: If the model is not a Model, the mask not bool, or the method of another kind.
        ValueError: If the events contradict the description; if shapes or seeds do not fit; if the noise is negative,
            or noise of a table whose columns are mapped to model units by other than straight lines.
        RuntimeError: As `sample`.

    Example:
        >>> import torch
        >>> from scoresde import GaussianMixture, inpaint
        >>> ring = GaussianMixture.ring()
        >>> half_seen = torch.tensor([True, False])
        >>> inpaint(ring, ring.means[:1], half_seen, draws=5, seeds=[0]).data.shape
        torch.Size([1, 5, 2])
    """
    refuse_unknown(inpaint, model, cond)
    check_arguments(inpaint, locals())
    check_integer("draws", draws)
    refuse_sampler(method, sampler)
    if method is None and (noise_std or not knows_entries(model)):
        method = _default_method(model)
    events = KnownEvents.of(model, x)
    known = events.model_mask(mask)
    noise = noise_in_model_units(model.data, noise_std, events.x)
    conditional = ConditionalDraws(
        model,
        method,
        sampler,
        draws,
        noise,
        batch_size,
    )
    inputs: dict[str, Any] = cond_inputs(model, cond)
    result, nfe = conditional(events.x, known, generator, seeds, inputs)
    if noise_std > 0:
        return Inpainted(events.to_data(result), result, nfe)
    result = torch.where(known.unsqueeze(1), events.x.unsqueeze(1), result)
    return Inpainted(events.to_data(result, events.data_mask(mask)), result, nfe)


def _default_method(model: Model) -> PosteriorMethod | PosteriorSampler:
    return MMPS() if isinstance(model.sde, SDE) else BridgeSMC()


def noise_in_model_units(description: Description | None, noise_std: float, like: Tensor) -> float | Tensor:
    """A standard deviation in data units as one in model units: a number, or one per entry of an event, ``(*E)``.

    Raises:
        ValueError: If it is negative or not finite, or the map of the data is not affine.
    """
    if not 0 <= noise_std < float("inf"):
        raise ValueError(f"noise_std must be 0 or positive and finite, got {noise_std!r}.")
    if description is None or noise_std == 0:
        return float(noise_std)
    if description.encoding is not None:
        raise ValueError(
            "noise_std in data units needs data that are scaled by straight lines, got a table with maps of its "
            "columns; condition in model units by Posterior(model, Observation(…))."
        )
    scale = description.scale
    if not isinstance(scale, tuple):
        assert scale is not None
        return noise_std / scale
    per_entry = noise_std / torch.tensor(scale, dtype=like.dtype, device=like.device)
    return per_entry.reshape(-1, *(1,) * (like.ndim - 2)).expand(like.shape[1:])
