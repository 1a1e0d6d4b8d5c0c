"""Where are calibrated samplers kept? In ``calibrated.json`` beside the checkpoints, with what they were fitted to.

One is found again by the text of the sampler as it was and by the SHA-256 of the checkpoint's weights, so that one of
another checkpoint is never used unsaid. Moments stand in a folder of their own, ``calibrated-…``, written before the
file that names it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import scoresde.process.schedule
import scoresde.sampling
from scoresde._core.atomic import atomic_file
from scoresde.sampling import Calibration, Moments, StepSampler, Whitened
from scoresde.storage import spec
from scoresde.storage.checkpoint.reading import Checkpoint, digest, digest_file, read_checkpoint
from scoresde.storage.checkpoint.writing import only_writer, write_whole

__all__ = ["load_calibration", "save_calibration"]

_FORMAT = {"format": "scoresde calibrations", "version": 2}
_NUMBERS = ("error", "original_error", "fit_error", "noises")


def save_calibration(path: str | os.PathLike[str] | Checkpoint, calibration: Calibration, *, raw: bool = False) -> Path:
    """Writes a calibration beside the checkpoint that it was fitted to.

    Args:
        path: The one that was loaded for the fit, or its place. Of a run directory it is the newest checkpoint, which
            while a run goes on may no longer be the one that was fitted to.
        calibration: By `scoresde.sampling.calibrate`; takes the place of one of the same sampler and weights.
        raw: Fitted to the weights as trained instead of the averaged ones.

    Returns:
        The file. It is whole at any moment.

    Raises:
        FileNotFoundError, RuntimeError: If there is no such checkpoint, it is damaged, or another process is writing.
        ValueError: If the file that is there is none of calibrations.
        OSError: If it cannot be written; what was there is as it was.
    """
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
    file, weights = _file(checkpoint), _weights(checkpoint, raw)
    entry = {
        "sampler": spec.to_text(calibration.original),
        "fitted": spec.to_text(_steps(calibration.sampler)),
        "moments": None,
        **{name: getattr(calibration, name) for name in _NUMBERS},
        "checkpoint": checkpoint.path.name,
        **weights,
    }
    if isinstance(calibration.sampler, Whitened):
        moments = calibration.sampler.moments
        told = {**entry, "numbers": [moments.mean.flatten().tolist(), moments.variances.tolist()]}
        entry["moments"] = f"{file.stem}-{digest(told)[:16]}"
    key = ("sampler", "sha256")
    try:
        with only_writer(file.parent, f".{file.stem}.lock"):
            kept = [e for e in _read(file) if any(e[name] != entry[name] for name in key)] if file.exists() else []
            if isinstance(calibration.sampler, Whitened):
                _write_moments(file.with_name(entry["moments"]), calibration.sampler.moments)
            _write(file, [*kept, entry])
            named = {e["moments"] for e in (*kept, entry)}
            for folder in file.parent.glob(f"{file.stem}-*"):
                if folder.name not in named:
                    shutil.rmtree(folder)
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
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
    file, weights, text = _file(checkpoint), _weights(checkpoint, raw), spec.to_text(sampler)
    remedy = f"calibrate it, as by: scoresde calibrate {checkpoint.path.parent} --sampler …"
    if not file.exists():
        raise FileNotFoundError(f"there must be calibrations in {file}, there is no such file; {remedy}")
    entries = _read(file)
    same = [e for e in entries if e["sampler"] == text]
    found = [e for e in same if e["sha256"] == weights["sha256"]]
    if found:
        return _calibration(found[0], sampler, file.parent)
    if same:
        asked = _where({**weights, "checkpoint": checkpoint.path.name})
        raise ValueError(
            f"a calibration is used with the weights that it was fitted to, for {text} {'; '.join(map(_where, same))}, "
            f"got {asked}; {remedy}"
        )
    there = sorted({e["sampler"] for e in entries})
    raise ValueError(f"no calibration of {text} is in {file}; there are: {'; '.join(there) or 'none'}. {remedy}")


def _calibration(entry: dict[str, Any], sampler: StepSampler, run: Path) -> Calibration:
    known = spec.known_classes(scoresde.sampling, scoresde.process.schedule)
    fitted = spec.parse(entry["fitted"], known, kind=StepSampler)
    if entry["moments"] is not None:
        fitted = Whitened(fitted, _read_moments(run / entry["moments"]))
    return Calibration(fitted, sampler, **{name: entry[name] for name in _NUMBERS})


def _steps(sampler: StepSampler | Whitened) -> StepSampler:
    return sampler.sampler if isinstance(sampler, Whitened) else sampler


def _write_moments(folder: Path, moments: Moments) -> None:
    tensors = {"mean": moments.mean, "axes": moments.axes, "variances": moments.variances}
    write_whole(folder, {"moments": tensors}, {"rest": moments.rest})


def _read_moments(folder: Path) -> Moments:
    stored = read_checkpoint(folder)
    return Moments(**stored.tensors["moments"], rest=stored.meta["rest"])


def _file(checkpoint: Checkpoint) -> Path:
    return checkpoint.path.parent / "calibrated.json"


def _weights(checkpoint: Checkpoint, raw: bool) -> dict[str, str]:
    group = "ema" if "ema" in checkpoint.tensors and not raw else "model"
    return {"weights": group, "sha256": digest_file(checkpoint.path / f"{group}.safetensors")}


def _where(entry: dict[str, str]) -> str:
    kind = "averaged weights" if entry["weights"] == "ema" else "weights as trained"
    return f"{entry['checkpoint']} ({kind}, {entry['sha256'][:8]})"


def _read(file: Path) -> list[dict[str, Any]]:
    needed = {"sampler", "fitted", "moments", "checkpoint", "weights", "sha256", *_NUMBERS}
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
    """Writes the file atomically."""
    with atomic_file(file) as aside:
        aside.write_text(json.dumps({**_FORMAT, "calibrations": entries}, indent=1), encoding="utf-8")
