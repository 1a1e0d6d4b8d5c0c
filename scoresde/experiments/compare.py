"""A comparison from its plan to its stored results: baselines, then training and evaluation of every model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer
from scoresde.data import Data
from scoresde.evaluation import SampleDistances, TableScores, baselines, canonical_weights, gaussian_fit, table_kinds
from scoresde.evaluation.distance_units import from_distance_units
from scoresde.evaluation.model_units import in_model_units
from scoresde.experiments.differences import likelihood_differences, sampler_differences
from scoresde.experiments.examine import Examination, ModelResult, StatusCallback
from scoresde.experiments.plan import Comparison, check_samplers, default_comparison, sampler_label
from scoresde.experiments.report_arrays import forward_frames
from scoresde.experiments.results import write_results
from scoresde.experiments.stage_times import StageTimes
from scoresde.experiments.worker_pool import examine_in_parallel
from scoresde.objective.weighting import Simple
from scoresde.storage import spec
from scoresde.storage.environment import computer, versions
from scoresde.storage.setting_labels import short_text
from scoresde.training.condition_checks import checked_cond
from scoresde.training.defaults import Recipe

__all__ = ["compare", "remove_models"]

_ROWS, _STRIPS = 500, 24  # rows of a table in frames of the forward process: in histograms, and drawn one by one


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
    status: StatusCallback | None = None,
) -> Path:
    """Trains, samples, scores and measures; writes ``results.json``, ``arrays.npz`` and the models' checkpoints.

    A finished model in ``out`` with the same settings and data is not trained again, and an interrupted one is resumed.
    A model with other settings or data is an error.

    Args:
        data: The train part is trained on, the test part is scored and compared with samples. Events with missing
            values are trained on, and left out of everything else.
        recipe: The model and its training. Each run replaces the weighting and the seed in it.
        plan: What is compared; default that of `scoresde.experiments.plan.default_comparison`.
        out: The folder.
        command: The command that made the results, for the record.
        about: Source and split of the data, for the record in results and models; JSON.
        fresh: Remove the models in ``out`` before training, after all checks; see `remove_models`.
        device: The device; None leaves the choice to accelerate.
        workers: Number of processes, which share the cores; each trains and examines one model at a time. More than
            one needs a main module that can be imported (``if __name__ == "__main__":``).
        progress: Show progress bars, if there is one worker.
        status: Receives a sentence about each step; with several workers a function that can be imported.

    Returns:
        The path of ``results.json``.

    Raises:
        ValueError: If a model in ``out`` has other settings or data, or there are too few events.
        OSError: If ``out`` cannot be written.
    """
    check_arguments(compare, locals())
    plan, out = plan or default_comparison(recipe.sde), Path(out)
    check_samplers(plan, recipe.sde)
    check_integer("workers", workers)
    checked_cond(recipe.network, data.test_cond, data.description)
    if recipe.training.minutes is not None:
        raise ValueError(
            f"a comparison trains every model for as many steps, got minutes={recipe.training.minutes:g}; give steps."
        )
    workers = min(workers, len(plan.seeds) * len(plan.weightings))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"a comparison needs a folder to write to, not {out}: {error}; choose another.") from error
    stages, complete = StageTimes(), data.complete()
    with stages("floors and Gaussian"):
        n = min(len(complete.test), len(complete.train), plan.max_n) if plan.n is None else plan.n
        if status is not None and (left_out := len(data.test) - len(complete.test)):
            status(f"{left_out} of {len(data.test)} held-out events have missing values and are left out")
        if status is not None:
            status(f"measuring distances between real data, {n} events each")
        distances = SampleDistances(complete, n)
        content: dict[str, Any] = {"floors": distances.floors, "gaussian": distances.gaussian}
        content["baselines"] = baselines(complete, plan.scoring.limit)
        table = None if table_kinds(data.description) is None else TableScores(complete, n)
        if table is not None:
            content["table"] = _table_record(data, table, distances)
    arrays = {"real": _real_events(complete, distances, plan.stored(n, data.description.dims))}
    if table is not None:
        arrays["table/real"] = table.held_out.numpy().copy()
    frames = 11 if len(data.description.model_shape) > 1 else 7
    events = _forward_events(complete, len(distances.held_out))
    content["forward"], arrays["forward"] = forward_frames(recipe.sde, events, frames)
    content["weights"] = {short_text(w): canonical_weights(w, recipe.sde) for w in plan.weightings}
    progress = progress and workers == 1
    examination = Examination(data, recipe, plan, out, distances, about, device, progress, status, table)
    if fresh:
        remove_models(out)
    runs = []
    used_device = ""
    for result in _results(examination, workers):
        runs.append(result.record)
        arrays |= result.arrays
        stages.add(result.seconds)
        used_device = result.device
    by_weighting = {short_text(w): [run for run in runs if run["weighting"] == short_text(w)] for w in plan.weightings}
    content["differences"] = {
        "likelihood": likelihood_differences(by_weighting, arrays),
        "samples": sampler_differences(by_weighting, distances.floors["sliced_wasserstein"]),
    }
    environment = {"computer": computer(used_device, workers), "versions": versions()}
    content |= {"command": command, "started": stages.started, **environment}
    content |= {"seconds": {**stages.seconds, "total": stages.total}, "n": n, "runs": runs}
    return write_results(out, {**_settings(data, recipe, plan, about), **content}, arrays)


def remove_models(out: str | Path) -> None:
    """Removes the models of an earlier comparison, and nothing else in the folder.

    Args:
        out: The folder.
    """
    check_arguments(remove_models, locals())
    for folder in (Path(out) / "models").glob("*-seed*"):
        if (folder / "seconds.json").is_file() or next(folder.glob("checkpoint-*"), None) is not None:
            shutil.rmtree(folder)


def _results(examination: Examination, workers: int) -> Iterator[ModelResult]:
    """The results of all models, in the order of seeds and weightings."""
    plan = examination.plan
    jobs = [(weighting, seed) for seed in plan.seeds for weighting in plan.weightings]
    if workers > 1:
        yield from examine_in_parallel(examination, jobs, workers)
        return
    for weighting, seed in jobs:
        yield examination(weighting, seed)


def _settings(data: Data, recipe: Recipe, plan: Comparison, about: Mapping[str, Any] | None) -> dict[str, Any]:
    description, training, sde = data.description, recipe.training, recipe.sde
    return {
        "data": {
            "name": description.name,
            "shape": list(description.shape),
            "model_shape": list(description.model_shape),
            "density_note": description.density_note(),
            "bins": description.bins,
            "classes": description.classes,
            "codes": list(description.codes),
            "train": len(data.train),
            "test": len(data.test),
            "description": spec.to_text(description),
            "source": dict(about or {}),
        },
        "process": short_text(sde),
        "tau_max": sde.tau_max,
        "tau_min": sde.tau_min,
        "parameterization": short_text(recipe.parameterization),
        "network": short_text(recipe.network),
        "training": short_text(replace(training, loss=replace(training.loss, weighting=Simple()))),
        "weightings": [short_text(weighting) for weighting in plan.weightings],
        "samplers": [sampler_label(sampler) for sampler in plan.samplers],
        "seeds": list(plan.seeds),
    }


def _table_record(data: Data, table: TableScores, distances: SampleDistances) -> dict[str, Any]:
    """What the report needs to show the columns of a table, the floors of its scores, and those of a Gaussian."""
    columns, fit = data.description.columns, gaussian_fit(distances.train)
    samples = fit.sample(len(table.held_out), generator=torch.Generator().manual_seed(0)).to(distances.train)
    record: dict[str, Any] = {"kinds": table.kinds, "floors": table.floors, "categories": {}, "dates": {}}
    record["gaussian"] = table.measure(from_distance_units(samples, data.description))
    if columns is not None:
        record["categories"] = {name: list(texts) for name, texts in columns.categories.items()}
        record["dates"] = dict(columns.dates)
    return record


def _real_events(data: Data, distances: SampleDistances, count: int) -> Any:
    """Held-out events for figures: integers, or model units."""
    integers = data.description.bins is not None or data.description.classes is not None
    events = data.test if integers else distances.held_out.float()
    return events[:count].cpu().numpy().copy()  # sending the events to a worker moves their memory


def _forward_events(data: Data, n: int) -> torch.Tensor:
    """Held-out events for the forward process: all points in the plane, rows of a table, one event of each first label.

    Rows are drawn as histograms, those of categories alone one by one.
    """
    about, labels, count = data.description, data.test_labels, 5
    events = in_model_units(about, data.test[:n])
    if about.model_shape == (2,) and not about.codes and about.classes is None:
        count = len(events)
    elif about.columns is not None:
        count = _ROWS if about.dims > len(about.codes or ()) else _STRIPS
    if labels is None or count > 5:
        return events[:count]
    labels = labels[: len(events)]
    rows = [int((labels == label).nonzero()[0]) for label in labels.unique()[:count]]
    return events[rows]
