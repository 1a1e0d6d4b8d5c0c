"""What is found out about one model? It is trained, scored on held-out data, drawn from by each sampler, measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scoresde._core.atomic import atomic_file
from scoresde.data import Data
from scoresde.evaluation.distances import SampleDistances, comparable
from scoresde.evaluation.evaluate import error_by_noise, evaluate
from scoresde.experiments import report_arrays as pictures
from scoresde.experiments.plan import Comparison
from scoresde.experiments.stage_times import StageTimes
from scoresde.model import ScoreModel
from scoresde.objective.weighting import Weighting
from scoresde.sampling import Sampler, sample
from scoresde.storage.labels import short_text, slug
from scoresde.training import Callback, CallbackState, TrainingResult, train
from scoresde.training.defaults import Recipe

__all__ = ["Examination", "ModelResult", "Report"]

Report = Callable[[str], None]
"""Is told in a sentence what is going on."""


@dataclass(frozen=True, eq=False)
class ModelResult:
    """What was found out about one model.

    Attributes:
        said: JSON, an entry of ``runs`` in ``results.json``.
        arrays: What is drawn: samples, and in the plane trajectories and density.
        seconds: By stage.
        device: Where it ran.
    """

    said: dict[str, Any]
    arrays: dict[str, np.ndarray]
    seconds: dict[str, float]
    device: str


@dataclass(frozen=True, eq=False)
class Examination:
    """What is done to every model; called with a weighting and a seed. See `compare` for the fields."""

    data: Data
    recipe: Recipe
    plan: Comparison
    out: Path
    yardstick: SampleDistances
    about: Mapping[str, Any] | None = None
    device: str | None = None
    progress: bool = False
    say: Report | None = None

    def __call__(self, weighting: Weighting, seed: int) -> ModelResult:
        """Trains and examines one model."""
        label, stages, arrays = short_text(weighting), StageTimes(), {}
        name = f"{slug(weighting)}-seed{seed}"
        tell = _Teller(f"{label}, seed {seed}", self.say)
        with stages("training"):
            trained, seconds = self._train(name, weighting, seed, tell)
        model = trained.model
        said: dict[str, Any] = {"name": name, "weighting": label, "seed": seed, "steps": trained.step}
        said |= {"train_seconds": seconds, "history": [list(point) for point in trained.history]}
        said["parameters"] = sum(p.numel() for p in model.parameters())
        said["checkpoint"] = None if trained.checkpoint is None else str(trained.checkpoint.relative_to(self.out))
        with stages("likelihood"):
            beside = "" if self.plan.scoring.bounds is None else ", and by bounds"
            tell(f"scoring held-out data by the probability-flow ODE{beside}")
            said |= evaluate(model, self.data.test, self.plan.scoring, self.progress).said()
        with stages("error by noise level"):
            said["error_by_noise"] = error_by_noise(model, self.yardstick.held_out)
        said["samples"] = []
        for sampler in self.plan.samplers:
            tell(f"sampling by {short_text(sampler)}")
            said["samples"].append(self._sample(model, sampler, f"{name}/{slug(sampler)}", seed, stages, arrays))
        if model.event_shape == (2,) and seed == self.plan.seeds[0]:
            with stages("trajectories and density"):
                tell("following trajectories, and the density in the plane")
                arrays |= self._plane(model, name)
        return ModelResult(said, arrays, stages.seconds, str(next(model.parameters()).device))

    def _train(self, name: str, weighting: Weighting, seed: int, tell: Report) -> tuple[TrainingResult, float]:
        """The trained model, and the seconds its updates took, those of an interrupted run before included."""
        folder, settings = self.out / "models" / name, self.recipe.training
        settings = replace(settings, seed=seed, loss=replace(settings.loss, weighting=weighting))
        model = self.recipe.build(self.data, seed)
        resume, clock = next(folder.glob("checkpoint-*"), None) is not None, folder / "seconds.json"
        before = _seconds(clock) if resume else 0.0
        tell(f"training, {settings.steps} steps" + (", on from what is there" if resume else ""))

        def heard(moment: CallbackState) -> None:
            tell(f"step {moment.step} of {settings.steps}, loss {moment.loss:.4f}")

        def timed(_: CallbackState) -> None:
            with atomic_file(clock) as path:
                path.write_text(json.dumps(before + time.perf_counter() - begin), encoding="utf-8")

        callbacks = [Callback(max(1, settings.steps // 100), timed)]
        callbacks += [] if self.progress else [Callback(max(1, -(-settings.steps // 4)), heard)]
        begin = time.perf_counter()
        trained = train(
            model,
            self.data,
            settings,
            run_dir=folder,
            resume=resume,
            callbacks=callbacks,
            about=self.about,
            progress=self.progress,
            device=self.device,
        )
        return trained, _seconds(clock)

    def _sample(
        self,
        model: ScoreModel,
        sampler: Sampler,
        array: str,
        seed: int,
        stages: StageTimes,
        arrays: dict[str, Any],
    ) -> dict[str, Any]:
        n, device = len(self.yardstick.held_out), next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        begin = time.perf_counter()
        with stages("sampling"):
            at_once = self.plan.scoring.batch_size
            drawn = sample(model, n, sampler, generator=generator, batch_size=at_once, progress=self.progress)
        seconds = time.perf_counter() - begin
        with stages("measuring"):
            measured = self.yardstick.measure(comparable(drawn.x, self.data.description))
        arrays[array] = pictures.as_levels(drawn.x[: self.plan.kept(n, self.data.description.dims)], model)
        return {"sampler": short_text(sampler), "nfe": drawn.nfe, "seconds": seconds, "array": array, **measured}

    def _plane(self, model: ScoreModel, name: str) -> dict[str, np.ndarray]:
        found = {}
        for sampler in self.plan.samplers:
            place = f"{name}/{slug(sampler)}"
            found |= {f"{place}/path_{key}": values for key, values in pictures.paths(model, sampler).items()}
        drawn = pictures.density(model, self.yardstick.held_out)
        return found | {f"{name}/density/{key}": values for key, values in drawn.items()}


@dataclass(frozen=True)
class _Teller:
    """Puts before each sentence which model it is about."""

    about: str
    say: Report | None

    def __call__(self, text: str) -> None:
        if self.say is not None:
            self.say(f"{self.about}: {text}")


def _seconds(clock: Path) -> float:
    return float(json.loads(clock.read_text(encoding="utf-8"))) if clock.is_file() else 0.0
