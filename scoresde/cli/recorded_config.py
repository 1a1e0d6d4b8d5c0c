"""How is a run repeated, and its data found again? From the ``config.json`` in its directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scoresde.cli.parsing import known
from scoresde.data import Data
from scoresde.storage import spec
from scoresde.training import Training
from scoresde.training.defaults import Recipe

__all__ = ["check_columns", "columns_of", "located", "read_config", "recorded", "recorded_source", "source"]


def read_config(path: Path) -> dict[str, Any]:
    """The content of a ``config.json``, or of the one in a run directory.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is none of a run that this command began.
    """
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"--config needs the config.json of a run, {path} is no file; name one.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        good = config["format"] == "scoresde run" and "data" in config["about"] and config["model"]["net"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        good, config = False, {}
    if not good:
        raise ValueError(f"--config needs the config.json of a run begun by scoresde train, {path} is none.")
    return config


def recorded(config: Mapping[str, Any]) -> Recipe:
    """The recipe of a run, with every setting as it was.

    Raises:
        ValueError, TypeError: If a text is not what it should be.
    """
    import scoresde.objective.loss
    import scoresde.training
    from scoresde.process.parameterization import Parameterization
    from scoresde.process.sde import SDE

    model = config["model"]
    names = {**known(), **spec.known_classes(scoresde.training, scoresde.objective.loss)}
    return Recipe(
        spec.parse(model["net"], names),
        spec.parse(model["sde"], names, kind=SDE),
        spec.parse(model["parameterization"], names, kind=Parameterization),
        spec.parse(config["training"], names, kind=Training),
    )


def recorded_source(checkpoint: Path) -> dict[str, Any]:
    """What a run was trained on and how that was read, of its directory or a checkpoint in it; empty if not known.

    Raises:
        ValueError: If its ``config.json`` cannot be read.
    """
    path = next((p for p in (checkpoint / "config.json", checkpoint.parent / "config.json") if p.is_file()), None)
    if path is None:
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))["about"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path} says what was held out, and cannot be read; restore it, or take it away.") from None
    return about if "data" in about else {}


def source(recorded: Mapping[str, Any], **said: Any) -> dict[str, Any]:
    """The arguments of `load_data`: as recorded, but for what is said; of ``read`` the last of a name counts.

    Other data that another reader reads take over neither the bins nor what the recorded one was told.
    """
    from scoresde.data.sources import reader_of

    kept = {name: value for name, value in recorded.items() if name in (*said, "read")}
    if said["data"] is not None and "data" in kept and reader_of(said["data"]) != reader_of(kept["data"]):
        kept |= {"bins": None, "read": ()}
    read = [*kept.get("read", ()), *said.pop("read")]
    return {**said, **kept, **{name: value for name, value in said.items() if value is not None}, "read": read}


def located(data: str) -> str:
    """A source that is found again from every folder: a name as it is, a path from the root on."""
    from scoresde.data.sources import SOURCES
    from scoresde.data.toys import TOYS

    return data if data in SOURCES or data in TOYS or data.startswith("hf:") else str(Path(data).absolute())


def columns_of(data: Data) -> dict[str, Any]:
    """What ``config.json`` says of a table beside its source: columns in their order, and what codes stand for."""
    if data.columns is None:
        return {}
    return {"columns": list(data.columns), "categories": {name: list(code) for name, code in data.categories.items()}}


def check_columns(recorded: Mapping[str, Any], data: Data) -> None:
    """Refuses a table with other columns, or other codes, than the one that a model was trained on.

    Raises:
        ValueError: If it is one.
    """
    there = columns_of(data)
    for name, remedy in (
        ("columns", "name them in that order, --read \"columns=('a', 'b')\""),
        ("categories", "bring a table in which every category occurs, or code them as numbers yourself"),
    ):
        if name in recorded and name in there and recorded[name] != there[name]:
            raise ValueError(
                f"a table must have the {name} that the model was trained on, {recorded[name]}, got {there[name]}; "
                f"{remedy}."
            )
