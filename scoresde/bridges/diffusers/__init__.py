"""Bridge to diffusers: `Scheduler`, a sampler of this package in any of its pipelines, and `save`, a model's folder."""

from scoresde.bridges.diffusers.save import save
from scoresde.bridges.diffusers.scheduler import Scheduler

__all__ = ["Scheduler", "save"]
