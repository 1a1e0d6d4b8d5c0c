"""Examination of one model: training, likelihoods of held-out data, and samples with their distances to real data."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scoresde._core.atomic import atomic_file
from scoresde.data import Data
from scoresde.evaluation import SampleDistances, TableScores, comparable, error_by_noise, evaluate
from scoresde.evaluation.model_units import in_model_units
from scoresde.experiments.plan import Calibrated, Comparison, sampler_label
from scoresde.experiments.report_arrays import density_grid, stored_values, trajectories
from scoresde.experiments.stage_times import StageTimes
from scoresde.likelihood import Status
from scoresde.model import ScoreModel
from scoresde.objective.weighting import Weighting
from scoresde.process.sde import SDE
from scoresde.sampling import Sampler, sample
from scoresde.storage.setting_labels import short_text, slug
from scoresde.training import Callback, CallbackState, TrainingResult, train
from scoresde.training.condition_checks import conditions_of, model_cond
from scoresde.training.defaults import Recipe

__all__ = ["Examination", "ModelResult", "StatusCallback"]

StatusCallback = Callable[[str], None]
"""Receives a sentence about the step in progress."""


@dataclass(frozen=True, eq=False)
class ModelResult:
    """The results of one model.

    Attributes:
        record: JSON, an entry of ``runs`` in ``results.json``.
        arrays: Likelihoods of events, and what figures show: samples, for points in the plane trajectories and density.
        seconds: Seconds by stage.
        device: The device that was used.
    """

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    seconds: dict[str, float]
    device: str


@dataclass(frozen=True, eq=False)
class Examination:
    """Trains and evaluates one model per call, for a weighting and a seed. The fields are arguments of `compare`."""

    data: Data
    recipe: Recipe
    plan: Comparison
    out: Path
    distances: SampleDistances
    about: Mapping[str, Any] | None = None
    device: str | None = None
    progress: bool = False
    status: StatusCallback | None = None
    table: TableScores | None = None

    def __call__(self, weighting: Weighting, seed: int) -> ModelResult:
        """Trains and examines one model."""
        label, name = short_text(weighting), f"{slug(weighting)}-seed{seed}"
        stages, arrays = StageTimes(), {}
        status = partial(self._report, f"{label}, seed {seed}")
        with stages("training"):
            trained, seconds = self._train(name, weighting, seed, status)
        model = trained.model
        record: dict[str, Any] = {"name": name, "weighting": label, "seed": seed, "steps": trained.step}
        record |= {"train_seconds": seconds, "history": [list(point) for point in trained.history]}
        record["parameters"] = sum(p.numel() for p in model.parameters())
        record["checkpoint"] = None if trained.checkpoint is None else str(trained.checkpoint.relative_to(self.out))
        with stages("likelihood"):
            bounds = "" if self.plan.scoring.bounds is None else ", and by variational bounds"
            gaussian = isinstance(model.sde, SDE)
            how = f"the probability-flow ODE{bounds}" if gaussian else "a bound in continuous time"
            status(f"scoring held-out data by {how}")
            complete = self.data.complete()
            scored = evaluate(model, complete.test, self.plan.scoring, self.progress, cond=complete.test_cond)
            record |= scored.to_json()
            arrived = scored.ode.status == Status.ARRIVED
            arrays[f"{name}/likelihood"] = scored.ode.value.where(arrived, math.nan).cpu().numpy()
        with stages("error by noise level"):
            count = len(self.distances.held_out)
            x0 = in_model_units(self.data.description, complete.test[:count])
            record["error_by_noise"] = error_by_noise(model, x0, **self._cond(model, count))
        record["samples"], samplers = [], []
        for entry in self.plan.samplers:
            sampler, calibration = self._sampler(model, entry, seed, stages, status)
            status(f"sampling by {sampler_label(entry)}")
            array = f"{name}/{slug(entry)}"
            measured, drawn = self._sample(model, sampler, seed, stages)
            arrays |= {array + suffix: values for suffix, values in drawn.items()}
            record["samples"].append({"sampler": sampler_label(entry), "array": array, **measured, **calibration})
            samplers.append((array, sampler))
        without = all(condition.null for condition in conditions_of(model.net).values())
        if gaussian and model.event_shape == (2,) and seed == self.plan.seeds[0] and without:
            with stages("trajectories and density"):
                status("computing trajectories, and the density in the plane")
                arrays |= self._plane(model, name, samplers)
        return ModelResult(record, arrays, stages.seconds, str(next(model.parameters()).device))

    def _cond(self, model: ScoreModel, count: int) -> dict[str, Any]:
        """Conditions of ``count`` held-out events, from the first again where there are fewer, for the network."""
        complete = self.data.complete()
        rows = torch.arange(count) % len(complete.test)
        device = next(model.parameters()).device
        return model_cond(model, complete.test_cond, self.data.description, rows, device)

    def _report(self, prefix: str, text: str) -> None:
        if self.status is not None:
            self.status(f"{prefix}: {text}")

    def _train(
        self, name: str, weighting: Weighting, seed: int, status: StatusCallback
    ) -> tuple[TrainingResult, float]:
        """The trained model, and the seconds of its training, with those before an interruption."""
        folder, settings = self.out / "models" / name, self.recipe.training
        settings = replace(settings, seed=seed, loss=replace(settings.loss, weighting=weighting))
        model = self.recipe.build(self.data, seed)
        resume, seconds_file = next(folder.glob("checkpoint-*"), None) is not None, folder / "seconds.json"
        earlier = _read_seconds(seconds_file) if resume else 0.0
        status(f"training, {settings.steps} steps" + (", resumed from its checkpoint" if resume else ""))

        def report_step(state: CallbackState) -> None:
            status(f"step {state.step} of {settings.steps}, loss {state.loss:.4f}")

        def store_seconds(_: CallbackState) -> None:
            with atomic_file(seconds_file) as path:
                path.write_text(json.dumps(earlier + time.perf_counter() - begin), encoding="utf-8")

        callbacks = [Callback(max(1, settings.steps // 100), store_seconds)]
        callbacks += [] if self.progress else [Callback(max(1, -(-settings.steps // 4)), report_step)]
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
        return trained, _read_seconds(seconds_file)

    def _sampler(
        self, model: ScoreModel, entry: Sampler | Calibrated, seed: int, stages: StageTimes, status: StatusCallback
    ) -> tuple[Sampler, dict[str, Any]]:
        """A sampler of the plan, fitted to the model if the plan says so, and the record of the fit."""
        if not isinstance(entry, Calibrated):
            return entry, {}
        status(f"calibrating {short_text(entry.sampler)}")
        begin = time.perf_counter()
        with stages("calibration"):
            fit = entry.fit(model, seed, self.progress, **self._cond(model, 2 * entry.noises))
        record = {"seconds": time.perf_counter() - begin, "noises": fit.noises}
        record |= {"error": fit.error, "original_error": fit.original_error, "evaluations": fit.evaluations}
        return fit.sampler, {"calibration": record}

    def _sample(
        self, model: ScoreModel, sampler: Sampler, seed: int, stages: StageTimes
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Calls, seconds and distances of one sampler's samples, and those that are stored: of a table also as rows."""
        n, device = len(self.distances.held_out), next(model.parameters()).device
        generator, size = torch.Generator(device).manual_seed(seed), self.plan.scoring.batch_size
        cond = self._cond(model, n)
        begin = time.perf_counter()
        with stages("sampling"):
            samples = sample(model, n, sampler, generator=generator, batch_size=size, progress=self.progress, **cond)
        seconds = time.perf_counter() - begin
        with stages("measuring"):
            measured = self.distances.measure(comparable(samples.x, self.data.description))
        stored = {"": stored_values(samples.x[: self.plan.stored(n, self.data.description.dims)], model)}
        if self.table is not None:
            with stages("measuring"):
                rows = self.data.description.to_data(samples.x).double().cpu()
                measured["table"], stored["/table"] = self.table.measure(rows), rows.numpy()
        return {"nfe": samples.nfe, "seconds": seconds, **measured}, stored

    def _plane(self, model: ScoreModel, name: str, samplers: list[tuple[str, Sampler]]) -> dict[str, np.ndarray]:
        """Trajectories of each sampler, under the name of its samples, and the density, for points in the plane."""
        arrays = {}
        for array, sampler in samplers:
            arrays |= {f"{array}/trajectory_{key}": values for key, values in trajectories(model, sampler).items()}
        density = density_grid(model, self.distances.held_out)
        return arrays | {f"{name}/density/{key}": values for key, values in density.items()}


def _read_seconds(path: Path) -> float:
    return float(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0.0
