"""How is a run repeated? From the ``config.json`` in its directory: the same data, model and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scoresde import spec
from scoresde.cli.objects import known
from scoresde.compare import Recipe
from scoresde.training import Training

__all__ = ["read_config", "recorded"]


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
    import scoresde.loss
    import scoresde.training
    from scoresde.parameterization import Parameterization
    from scoresde.sde import SDE

    model = config["model"]
    names = {**known(), **spec.known_classes(scoresde.training, scoresde.loss)}
    return Recipe(
        spec.parse(model["net"], names),
        spec.parse(model["sde"], names, kind=SDE),
        spec.parse(model["parameterization"], names, kind=Parameterization),
        spec.parse(config["training"], names, kind=Training),
    )
