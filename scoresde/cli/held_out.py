"""The events to score: those that a run held out of training, or all events of other data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde._core.suggest import nearest
from scoresde.cli.console import classes_text, same_classes
from scoresde.cli.loading import load_data
from scoresde.cli.reader_options import has_option
from scoresde.cli.recorded_config import check_columns, data_options, recorded_source
from scoresde.data.conditions.kinds import ClassCondition

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Data, Description
    from scoresde.model import ScoreModel
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["HeldOut", "check_bins", "check_events", "check_part", "described_by", "select_events"]

_SPLIT = ("train", "test")
_PARTS = {"test": "test part", "train": "train part", "all": "train and test part"}


def check_part(part: str | None, test_fraction: float | None) -> None:
    """Refuses an unknown part, and a test fraction together with all events.

    Raises:
        ValueError: If the two options do not go together.
    """
    if part not in (None, *_PARTS):
        raise ValueError(f"no part of the data is named {part!r}; {nearest(str(part), tuple(_PARTS))}")
    if part == "all" and test_fraction is not None:
        raise ValueError(f"--part all holds nothing out, got --test-fraction {test_fraction}; leave one of them out.")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The events to score.

    Attributes:
        events: In data units, ``(n, *D)``, without those that have missing values.
        cond: All their conditions in data units, by name.
        name: Name of the data.
        count: The part and number of the events as text.
        rows: Of a table, the row in the file of each event, from 0, ``(n,)``; else None.
    """

    events: Tensor
    cond: dict[str, Tensor]
    name: str
    count: str
    rows: Tensor | None = None


def select_events(
    checkpoint: Path, stored: Checkpoint, part: str | None, limit: int | None, options: Mapping[str, Any]
) -> HeldOut:
    """The events to score.

    Args:
        checkpoint: The run directory or checkpoint, as the user named it.
        stored: Its content, with the fingerprint of the training events.
        part: test, train or all. None means the held-out events, or all events of other data.
        limit: Maximal number, the first ones; None for all.
        options: ``data``, ``bins``, ``test_fraction``, ``split_seed`` and ``read``; None or empty if not given.

    Raises:
        ValueError: If the held-out events are needed and are unknown or have changed, or if there are no events.
    """
    from scoresde.data.tables.far_values import warn_of_far_values
    from scoresde.training.batches import fingerprint

    data, recorded = options["data"], recorded_source(checkpoint)
    if data is None and not recorded:
        raise ValueError(
            f"the held-out events of a run are scored, {checkpoint} does not record where its data came from; name "
            "data by --data."
        )
    trained = described_by(stored)
    loaded = load_data(**data_options(recorded, **options), like=trained)
    check_columns(recorded, loaded)
    check_bins(loaded.description, trained)
    trained_on = stored.meta.get("events")
    same_events = fingerprint(loaded.train) == trained_on
    new_split = options["test_fraction"] is not None or options["split_seed"] is not None or bool(options["read"])
    if not (same_events or data or new_split or part == "all"):
        raise ValueError(
            f"the held-out events of a run are scored, and {recorded['data']} holds other events than the model was "
            "trained on, or another order of them; restore the file, score all events by --part all, or name other "
            "data by --data."
        )
    known_split = same_events or None in (trained_on, data) or options["test_fraction"] is not None
    part = part or ("test" if known_split else "all")
    if part == "all":
        loaded = _in_file_order(loaded, data_options(recorded, **options), trained)
    complete = loaded.complete()  # a density of incomplete events is not what the model gives
    used = [name for name in _SPLIT if part in (name, "all")]
    parts: list[Tensor] = [getattr(complete, name) for name in used]
    dropped = sum(len(getattr(loaded, name)) for name in used) - sum(map(len, parts))
    events = _first(parts, limit)
    conditions = [getattr(complete, f"{name}_cond") for name in used]
    cond = {name: _first([each[name] for each in conditions], limit) for name in conditions[0]}
    if trained is not None:
        cond = _conditions_of_run(cond, loaded.description, trained)
    name = loaded.description.name
    if not len(events):
        without = " without missing values" if dropped else ""
        raise ValueError(
            f"there must be events{without} to score, the {_PARTS[part]} of {name} has none; choose another --part."
        )
    left_out = f" ({dropped} with missing values are left out)" if dropped else ""
    count = f"{_PARTS[part]}, {len(events)} of {sum(map(len, parts))} events{left_out}"
    by_part = None if complete.rows is None else [rows for part, rows in zip(_SPLIT, complete.rows) if part in used]
    rows = None if by_part is None else _first(by_part, limit)
    if trained is not None:
        warn_of_far_values(trained, events, rows)
    return HeldOut(events, cond, name, count, rows)


def _conditions_of_run(cond: dict[str, Tensor], loaded: Description, trained: Description) -> dict[str, Tensor]:
    """Conditions with the codes of the run's classes; values far from those of its train part are named."""
    result = dict(cond)
    for name in sorted(cond.keys() & trained.conditions.keys()):
        kind, known = loaded.conditions.get(name), trained.conditions[name]
        if isinstance(kind, ClassCondition) and isinstance(known, ClassCondition):
            result[name] = _codes_of_run(cond[name], name, kind, known)
        else:
            known.warn_of_far_values(cond[name], name)
    return result


def _in_file_order(loaded: Data, options: dict[str, Any], like: Description | None) -> Data:
    """The same data without a random split, so that their events, train then test, have the order of the file."""
    if not has_option(options["data"], "shuffle"):
        return loaded
    return load_data(**{**options, "read": [*options["read"], "shuffle=false"]}, like=like)


def check_bins(data: Description, trained: Description | None) -> None:
    """Refuses integers that count otherwise than those of the run.

    Raises:
        ValueError: If both are quantized, with another number of bins, or one has other classes.
    """
    if trained is not None and not same_classes(data, trained):
        raise ValueError(
            f"the model's data are {classes_text(trained)}, those of {data.name!r} are {classes_text(data)}; score "
            "data of the classes that the model was trained on."
        )
    if trained is not None and None not in (data.bins, trained.bins) and data.bins != trained.bins:
        assert data.bins is not None
        assert trained.bins is not None
        raise ValueError(
            f"the model's data are integers 0 … {trained.bins - 1}, those of {data.name!r} are 0 … {data.bins - 1}; "
            "score data on the scale that the model was trained on. If that is the scale of these data, open the files "
            f"of the other code base again with --bins {data.bins}."
        )


def _codes_of_run(codes: Tensor, condition: str, kind: ClassCondition, known: ClassCondition) -> Tensor:
    """Class codes of other data as those of the run, by the names of the classes where both have names.

    Args:
        codes: ``(n,)`` int64.
        condition: Name of the condition.
        kind: That of the data.
        known: That of the run.

    Raises:
        ValueError: If the run has no class of that name.
    """
    import torch

    if kind.names is None or known.names is None or kind.names == known.names:
        return codes
    used = [kind.names[code] for code in codes.unique().tolist()]
    unknown = [name for name in used if name not in known.names]
    if unknown:
        classes = "classes" if condition == "label" else f"classes of {condition!r}"
        raise ValueError(
            f"{classes} must be those of the run, {', '.join(known.names)}; got {', '.join(unknown)}. Rename the "
            "folders or labels, or leave those events out."
        )
    table = torch.tensor([known.names.index(name) if name in known.names else -1 for name in kind.names])
    return table[codes]


def _first(parts: list[Tensor], limit: int | None) -> Tensor:
    import torch

    return parts[0][:limit] if len(parts) == 1 else torch.cat([part[:limit] for part in parts])[:limit]


def described_by(stored: Checkpoint) -> Description | None:
    """The description of the data that a checkpoint's model was trained on, or None."""
    import scoresde.data
    from scoresde.data import Description
    from scoresde.storage import spec

    text = stored.meta.get("model", {}).get("data", "None")
    return (
        None if text == "None" else spec.parse(text, spec.known_classes(scoresde.data), kind=Description, stored=True)
    )


def check_events(model: ScoreModel, events: Tensor) -> None:
    """Refuses data that do not fit the model's description.

    Raises:
        ValueError: If integer values are needed and the data are floats, the shape differs, or a value is out of range.
    """
    description = model.data
    assert description is not None
    if description.bins is not None and events.is_floating_point():
        raise ValueError(
            f"bits per dimension need integer values 0 … {description.bins - 1} of {description.name!r}, got "
            f"{events.dtype}; if the file holds integers, add --bins {description.bins}."
        )
    if description.classes is not None and events.is_floating_point():
        raise ValueError(
            f"the model's data are integers 0 … {description.classes - 1} of {description.name!r}, got {events.dtype}; "
            f"store integers, and read them by --read classes={description.classes}."
        )
    description.validate(events)
