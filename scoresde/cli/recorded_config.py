"""The ``config.json`` of a run directory: the recipe, the data source and the imported modules of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde.cli.parsing import Modules, import_modules, known
from scoresde.storage import spec

if TYPE_CHECKING:
    from scoresde.data import Data
    from scoresde.training.defaults import Recipe

__all__ = [
    "absolute_source",
    "check_columns",
    "column_record",
    "data_options",
    "import_recorded",
    "read_config",
    "recorded_recipe",
    "recorded_source",
    "source_record",
]


def read_config(path: Path) -> dict[str, Any]:
    """The content of a ``config.json``, or of the one in a run directory.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not the config.json of a run that ``scoresde train`` started.
    """
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"--config needs the config.json of a run, {path} is not a file; name one.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        valid = config["format"] == "scoresde run" and "data" in config["about"] and config["model"]["net"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        valid, config = False, {}
    if not valid:
        raise ValueError(f"--config needs the config.json of a run started by scoresde train, {path} is not one.")
    return config


def recorded_recipe(config: Mapping[str, Any], modules: Modules = ()) -> Recipe:
    """The recipe of a run, with every setting as it was.

    Raises:
        ValueError, TypeError: If a recorded text cannot be read.
    """
    import scoresde.objective.loss
    import scoresde.training
    from scoresde.process.base import Process
    from scoresde.process.parameterization import NetworkOutput
    from scoresde.training import Training
    from scoresde.training.defaults import Recipe

    model = config["model"]
    names = {**known(modules=modules), **spec.known_classes(scoresde.training, scoresde.objective.loss)}
    return Recipe(
        spec.parse(model["net"], names, stored=True),
        spec.parse(model["sde"], names, kind=Process),
        spec.parse(model["parameterization"], names, kind=NetworkOutput),
        spec.parse(config["training"], names, kind=Training, stored=True),
    )


def recorded_source(checkpoint: Path) -> dict[str, Any]:
    """The data source that a run was trained on and how it was read; empty if the run does not record it.

    Args:
        checkpoint: A run directory, or a checkpoint in it.

    Raises:
        ValueError: If its ``config.json`` cannot be read.
    """
    record = _about(checkpoint)
    return record if "data" in record else {}


def import_recorded(checkpoint: Path, names: Sequence[str]) -> Modules:
    """The user's own modules: those that the run of a checkpoint records, then ``names`` from ``--import``.

    Raises:
        ValueError, ModuleNotFoundError: If one cannot be imported; see `import_modules`.
    """
    try:
        recorded = _about(checkpoint).get("imports", [])
    except ValueError:  # reported where the data source is needed; a checkpoint alone can be sampled
        recorded = []
    return import_modules([*recorded, *names])


def _about(checkpoint: Path) -> dict[str, Any]:
    path = next((p for p in (checkpoint / "config.json", checkpoint.parent / "config.json") if p.is_file()), None)
    if path is None:
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["about"])
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} records which events were held out, and cannot be read; restore it, or remove it."
        ) from None


def data_options(recorded: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The arguments of `load_data`: the recorded ones, replaced by the options that are not None.

    Entries of ``read`` are added to the recorded ones; the last entry of a name counts. If the new source needs another
    reader than the recorded one, the recorded ``bins`` and ``read`` do not apply.
    """
    from scoresde.data.sources import reader_of

    base = {name: value for name, value in recorded.items() if name in (*options, "read")}
    if options["data"] is not None and "data" in base and reader_of(options["data"]) != reader_of(base["data"]):
        base |= {"bins": None, "read": ()}
    read = [*base.get("read", ()), *options.pop("read")]
    return {**options, **base, **{name: value for name, value in options.items() if value is not None}, "read": read}


def source_record(source: Mapping[str, Any], data: Data, imports: Sequence[str] = ()) -> dict[str, Any]:
    """The entry ``about`` of ``config.json``.

    Args:
        source: The arguments of `load_data`.
        data: What they loaded.
        imports: Names of the user's own modules.
    """
    record = {**source, "data": absolute_source(source["data"]), **column_record(data)}
    return {**record, "imports": list(dict.fromkeys(imports))} if imports else record


def absolute_source(data: str) -> str:
    """A source that is valid in every working directory: a name unchanged, a path made absolute."""
    from scoresde.data.sources import SOURCES
    from scoresde.data.toys import TOYS

    return data if data in SOURCES or data in TOYS or data.startswith("hf:") else _absolute(data)


def _absolute(path: str) -> str:
    from scoresde.data.text_files import PREFIX

    plain = path.removeprefix(PREFIX)
    return path[: len(path) - len(plain)] + str(Path(plain).absolute())


def column_record(data: Data) -> dict[str, Any]:
    """The columns of a table in their order, and the categories that its codes stand for; empty for other data."""
    if data.columns is None:
        return {}
    return {"columns": list(data.columns), "categories": {name: list(code) for name, code in data.categories.items()}}


def check_columns(recorded: Mapping[str, Any], data: Data) -> None:
    """Refuses a table with other columns, or other codes, than the one that a model was trained on.

    Raises:
        ValueError: If they differ.
    """
    record = column_record(data)
    for name, remedy in (
        ("columns", "name them in that order, --read \"columns=('a', 'b')\""),
        ("categories", "use a table in which every category occurs, or code them as numbers yourself"),
    ):
        if name in recorded and name in record and recorded[name] != record[name]:
            raise ValueError(
                f"a table must have the {name} that the model was trained on, {recorded[name]}, got {record[name]}; "
                f"{remedy}."
            )
