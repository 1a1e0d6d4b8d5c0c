"""Samples drawn by the processes of a launcher, each its share, and gathered in the main one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.distributed import Rank
    from scoresde.model import Model
    from scoresde.sampling import Sampler, Samples

__all__ = ["gather_samples", "sample_in_processes"]


def sample_in_processes(
    rank: Rank,
    model: Model,
    sampler: Sampler,
    n: int,
    seeds: int | list[int],
    settings: dict[str, Any],
    cond: Mapping[str, Tensor] | None = None,
) -> Samples | None:
    """Samples ``n`` events, each process its share, and gathers them in the main process.

    Args:
        rank: This process.
        model: On its device.
        sampler: The sampler.
        n: Number of samples of all processes together.
        seeds: One per sample; or one number, which seeds a generator for all samples of a single process, and from
            which several processes derive a seed for each sample.
        settings: Options of `scoresde.sampling.sample`.
        cond: Conditions of the ``n`` samples in model units, by name.

    Returns:
        All samples, on the CPU if there are several processes; None in all but the main one.
    """
    import torch

    from scoresde.sampling import sample
    from scoresde.training.source import derive

    rows = rank.rows(n, settings["batch_size"])
    source: dict[str, Any] = {}
    if isinstance(seeds, list):
        source["seeds"] = seeds[rows.start : rows.stop]
    elif rank.count > 1:
        source["seeds"] = [derive(seeds, row) for row in rows]
    else:
        source["generator"] = torch.Generator(next(model.parameters()).device).manual_seed(seeds)
    device = next(model.parameters()).device
    source |= {name: value[rows.start : rows.stop].to(device) for name, value in (cond or {}).items()}
    settings = {**settings, "progress": settings["progress"] and rank.main}
    samples = sample(model, len(rows), sampler, **source, **settings)
    return gather_samples(rank, samples, trajectory=settings["trajectory"])


def gather_samples(rank: Rank, samples: Samples, *, trajectory: bool) -> Samples | None:
    """The samples of all processes, on the CPU if there are several; None in all but the main process.

    Raises:
        ValueError: If trajectories are requested and the times differ between processes.
    """
    import dataclasses

    import torch

    if rank.count == 1:
        return samples
    x, nfe, states = rank.gather(samples.x), rank.gather(torch.tensor([samples.nfe])), None
    labels = None if samples.labels is None else rank.gather(samples.labels)
    if trajectory:
        own = samples.x.unsqueeze(1) if samples.trajectory is None else samples.trajectory.transpose(0, 1)
        states = rank.gather(own)
        taus = rank.gather(torch.tensor([samples.taus or ()], dtype=torch.float64)[: len(own)])
        if taus is not None and len(taus) and bool((taus != taus[0]).any()):
            raise ValueError(
                "a trajectory needs the same times in every process, got different ones; use a sampler with fixed "
                "steps."
            )
    if x is None or nfe is None:
        return None
    gathered = None if states is None else states.transpose(0, 1)
    return dataclasses.replace(samples, x=x, nfe=int(nfe.max()), trajectory=gathered, labels=labels)
