"""Bridge to diffusers: `Scheduler`, a sampler of this package in any of its pipelines."""

from scoresde.bridges.diffusers.scheduler import Scheduler

__all__ = ["Scheduler"]
