"""The page of a run in progress: what its folder holds, read again for each look.

A folder is a run of `scoresde.training.train`, or a comparison, whose models are such runs; when a comparison has its
results, its page is the report.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from scoresde.experiments.report.charts import curves_of_loss
from scoresde.experiments.report.columns import Column, ReportTable
from scoresde.experiments.report.page import Section, render_page
from scoresde.experiments.report.pictures import SQUARE, Panel, Picture, Values, bare, shown
from scoresde.plots.style import SERIES
from scoresde.training.monitor import LOSSES, SAMPLES
from scoresde.training.run_log import CONFIG, METRICS

__all__ = ["RunsInProgress", "Run", "progress_page", "runs_in"]

_LINES = 2000  # of a log that a curve shows, evenly chosen
_LOOKS = 6  # losses by log-SNR that are drawn, the latest first
_SILENT = 60.0  # seconds without a line after which a run is not called running


@dataclass(frozen=True)
class Run:
    """A run directory, as it is now.

    Attributes:
        name: Of the folder.
        folder: The folder.
    """

    name: str
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings; empty if they are not written yet."""
        path = self.folder / CONFIG
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The complete lines of the log."""
        return _json_lines(self.folder / METRICS)

    @cached_property
    def losses(self) -> list[dict[str, Any]]:
        """The losses by log-SNR."""
        return _json_lines(self.folder / LOSSES)

    @cached_property
    def samples(self) -> list[Path]:
        """Files of monitoring samples, the earliest first."""
        return sorted(path for path in (self.folder / SAMPLES).glob("step-*") if path.suffix in (".png", ".npz"))

    def last(self, name: str) -> float | None:
        """A number of the last line of the log; None without one."""
        return self.lines[-1].get(name) if self.lines else None

    @property
    def silence(self) -> float:
        """Seconds since the log was last written; infinite without one."""
        path = self.folder / METRICS
        return time.time() - path.stat().st_mtime if path.exists() else math.inf

    @property
    def state(self) -> str:
        """Whether it runs, has ended, or has been silent for long."""
        if self.last("seconds_left") == 0:
            return "finished"
        if self.silence < _SILENT:
            return "running"
        return "not started" if not self.lines else f"no news for {self.silence / 60:.0f} min"


@dataclass(frozen=True)
class RunsInProgress:
    """What a folder holds.

    Attributes:
        folder: The folder.
        runs: Its runs.
    """

    folder: Path
    runs: Sequence[Run]

    def pictures(self) -> dict[str, Picture]:
        """Training loss, loss by log-SNR and the latest samples, of what there is."""
        drawn = {"loss": self._loss(), "noise": self._noise(), "samples": self._samples()}
        return {name: picture for name, picture in drawn.items() if picture.panels}

    def state(self) -> ReportTable:
        """The state of each run."""
        columns = [
            Column("run", "name"),
            Column("state", "state"),
            Column("step", lambda run: run.last("step"), "pace", 0),
            Column("loss", lambda run: run.last("loss"), "loss", 4),
            Column("steps per second", lambda run: run.last("steps_per_second"), "pace", 1),
            Column("minutes left", lambda run: (run.last("seconds_left") or 0.0) / 60, "pace", 1),
        ]
        return ReportTable("State of each run", columns, self.runs)

    def _loss(self) -> Picture:
        panels = []
        for run in self.runs:
            rows = [(row["step"], row["loss"]) for row in run.lines if row.get("loss") is not None]
            if rows:
                step = max(1, len(rows) // _LINES)
                panels.append(curves_of_loss(run.name, {"": rows[::step]}))
        return Picture("Training loss by step.", panels)

    def _noise(self) -> Picture:
        panels = []
        for run in self.runs:
            if run.losses:
                rows = np.unique(np.linspace(0, len(run.losses) - 1, _LOOKS).round().astype(int))
                panels.append(Panel(run.name, partial(_draw_noise, [run.losses[i] for i in rows])))
        return Picture("Held-out loss by log-SNR, from early (faint) to late steps.", panels)

    def _samples(self) -> Picture:
        panels = [panel for run in self.runs for path in run.samples[-1:] for panel in _sample_panels(run.name, path)]
        return Picture("The latest monitoring samples:", panels)


def runs_in(folder: str | os.PathLike[str]) -> list[Run]:
    """The runs of a folder: itself, or the models of a comparison.

    Args:
        folder: Of a run or a comparison.

    Raises:
        FileNotFoundError: If it is neither.
        NotADirectoryError: If it is a file.
    """
    folder = Path(folder)
    if (folder / CONFIG).is_file():
        return [Run(folder.resolve().name, folder)]
    models = sorted(path.parent for path in folder.glob(f"models/*/{CONFIG}"))
    if folder.is_file():
        raise NotADirectoryError(f"a run is watched in its folder, {folder} is a file; give the --out of train.")
    if not models and not folder.is_dir():
        raise FileNotFoundError(
            f"a run is watched in its folder, {folder} does not exist; start one: scoresde train --out {folder}."
        )
    if not models and not (folder / "models").is_dir():
        raise FileNotFoundError(
            f"{folder} must hold a run ({CONFIG}) or a comparison (models/), it has neither; give the --out of a train "
            "or compare command."
        )
    return [Run(path.name, path) for path in models]


def progress_page(folder: str | os.PathLike[str], refresh: float = 3.0) -> str:
    """The page of a run or comparison in progress; for a finished comparison its report.

    Args:
        folder: Of a run or a comparison.
        refresh: Seconds between looks of the page.

    Raises:
        FileNotFoundError: If the folder is neither.
    """
    folder = Path(folder)
    if (folder / "results.json").is_file() and (folder / "index.html").is_file():
        return (folder / "index.html").read_text(encoding="utf-8")
    progress = RunsInProgress(folder, runs_in(folder))
    sections = [
        Section("state", "State", "watch/state.html.j2"),
        Section("training", "Training loss", "watch/loss.html.j2"),
        Section("error", "Held-out loss by log-SNR", "watch/noise.html.j2"),
        Section("drawn", "Latest samples", "watch/samples.html.j2"),
        Section("settings", "Settings", "watch/settings.html.j2"),
    ]
    context = {"header": "watch/header.html.j2", "footer": "watch/footer.html.j2", "progress": progress}
    context |= {"pictures": progress.pictures(), "tables": {"state": progress.state()}, "refresh": refresh}
    context |= {"name": folder.resolve().name, "words": {"event": "event", "events": "events", "n": ""}}
    return render_page(f"{folder.resolve().name}: in progress", sections, context, live=refresh)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file that another process may be writing."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    complete = text[: text.rfind("\n") + 1]  # the last line may be half written
    return [json.loads(line) for line in complete.splitlines()]


def _draw_noise(rows: Sequence[Mapping[str, Any]], axes: Axes) -> list[Values]:
    read = []
    for i, row in enumerate(rows):
        log_snr, loss = (np.asarray(row[name], dtype=float) for name in ("log_snr", "loss"))
        axes.plot(log_snr, loss, color=SERIES[0], alpha=0.25 + 0.75 * (i + 1) / len(rows))
        texts = [f"log-SNR {shown(float(x))}, {shown(float(y))}" for x, y in zip(log_snr, loss)]
        read.append(Values(f"step {row['step']}", log_snr, loss, texts))
    axes.set_ylim(0, None)
    axes.set_xlim(left=max(-12.0, float(log_snr.min())))
    axes.set_xlabel("← noise\u2003log-SNR, nats\u2003data →")
    axes.set_ylabel("squared error of ε, per value")
    return read


def _sample_panels(name: str, path: Path) -> list[Panel]:
    """The sheet of images in a PNG file, else points in the plane or a histogram of all values."""
    title = f"{name}, step {int(path.stem.removeprefix('step-'))}"
    try:
        if path.suffix == ".png":
            with Image.open(path) as image:
                return [Panel(title, sheet=np.asarray(image.convert("RGBA")), size=(4.2, 4.2))]
        with np.load(path, allow_pickle=False) as file:
            x = np.asarray(file["x"], dtype=float)
    except (OSError, ValueError, KeyError):  # another process is writing it
        return []
    if x.shape[1:] == (2,):
        return [Panel(title, partial(_draw_points, x), size=SQUARE, framed=False)]
    return [Panel(title, partial(_draw_values, x))]


def _draw_points(x: np.ndarray, axes: Axes) -> None:
    bare(axes)
    axes.plot(*x.T, ".", markersize=4, color=SERIES[0])
    axes.set(aspect="equal")
    axes.margins(0.1)


def _draw_values(x: np.ndarray, axes: Axes) -> None:
    values = x[np.isfinite(x)]
    axes.hist(values, bins=40, color=SERIES[0], alpha=0.8)
    axes.set_yticks([])
    axes.set_xlabel("value")
