"""Data, models and devices that a command line names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde.cli.reader_options import parse_option, reads_like

if TYPE_CHECKING:
    from scoresde.data import Data, Description
    from scoresde.distillation import FlowMap
    from scoresde.model import ScoreModel
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["as_score_model", "check_device", "holds_student", "load_data", "load_model"]


def load_data(
    data: str,
    bins: int | None = None,
    test_fraction: float | None = None,
    split_seed: int | None = None,
    read: Sequence[str] = (),
    like: Description | None = None,
) -> Data:
    """The data set of a name or path.

    Args:
        data: Name or path, as `scoresde.data.load_data` takes it.
        bins: Number of integer values in a file.
        test_fraction, split_seed: The split, where the data have none.
        read: More options of the reader, as ``name=value``; see `parse_option`.
        like: Description that a table gets, if the data are a table that is read by name; see `load_table`. A text gets
            its alphabet.

    Raises:
        ValueError: If an entry of ``read`` has another form, or the reader has no such option.
    """
    from scoresde.data import load_data

    named: dict[str, Any] = {"seed": split_seed, "test_fraction": test_fraction, "bins": bins}
    options = {name: value for name, value in named.items() if value is not None}
    for text in read:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not equals:
            raise ValueError(f"--read takes name=value, such as size=32, got {text!r}.")
        options[name] = parse_option(data, name, value)
    if like is not None and reads_like(data, like):
        options["like"] = like
    return load_data(data, **options)


def load_model(
    path: Path | Checkpoint,
    device: str | None,
    raw: bool = False,
    average: float | None = None,
    known: Mapping[str, Any] | None = None,
) -> ScoreModel | FlowMap:
    """A model on a device; a `FlowMap` from the run of a few-step student.

    Args:
        path: A run directory, a checkpoint, or one that was read.
        device: The device; None takes a GPU if there is one.
        raw: The trained weights instead of their average.
        average: Relative length of another average.
        known: Classes of the user's own modules, by name.

    Raises:
        ValueError: If ``average`` is given for a student, whose run keeps none.
    """
    import torch

    from scoresde.storage.checkpoint import Checkpoint, load, read_checkpoint

    target = check_device(device) or ("cuda" if torch.cuda.is_available() else "cpu")
    stored = path if isinstance(path, Checkpoint) else read_checkpoint(path)
    if not holds_student(stored):
        return load(stored, raw=raw, average=average, known=known).to(target)
    if average is not None:
        raise ValueError(f"a student's run keeps one average, got --average {average}; leave it out.")
    from scoresde.distillation import load_student

    return load_student(stored, known=known, raw=raw).to(target)


def as_score_model(model: ScoreModel | FlowMap) -> ScoreModel:
    """The model itself; of a student the model of its velocity.

    Raises:
        ValueError: If it is a student of fixed jumps, which has none.
    """
    from scoresde.model import ScoreModel

    return model if isinstance(model, ScoreModel) else model.diagonal()


def holds_student(stored: Checkpoint) -> bool:
    """Whether a checkpoint is that of a few-step student."""
    model = stored.meta.get("model")
    return isinstance(model, dict) and model.get("net_class") == "AverageVelocity"


def check_device(name: str | None) -> str | None:
    """The device's name, or None where none was named.

    Raises:
        ValueError: If torch has no such device, or cannot use it here.
    """
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise ValueError(f"a device must be one that torch can use here, got {name!r} ({line}); try cpu.") from None
    return name
