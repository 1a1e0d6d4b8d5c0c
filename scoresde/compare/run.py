"""What does a comparison do? For each seed and weighting: train, score held-out data, draw by each sampler, measure."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scoresde import spec
from scoresde.compare import pictures, record
from scoresde.compare.measure import Yardstick, comparable
from scoresde.compare.plan import Comparison
from scoresde.compare.recipe import Recipe
from scoresde.compare.references import references
from scoresde.compare.score import canonical_weights, error_by_noise, score
from scoresde.data import Data
from scoresde.model import ScoreModel
from scoresde.sampler import Sampler, sample
from scoresde.training import Trained, train
from scoresde.weighting import Simple, Weighting

__all__ = ["compare", "forget"]

Say = Callable[[str], None]


def compare(
    data: Data,
    recipe: Recipe,
    plan: Comparison | None = None,
    *,
    out: str | Path,
    command: str = "scoresde.compare",
    device: str | None = None,
    progress: bool = False,
    say: Say | None = None,
) -> Path:
    """Trains, samples, scores and measures; writes ``results.json``, ``arrays.npz`` and the models' checkpoints.

    Models that are in ``out`` already, made by the same settings and data, are not trained again, and one that was
    interrupted goes on; with others the comparison is refused.

    Args:
        data: Trained on its train part, measured against its test part.
        recipe: The model and its training; the weighting and the seed in it are those of each run.
        plan: What is compared; default `Comparison()`.
        out: The folder.
        command: What made it, for the record.
        device: Where; None leaves the choice to accelerate.
        progress: Show bars.
        say: Is told what is going on.

    Returns:
        The path of ``results.json``.

    Raises:
        ValueError: If a model in ``out`` was made by other settings or data, or the data are too few.
        OSError: If ``out`` cannot be written.
    """
    plan, out, say = plan or Comparison(), Path(out), say or (lambda _: None)
    job = _Job(data, recipe, plan, out, device, progress, say)
    job.prepare()
    for seed in plan.seeds:
        for weighting in plan.weightings:
            job.one(weighting, seed)
    return record.write(out, job.said(command), job.arrays)


def forget(out: str | Path) -> None:
    """Removes the models of an earlier comparison, and nothing else that is in the folder.

    Args:
        out: The folder.
    """
    for folder in (Path(out) / "models").glob("*-seed*"):
        if (folder / "seconds.json").is_file() or next(folder.glob("checkpoint-*"), None) is not None:
            shutil.rmtree(folder)


class _Job:
    """One comparison while it runs: what has been found so far, and the seconds it took."""

    def __init__(
        self, data: Data, recipe: Recipe, plan: Comparison, out: Path, device: str | None, progress: bool, say: Say
    ) -> None:
        self.data, self.recipe, self.plan, self.out = data, recipe, plan, out
        self.device, self.progress, self.say = device, progress, say
        self.n = min(len(data.test), len(data.train), 1000) if plan.n is None else plan.n
        self.stages, self.arrays, self.runs = record.Stages(), {}, []
        self.found: dict[str, Any] = {}
        self.ran_on = "cpu"

    def prepare(self) -> None:
        """Everything that needs no model: the yardstick, and the forward process."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"a comparison needs a folder to write to, {self.out} is none ({error}); choose another."
            ) from error
        with self.stages("floors and Gaussian"):
            self.say(f"measuring real against real, {self.n} events each")
            self.yardstick = Yardstick(self.data, self.n)
            self.found["floors"] = self.yardstick.floors
            self.found["gaussian"] = self.yardstick.gaussian
            self.found["references"] = references(self.data, self.n)
        about = self.data.description
        frames = 11 if len(about.shape) > 1 else 7
        self.found["film"], self.arrays["film"] = pictures.film(self.recipe.sde, self._film_events(), frames)
        held_out = self.data.test if self.data.description.bins is not None else self.yardstick.held_out.float()
        self.arrays["real"] = held_out[: self._kept].cpu().numpy()
        sde = self.recipe.sde
        self.found["weights"] = {record.brief(w): canonical_weights(w, sde) for w in self.plan.weightings}

    @property
    def _kept(self) -> int:
        """How many samples are stored: all, unless they are large."""
        return min(self.n, max(self.plan.shown, 4_000_000 // self.data.description.dims))

    def one(self, weighting: Weighting, seed: int) -> None:
        """One model: training, likelihood, error by noise level, samples."""
        name = f"{_slug(record.brief(weighting))}-seed{seed}"
        with self.stages("training"):
            self.say(f"training with {record.brief(weighting)}, seed {seed}")
            trained, seconds = self._train(name, weighting, seed)
        model = trained.model
        self.ran_on = str(next(model.parameters()).device)
        run: dict[str, Any] = {"name": name, "weighting": record.brief(weighting), "seed": seed}
        run |= {"steps": trained.step, "train_seconds": seconds, "history": [list(point) for point in trained.history]}
        run["parameters"] = sum(p.numel() for p in model.parameters())
        run["checkpoint"] = None if trained.checkpoint is None else str(trained.checkpoint.relative_to(self.out))
        with self.stages("likelihood"):
            self.say("scoring held-out data by the probability-flow ODE")
            run["likelihood"] = score(model, self.data.test, self.plan.scoring, self.progress)
        with self.stages("error by noise level"):
            run["error_by_noise"] = error_by_noise(model, self.yardstick.held_out)
        run["samples"] = [self._sample(model, sampler, name, seed) for sampler in self.plan.samplers]
        self.runs.append(run)
        if model.event_shape == (2,) and seed == self.plan.seeds[0]:
            self._plane(model, name)

    def said(self, command: str) -> dict[str, Any]:
        """The content of ``results.json``."""
        about, data, training = self.data.description, self.data, self.recipe.training
        settings = {"weightings": [record.brief(w) for w in self.plan.weightings], "seeds": list(self.plan.seeds)}
        settings["samplers"] = [record.brief(s) for s in self.plan.samplers]
        network = self.recipe.network
        return {
            "command": command,
            "started": self.stages.started,
            "seconds": {**self.stages.seconds, "in all": self.stages.total},
            "computer": record.computer(self.ran_on),
            "versions": record.versions(),
            "data": {
                "name": about.name,
                "shape": list(about.shape),
                "bins": about.bins,
                "train": len(data.train),
                "test": len(data.test),
                "description": spec.to_text(about),
            },
            "process": record.brief(self.recipe.sde),
            "tau_max": self.recipe.sde.tau_max,
            "tau_min": self.recipe.sde.tau_min,
            "parameterization": record.brief(self.recipe.parameterization),
            "network": record.brief(network),
            "training": record.brief(replace(training, loss=replace(training.loss, weighting=Simple()))),
            "times": record.brief(training.loss.times),
            "n": self.n,
            **settings,
            **self.found,
            "runs": self.runs,
        }

    def _train(self, name: str, weighting: Weighting, seed: int) -> tuple[Trained, float]:
        folder = self.out / "models" / name
        settings = self.recipe.training
        settings = replace(settings, seed=seed, loss=replace(settings.loss, weighting=weighting))
        model = self.recipe.build(self.data.description, seed)
        resume, clock = next(folder.glob("checkpoint-*"), None) is not None, folder / "seconds.json"
        before = float(json.loads(clock.read_text())) if resume and clock.is_file() else 0.0
        begin = time.perf_counter()
        trained = train(
            model, self.data, settings, run_dir=folder, resume=resume, progress=self.progress, device=self.device
        )
        seconds = before + time.perf_counter() - begin
        with record.whole(clock) as path:
            path.write_text(json.dumps(seconds), encoding="utf-8")
        return trained, seconds

    def _sample(self, model: ScoreModel, sampler: Sampler, name: str, seed: int) -> dict[str, Any]:
        text = record.brief(sampler)
        self.say(f"sampling by {text}")
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        begin = time.perf_counter()
        with self.stages("sampling"):
            drawn = sample(model, self.n, sampler, generator=generator, progress=self.progress)
        seconds = time.perf_counter() - begin
        with self.stages("measuring"):
            measured = self.yardstick.measure(comparable(drawn.x, self.data.description))
        array = f"{name}/{_slug(text)}"
        self.arrays[array] = pictures.as_levels(drawn.x[: self._kept], model)
        return {"sampler": text, "nfe": drawn.nfe, "seconds": seconds, "array": array, **measured}

    def _plane(self, model: ScoreModel, name: str) -> None:
        with self.stages("trajectories and density"):
            self.say("following trajectories, and the density in the plane")
            for sampler in self.plan.samplers:
                for key, values in pictures.paths(model, sampler).items():
                    self.arrays[f"{name}/{_slug(record.brief(sampler))}/path_{key}"] = values
            for key, values in pictures.density(model, self.yardstick.held_out).items():
                self.arrays[f"{name}/density/{key}"] = values

    def _film_events(self) -> torch.Tensor:
        """Held-out events for the film strip: one of each of the first labels, or the first ones."""
        labels, events = self.data.test_labels, self.yardstick.held_out
        count = len(events) if self.data.description.shape == (2,) else 5
        if labels is None or count > 5:
            return events[:count]
        rows = [int((labels[: self.n] == label).nonzero()[0]) for label in labels[: self.n].unique()[:count]]
        return events[rows]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
