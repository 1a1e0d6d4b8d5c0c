"""Conditions of samples: classes by ``--label``, values and files by ``--condition``, or those of a run's data."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde._core.suggest import unknown_name
from scoresde.cli.parse_lists import split_names
from scoresde.data.conditions.fit import condition_name
from scoresde.data.conditions.kinds import ClassCondition, VectorCondition

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data.conditions.base import ConditionKind
    from scoresde.distillation import FlowMap
    from scoresde.model import ScoreModel
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["given_conditions", "recorded_conditions", "repeated", "warn_of_nulls"]


@dataclass(frozen=True)
class _Words:
    """The value of ``name=value``."""

    text: str

    @property
    def words(self) -> tuple[str, ...]:
        """Its parts between commas."""
        return tuple(word.strip() for word in self.text.split(","))


def given_conditions(model: ScoreModel | FlowMap, label: str | None, entries: Sequence[str]) -> dict[str, Tensor]:
    """The conditions that options name, in model units; each has one row or several.

    Args:
        model: Its network declares conditions, and its description has their kinds and scaling.
        label: Classes, in turn, e.g. ``"3"``, ``"0-9"``, ``"bag,coat"``; or None.
        entries: Each a ``.npz`` or ``.npy`` file with arrays named as the conditions, or ``name=value``, in data units:
            numbers or dates separated by commas, or names of classes.

    Raises:
        ValueError: If the network has no such condition, one is named twice, or a value is not as described.
        FileNotFoundError: If there is no such file.
    """
    import torch

    from scoresde.cli.parse_lists import parse_labels
    from scoresde.nn.conditions import reads_known
    from scoresde.training.condition_checks import conditions_of

    declared = conditions_of(model.net)
    values: dict[str, Any] = {}
    for entry in entries:
        for name, value in _read(entry).items():
            if name == "known" and reads_known(model.net):
                raise ValueError(
                    "known entries of an event are given by the table or image that has them; use scoresde impute or "
                    "scoresde inpaint."
                )
            if name not in declared:
                raise ValueError(unknown_name("condition of the network", name, declared))
            if name in values or (name == "label" and label is not None):
                raise ValueError(f"each condition is given once, got {name!r} twice; leave one of them out.")
            values[name] = value
    described = {} if model.data is None else model.data.conditions
    if undescribed := [name for name in values if name not in described]:
        raise ValueError(
            f"the run does not describe the condition {undescribed[0]!r}, so its units are unknown; sample in Python: "
            f"sd.sample(model, n, sampler, {undescribed[0]}=values)."
        )
    values = {name: _as_described(name, value, described[name]) for name, value in values.items()}
    kind = next((p.dtype for p in model.parameters() if p.dtype == torch.float64), torch.float32)
    cond = model.data.to_model_cond(values) if model.data is not None and values else {}
    cond = {name: value.to(kind) if value.is_floating_point() else value for name, value in cond.items()}
    if label is not None:
        cond["label"] = torch.tensor(parse_labels(label, model), dtype=torch.int64)
    return cond


def repeated(cond: Mapping[str, Tensor], count: int, of_each: int = 1) -> dict[str, Tensor]:
    """The conditions of ``count`` samples: one row is for all, as many rows are one each; classes are taken in turn.

    Args:
        cond: Conditions in model units.
        count: Number of samples.
        of_each: Samples in a row that belong to one event; a condition may have one row for each event.

    Raises:
        ValueError: If a condition other than classes has another number of rows.
    """
    import torch

    events = count // of_each
    rows = {}
    for name, value in cond.items():
        if not len(value):
            raise ValueError(f"condition {name!r} must have a row, got none; leave it out for no condition.")
        if value.is_floating_point() and len(value) not in (1, events, count):
            one_each = f"{len(value)} rows for {events} {'samples' if of_each == 1 else 'images'}"
            remedy = f"pass -n {len(value)}, or other rows" if of_each == 1 else "pass other rows"
            raise ValueError(f"a condition has one row for all or one for each, {name!r} has {one_each}; {remedy}.")
        each = of_each if value.is_floating_point() and len(value) == events else 1
        rows[name] = value[torch.arange(count) // each % len(value)]
    return rows


def warn_of_nulls(model: ScoreModel, given: Collection[str]) -> None:
    """Warns of the network's conditions that a command which changes events was not given."""
    from scoresde.training.condition_checks import conditions_of

    absent = [name for name in conditions_of(model.net) if name not in given]
    if absent:
        several = len(absent) > 1
        options = sorted({"--label" if name == "label" else "--condition" for name in absent}, reverse=True)
        warnings.warn(
            f"the condition{'s' if several else ''} {', '.join(absent)} {'are' if several else 'is'} null, as if "
            f"unknown; pass {'them' if several else 'it'} by {' and '.join(options)}.",
            stacklevel=2,
        )


def recorded_conditions(
    checkpoint: Path, stored: Checkpoint, model: ScoreModel, count: int, part: str = "test"
) -> dict[str, Any]:
    """Conditions of a run's own data for ``count`` noises or trajectories, in model units; empty without conditions.

    Args:
        checkpoint: The run directory or checkpoint.
        stored: Its content.
        model: Its model.
        count: Number of entries; events are repeated in their order where they are fewer.
        part: ``"test"`` for held-out events (those of training if there are none), or ``"train"``.

    Raises:
        ValueError: If the run does not record its data.
    """
    import torch

    from scoresde.cli.held_out import described_by
    from scoresde.cli.loading import load_data
    from scoresde.cli.recorded_config import data_options, recorded_source
    from scoresde.training.condition_checks import conditions_of, model_cond

    if not conditions_of(model.net):
        return {}
    recorded = recorded_source(checkpoint)
    if not recorded:
        raise ValueError(
            f"a model with conditions needs those of its data, {checkpoint} does not record where these came from; "
            "call it in Python, with conditions as keywords."
        )
    none = {"data": None, "bins": None, "test_fraction": None, "split_seed": None, "read": []}
    data = load_data(**data_options(recorded, **none), like=described_by(stored))
    held_out = part == "test" and bool(len(data.test))
    given, events = (data.test_cond, data.test) if held_out else (data.train_cond, data.train)
    about = data.description if model.data is None else model.data
    device = next(model.parameters()).device
    return model_cond(model, given, about, torch.arange(count) % len(events), device)


def _read(entry: str) -> dict[str, Any]:
    """The conditions of a file, or of ``name=value``."""
    name, equals, value = entry.partition("=")
    path = Path(entry)
    if equals and name.strip() and path.suffix.lower() != ".npz":
        return {condition_name(name.strip()): _Words(value.strip())}
    if path.suffix.lower() != ".npz":
        raise ValueError(
            f"--condition takes a .npz file with arrays named as the conditions, or name=value, got {entry!r}."
        )
    return _arrays(path)


def _arrays(path: Path) -> dict[str, Any]:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name].tolist() if file[name].dtype.kind == "U" else file[name] for name in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be a complete .npz file of numbers, got: {error}.") from error


def _as_described(name: str, value: Any, kind: ConditionKind) -> Any:
    """The words of ``name=value`` as classes or as one row of numbers; arrays as they are.

    Raises:
        ValueError: If a word is not a number where numbers are expected. If a file has integers for classes whose
            names are numbers.
    """
    names = kind.names if isinstance(kind, ClassCondition) else None
    classes, named = isinstance(kind, ClassCondition), any(map(_is_number, names or ()))
    if not isinstance(value, _Words):
        if named and not isinstance(value, list):
            raise ValueError(
                f"the classes of {name!r} are named by numbers, {', '.join(names or ())}, so that integers are "
                "ambiguous; store the names as texts."
            )
        return value
    if classes:
        words = split_names(value.text, names or ())
        return [int(word) if not named and word.isdecimal() else word for word in words]
    if not isinstance(kind, VectorCondition):
        raise ValueError(
            f"--condition {name}=… takes numbers or names of classes, {name!r} is of the kind {kind.describe()}; pass "
            f"a .npz file with an array {name}, one row for all samples or one for each."
        )
    numbers = [_number(name, word, kind.dates) for word in value.words]
    return numbers if len(numbers) == 1 else [numbers]


def _number(name: str, word: str, dates: bool) -> float:
    """A number; of a condition of dates also a date, as days."""
    import numpy as np

    from scoresde.data.tables.dates import are_dates, days_of, parse_dates

    if _is_number(word):
        return float(word)
    if dates and are_dates([word]):
        return float(days_of(*parse_dates(name, [word], np.array([False])))[0])
    or_dates = f", or dates, such as {name}=2024-02-29" if dates else ""
    raise ValueError(f"--condition {name}=… takes numbers, such as {name}=1.5{or_dates}, got {word!r}.")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
