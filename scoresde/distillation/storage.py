"""Students in run directories: checkpoints of their network, and the trajectories that they are trained on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import overload

import torch

from scoresde._core.annotations import check_arguments
from scoresde.distillation.average_velocity import AverageVelocity
from scoresde.distillation.flow_map import FlowMap
from scoresde.distillation.loss import JumpLoss
from scoresde.distillation.teacher_last import TeacherLast
from scoresde.distillation.trajectories import Trajectories
from scoresde.model import Model
from scoresde.storage.checkpoint import Checkpoint, load, read_checkpoint, save
from scoresde.storage.checkpoint.writing import write_whole
from scoresde.training.run_log import CONFIG

__all__ = ["load_student", "read_trajectories", "save_student", "weights_hash", "write_trajectories"]

_FOLDER, _TEACHER = "trajectories", "teacher_sha256"


@overload
def load_student(
    path: str | os.PathLike[str] | Checkpoint,
    *,
    teacher: None = None,
    known: Mapping[str, type] | None = None,
    raw: bool = False,
) -> FlowMap: ...
@overload
def load_student(
    path: str | os.PathLike[str] | Checkpoint,
    *,
    teacher: Model,
    known: Mapping[str, type] | None = None,
    raw: bool = False,
) -> TeacherLast: ...
def load_student(
    path: str | os.PathLike[str] | Checkpoint,
    *,
    teacher: Model | None = None,
    known: Mapping[str, type] | None = None,
    raw: bool = False,
) -> FlowMap | TeacherLast:
    """The student of a run directory, with its averaged weights if it has any, in evaluation mode, on the CPU.

    Args:
        path: A run directory (its newest checkpoint), a checkpoint, or one that was read.
        teacher: Makes the last call, if the student was trained by ``distill(…, last_call=True)``. Without it such a
            student ends above ``tau_min``, where samples still have noise.
        known: The user's own classes that the settings may name.
        raw: Load the raw weights instead of the averaged ones.

    Returns:
        The student; with a teacher both together, see `TeacherLast`.

    Raises:
        FileNotFoundError, RuntimeError: As `scoresde.load`.
        ValueError: As `scoresde.load`; if ``teacher`` is given and the student's jumps end at ``tau_min``; if the run
            recorded another teacher.
        TypeError: If it holds another model than a student.
    """
    check_arguments(load_student, locals())
    student = FlowMap(load(path, known={**(known or {}), AverageVelocity.__name__: AverageVelocity}, raw=raw)).eval()
    if teacher is None:
        return student
    recorded, given = _teacher_hash(path), weights_hash(teacher)
    if recorded not in (None, given):
        raise ValueError(
            f"the teacher must be the one of the run, whose weights have the SHA-256 {recorded[:16]}…, got "
            f"{given[:16]}…; pass the model that was distilled."
        )
    return TeacherLast(student, teacher)


def _teacher_hash(path: str | os.PathLike[str] | Checkpoint) -> str | None:
    """The hash of the teacher that the run recorded; None for a checkpoint outside of a run."""
    folder = path.path if isinstance(path, Checkpoint) else Path(path)
    for file in (folder / CONFIG, folder.parent / CONFIG):
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8")).get("about", {}).get("distillation", {}).get(_TEACHER)
    return None


def save_student(student: FlowMap, path: str | os.PathLike[str], *, keep: int = 2) -> Path:
    """Saves a student as the next checkpoint of a run directory, for `load_student`.

    Args:
        student: The student.
        path: The run directory; created if it does not exist.
        keep: Number of undamaged checkpoints that are kept.

    Returns:
        The checkpoint's directory.

    Raises:
        OSError: If it cannot be written.
    """
    check_arguments(save_student, locals())
    return save(student.model, path, keep=keep)


def write_trajectories(run: Path, source: Trajectories, cost: int) -> None:
    """Stores trajectories in a run directory, by the main process, so that a resumed run trains on the same."""
    if os.environ.get("RANK", "0") != "0":
        return
    groups = {"states": {"states": source.states.contiguous()}, "cond": dict(source.cond)}
    write_whole(run / _FOLDER, {name: group for name, group in groups.items() if group}, {"cost": cost})


def read_trajectories(run: Path, loss: JumpLoss) -> tuple[Trajectories, int]:
    """The stored trajectories of a run that is resumed, and the network calls of each.

    Raises:
        FileNotFoundError: If the run has no trajectories.
        RuntimeError: If they are damaged.
    """
    stored = read_checkpoint(run / _FOLDER)
    return Trajectories(stored.tensors["states"]["states"], loss, stored.tensors.get("cond", {})), stored.meta["cost"]


def weights_hash(model: Model) -> str:
    """SHA-256, as hex, of a model's parameters and buffers with their names."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
