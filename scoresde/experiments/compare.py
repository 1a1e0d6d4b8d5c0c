"""What does a comparison do? Sets up the yardstick, has every model examined, and writes down what was found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scoresde.data import Data
from scoresde.evaluation.baselines import baselines
from scoresde.evaluation.distances import SampleDistances
from scoresde.evaluation.evaluate import canonical_weights
from scoresde.experiments import report_arrays as pictures
from scoresde.experiments import results as record
from scoresde.experiments.examine import Examination, ModelResult, Report
from scoresde.experiments.plan import Comparison
from scoresde.experiments.stage_times import StageTimes
from scoresde.experiments.worker_pool import side_by_side
from scoresde.objective.weighting import Simple, Weighting
from scoresde.storage import spec
from scoresde.storage.environment import computer, versions
from scoresde.storage.labels import short_text
from scoresde.training.defaults import Recipe

__all__ = ["compare", "remove_results"]


def compare(
    data: Data,
    recipe: Recipe,
    plan: Comparison | None = None,
    *,
    out: str | Path,
    command: str = "scoresde.experiments",
    about: Mapping[str, Any] | None = None,
    fresh: bool = False,
    device: str | None = None,
    workers: int = 1,
    progress: bool = False,
    say: Report | None = None,
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
        about: Where the data came from and how they were split, for the record of results and models; JSON.
        fresh: Remove the models that are in ``out`` first, once all is checked; see `forget`.
        device: Where; None leaves the choice to accelerate.
        workers: Models that are trained and examined side by side, each in a process of its own with its share of the
            cores. More than one needs a main module that can be imported (``if __name__ == "__main__":``).
        progress: Show bars; side by side there are none.
        say: Is told what is going on; with several workers a function that can be imported.

    Returns:
        The path of ``results.json``.

    Raises:
        ValueError: If a model in ``out`` was made by other settings or data, or the data are too few.
        OSError: If ``out`` cannot be written.
    """
    plan, out = plan or Comparison(), Path(out)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers must be a positive integer, got {workers!r}.")
    if getattr(recipe.network, "num_classes", None) is not None and getattr(recipe.network, "null_label", None) is None:
        raise ValueError(
            "a comparison scores and samples without labels, got a network of classes that cannot do without; build it "
            "with null_class=True, or without num_classes."
        )
    workers = min(workers, len(plan.seeds) * len(plan.weightings))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"a comparison needs a folder to write to, not {out}: {error}; choose another.") from error
    stages = StageTimes()
    with stages("floors and Gaussian"):
        n = min(len(data.test), len(data.train), plan.most) if plan.n is None else plan.n
        if say is not None:
            say(f"measuring real against real, {n} events each")
        yardstick = SampleDistances(data, n)
        said: dict[str, Any] = {"floors": yardstick.floors, "gaussian": yardstick.gaussian}
        said["references"] = baselines(data, plan.scoring.limit)
    arrays = {"real": _real(data, yardstick, plan.kept(n, data.description.dims))}
    frames = 11 if len(data.description.shape) > 1 else 7
    said["film"], arrays["film"] = pictures.film(recipe.sde, _film_events(data, yardstick), frames)
    said["weights"] = {short_text(w): canonical_weights(w, recipe.sde) for w in plan.weightings}
    examination = Examination(data, recipe, plan, out, yardstick, about, device, progress and workers == 1, say)
    if fresh:
        remove_results(out)
    runs = []
    for found in _each(examination, workers):
        runs.append(found.said)
        arrays |= found.arrays
        stages.add(found.seconds)
    host = computer(found.device, workers)
    said |= {"command": command, "started": stages.started, "computer": host, "versions": versions()}
    said |= {"seconds": {**stages.seconds, "in all": stages.total}, "n": n, "runs": runs}
    return record.write(out, {**_settings(data, recipe, plan, about), **said}, arrays)


def remove_results(out: str | Path) -> None:
    """Removes the models of an earlier comparison, and nothing else that is in the folder.

    Args:
        out: The folder.
    """
    for folder in (Path(out) / "models").glob("*-seed*"):
        if (folder / "seconds.json").is_file() or next(folder.glob("checkpoint-*"), None) is not None:
            shutil.rmtree(folder)


def _each(examination: Examination, workers: int) -> Iterator[ModelResult]:
    """What is found about each model, in the order of seeds and weightings."""
    plan = examination.plan
    jobs: list[tuple[Weighting, int]] = [(weighting, seed) for seed in plan.seeds for weighting in plan.weightings]
    if workers > 1:
        yield from side_by_side(examination, jobs, workers)
        return
    for weighting, seed in jobs:
        yield examination(weighting, seed)


def _settings(data: Data, recipe: Recipe, plan: Comparison, source: Mapping[str, Any] | None) -> dict[str, Any]:
    about, training, sde = data.description, recipe.training, recipe.sde
    return {
        "data": {
            "name": about.name,
            "shape": list(about.shape),
            "bins": about.bins,
            "train": len(data.train),
            "test": len(data.test),
            "description": spec.to_text(about),
            "about": dict(source or {}),
        },
        "process": short_text(sde),
        "tau_max": sde.tau_max,
        "tau_min": sde.tau_min,
        "parameterization": short_text(recipe.parameterization),
        "network": short_text(recipe.network),
        "training": short_text(replace(training, loss=replace(training.loss, weighting=Simple()))),
        "weightings": [short_text(weighting) for weighting in plan.weightings],
        "samplers": [short_text(sampler) for sampler in plan.samplers],
        "seeds": list(plan.seeds),
    }


def _real(data: Data, yardstick: SampleDistances, count: int) -> Any:
    """Held-out events for the pictures: levels, or model units."""
    events = yardstick.held_out.float() if data.description.bins is None else data.test
    return events[:count].cpu().numpy().copy()  # sending the events to a worker moves their memory


def _film_events(data: Data, yardstick: SampleDistances) -> torch.Tensor:
    """Held-out events for the film strip: points all, else one of each of the first labels, or the first ones."""
    labels, events = data.test_labels, yardstick.held_out
    count = len(events) if data.description.shape == (2,) else 5
    if labels is None or count > 5:
        return events[:count]
    labels = labels[: len(events)]
    rows = [int((labels == label).nonzero()[0]) for label in labels.unique()[:count]]
    return events[rows]
