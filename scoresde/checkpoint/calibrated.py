"""Where are calibrated grids kept? In ``calibrated.json`` beside the checkpoints, with what they were fitted to.

A grid is found again by the sampler's text and by the SHA-256 of the checkpoint's weights, so that one of another
checkpoint is never used unsaid.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from scoresde import spec
from scoresde.checkpoint.reading import Checkpoint, digest_file, load
from scoresde.checkpoint.writing import only_writer
from scoresde.sampler import Calibration, Custom, StepSampler

__all__ = ["load_calibration", "save_calibration"]

_FORMAT = {"format": "scoresde calibrations", "version": 1}
_NUMBERS = ("error", "original_error", "fit_error", "noises")


def save_calibration(path: str | os.PathLike[str] | Checkpoint, calibration: Calibration, *, raw: bool = False) -> Path:
    """Writes a calibration beside the checkpoint that it was fitted to.

    Args:
        path: The one that was loaded for the fit, or its place. Of a run directory it is the newest checkpoint, which
            while a run goes on may no longer be the one that was fitted to.
        calibration: By `scoresde.sampler.calibrate`; takes the place of one of the same sampler and weights.
        raw: Fitted to the weights as trained instead of the averaged ones.

    Returns:
        The file. It is whole at any moment.

    Raises:
        FileNotFoundError, RuntimeError: If there is no such checkpoint, it is damaged, or another process is writing.
        ValueError: If the file that is there is none of calibrations.
        OSError: If it cannot be written; what was there is as it was.
    """
    checkpoint = path if isinstance(path, Checkpoint) else load(path)
    file, weights = _file(checkpoint), _weights(checkpoint, raw)
    entry = {
        "sampler": spec.to_text(calibration.original),
        "taus": None if calibration.sampler == calibration.original else list(_taus(calibration.sampler)),
        **{name: getattr(calibration, name) for name in _NUMBERS},
        "checkpoint": checkpoint.path.name,
        **weights,
    }
    key = ("sampler", "sha256")
    try:
        with only_writer(file.parent, f".{file.stem}.lock"):
            kept = [e for e in _read(file) if any(e[name] != entry[name] for name in key)] if file.exists() else []
            _write(file, [*kept, entry])
    except OSError as error:
        raise OSError(
            error.errno, f"a calibration must be writable to {file}, got: {error}; free or choose another place."
        ) from error
    return file


def load_calibration(
    path: str | os.PathLike[str] | Checkpoint, sampler: StepSampler, *, raw: bool = False
) -> Calibration:
    """Reads the calibration of a sampler for the weights of a checkpoint.

    Args:
        path: A run directory (its newest checkpoint), a checkpoint, or one that was loaded.
        sampler: As it was calibrated, its steps and own grid among its settings.
        raw: For the weights as trained instead of the averaged ones.

    Returns:
        What was saved; its ``sampler`` is the one to use.

    Raises:
        FileNotFoundError, RuntimeError: If there is no such checkpoint, it is damaged, or nothing was calibrated.
        ValueError: If there is none for this sampler (lists those there are) or for these weights.
    """
    checkpoint = path if isinstance(path, Checkpoint) else load(path)
    file, weights, text = _file(checkpoint), _weights(checkpoint, raw), spec.to_text(sampler)
    remedy = f"calibrate it, as by: scoresde calibrate {checkpoint.path.parent} --sampler …"
    if not file.exists():
        raise FileNotFoundError(f"there must be calibrations in {file}, there is no such file; {remedy}")
    entries = _read(file)
    same = [e for e in entries if e["sampler"] == text]
    found = [e for e in same if e["sha256"] == weights["sha256"]]
    if found:
        return _calibration(found[0], sampler)
    if same:
        asked = _where({**weights, "checkpoint": checkpoint.path.name})
        raise ValueError(
            f"a grid is used with the weights that it was fitted to, for {text} {'; '.join(map(_where, same))}, "
            f"got {asked}; {remedy}"
        )
    there = sorted({e["sampler"] for e in entries})
    raise ValueError(f"no calibration of {text} is in {file}; there are: {'; '.join(there) or 'none'}. {remedy}")


def _calibration(entry: dict[str, Any], sampler: StepSampler) -> Calibration:
    taus = entry["taus"]
    fitted = sampler if taus is None else replace(sampler, grid=Custom(tuple(taus)))
    return Calibration(fitted, sampler, **{name: entry[name] for name in _NUMBERS})


def _taus(sampler: StepSampler) -> tuple[float, ...]:
    if not isinstance(sampler.grid, Custom):
        raise ValueError(f"a calibrated sampler walks a Custom grid, got {sampler}; pass what calibrate returned.")
    return sampler.grid.taus


def _file(checkpoint: Checkpoint) -> Path:
    return checkpoint.path.parent / "calibrated.json"


def _weights(checkpoint: Checkpoint, raw: bool) -> dict[str, str]:
    group = "ema" if "ema" in checkpoint.tensors and not raw else "model"
    return {"weights": group, "sha256": digest_file(checkpoint.path / f"{group}.safetensors")}


def _where(entry: dict[str, str]) -> str:
    kind = "averaged weights" if entry["weights"] == "ema" else "weights as trained"
    return f"{entry['checkpoint']} ({kind}, {entry['sha256'][:8]})"


def _read(file: Path) -> list[dict[str, Any]]:
    needed = {"sampler", "taus", "checkpoint", "weights", "sha256", *_NUMBERS}
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        entries = state["calibrations"]
        good = {name: state[name] for name in _FORMAT} == _FORMAT and all(needed <= e.keys() for e in entries)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        good, entries = False, []
    if not good:
        raise ValueError(
            f"{file} must hold calibrations as save_calibration writes them, {_FORMAT}; it does not: move it away and "
            "calibrate again."
        )
    return entries


def _write(file: Path, entries: list[dict[str, Any]]) -> None:
    """Whole under its name or not there: written aside, on the disk, renamed."""
    aside = file.with_name(f".{file.name}")
    with aside.open("w", encoding="utf-8") as handle:
        json.dump({**_FORMAT, "calibrations": entries}, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    aside.replace(file)
