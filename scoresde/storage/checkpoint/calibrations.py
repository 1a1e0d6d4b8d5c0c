"""Calibrated samplers in ``calibrated.json`` next to the checkpoints, each with the weights that it was fitted to.

A calibration is identified by the text of the original sampler and by the SHA-256 of the checkpoint's weights. So the
calibration of another checkpoint is never used. Moments are stored in a folder ``calibrated-…``, written before the
file that names it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import scoresde.process
import scoresde.sampling
from scoresde._core.annotations import check_arguments
from scoresde._core.atomic import atomic_file
from scoresde.sampling import Calibration, Moments, StepSampler, Whitened
from scoresde.storage import spec
from scoresde.storage.checkpoint.reading import Checkpoint, digest, digest_file, read_checkpoint
from scoresde.storage.checkpoint.writing import only_writer, write_whole

__all__ = ["load_calibration", "save_calibration"]

_FORMAT = {"format": "scoresde calibrations", "version": 3}
_NUMBERS = ("error", "original_error", "fit_error", "noises", "evaluations")


def save_calibration(path: str | os.PathLike[str] | Checkpoint, calibration: Calibration, *, raw: bool = False) -> Path:
    """Writes a calibration next to the checkpoint that it was fitted to.

    Args:
        path: The checkpoint that was loaded for the fit, or its path. A run directory means its newest checkpoint,
            which may be a later one than was fitted to while the run continues.
        calibration: By `scoresde.sampling.calibrate`; replaces one of the same sampler and weights.
        raw: Whether it was fitted to the raw weights instead of the averaged ones.

    Returns:
        The file, which is written atomically.

    Raises:
        FileNotFoundError, RuntimeError: If there is no such checkpoint, it is damaged, or another process is writing.
        ValueError: If the existing file does not hold calibrations.
        OSError: If it cannot be written; the existing file does not change.
    """
    check_arguments(save_calibration, locals())
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
    file, weights = _file(checkpoint), _weights(checkpoint, raw)
    entry = {
        "sampler": spec.to_text(calibration.original),
        "fitted": spec.to_text(_inner_sampler(calibration.sampler)),
        "moments": None,
        **{name: getattr(calibration, name) for name in _NUMBERS},
        "checkpoint": checkpoint.path.name,
        **weights,
    }
    if isinstance(calibration.sampler, Whitened):
        moments = calibration.sampler.moments
        identity = {**entry, "numbers": [moments.mean.flatten().tolist(), moments.variances.tolist()]}
        entry["moments"] = f"{file.stem}-{digest(identity)[:16]}"
    key = ("sampler", "sha256")
    try:
        with only_writer(file.parent, f".{file.stem}.lock"):
            others = [e for e in _read(file) if any(e[name] != entry[name] for name in key)] if file.exists() else []
            if isinstance(calibration.sampler, Whitened):
                _write_moments(file.with_name(entry["moments"]), calibration.sampler.moments)
            _write(file, [*others, entry])
            named = {e["moments"] for e in (*others, entry)}
            for folder in file.parent.glob(f"{file.stem}-*"):
                if folder.name not in named:
                    shutil.rmtree(folder)
    except OSError as error:
        raise OSError(
            error.errno, f"a calibration must be writable to {file}, got: {error}; free space, or save it elsewhere."
        ) from error
    return file


def load_calibration(
    path: str | os.PathLike[str] | Checkpoint, sampler: StepSampler, *, raw: bool = False
) -> Calibration:
    """Reads the calibration of a sampler for the weights of a checkpoint.

    Args:
        path: A run directory (its newest checkpoint), a checkpoint, or one that was loaded.
        sampler: The original sampler, with the same steps and grid.
        raw: Whether it was fitted to the raw weights instead of the averaged ones.

    Returns:
        The saved calibration; its ``sampler`` is the fitted one.

    Raises:
        FileNotFoundError, RuntimeError: If there is no such checkpoint, it is damaged, or nothing was calibrated.
        ValueError: If there is none for this sampler (lists the samplers) or for these weights.
    """
    check_arguments(load_calibration, locals())
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
    file, weights, text = _file(checkpoint), _weights(checkpoint, raw), spec.to_text(sampler)
    remedy = f"calibrate it, e.g. by: scoresde calibrate {checkpoint.path.parent} --sampler …"
    if not file.exists():
        raise FileNotFoundError(f"there must be calibrations in {file}, there is no such file; {remedy}")
    entries = _read(file)
    same = [e for e in entries if e["sampler"] == text]
    matching = [e for e in same if e["sha256"] == weights["sha256"]]
    if matching:
        return _calibration(matching[0], sampler, file.parent)
    if same:
        requested = _describe_weights({**weights, "checkpoint": checkpoint.path.name})
        fitted_to = "; ".join(map(_describe_weights, same))
        raise ValueError(
            f"a calibration is used with the weights that it was fitted to, for {text} {fitted_to}, got {requested}; "
            f"{remedy}"
        )
    samplers = sorted({e["sampler"] for e in entries})
    raise ValueError(f"no calibration of {text} is in {file}; it has: {'; '.join(samplers) or 'none'}. {remedy}")


def _calibration(entry: dict[str, Any], sampler: StepSampler, run: Path) -> Calibration:
    known = spec.known_classes(scoresde.sampling, scoresde.process)
    known = {**known, type(sampler).__name__: type(sampler)}  # also a class of the caller's own
    fitted = spec.parse(entry["fitted"], known, kind=StepSampler)
    if entry["moments"] is not None:
        fitted = Whitened(fitted, _read_moments(run / entry["moments"]))
    return Calibration(fitted, sampler, **{name: entry[name] for name in _NUMBERS})


def _inner_sampler(sampler: StepSampler | Whitened) -> StepSampler:
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


def _describe_weights(entry: dict[str, str]) -> str:
    kind = "averaged weights" if entry["weights"] == "ema" else "raw weights"
    return f"{entry['checkpoint']} ({kind}, {entry['sha256'][:8]})"


def _read(file: Path) -> list[dict[str, Any]]:
    required = {"sampler", "fitted", "moments", "checkpoint", "weights", "sha256", *_NUMBERS}
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        entries = state["calibrations"]
        valid = {name: state[name] for name in _FORMAT} == _FORMAT and all(required <= e.keys() for e in entries)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        valid, entries = False, []
    if not valid:
        raise ValueError(
            f"{file} must hold calibrations as save_calibration writes them, {_FORMAT}; it does not: move it and "
            "calibrate again."
        )
    return entries


def _write(file: Path, entries: list[dict[str, Any]]) -> None:
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps({**_FORMAT, "calibrations": entries}, indent=1), encoding="utf-8")
