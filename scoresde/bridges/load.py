"""`load` and `open_model`: one door for the runs of this package and for the files of other code bases."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from torch import nn

from scoresde._core.annotations import check_arguments
from scoresde._core.suggest import nearest
from scoresde.bridges.opened import Opened
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process.parameterization import Parameterization
from scoresde.process.sde import SDE
from scoresde.storage import checkpoint, spec
from scoresde.storage.checkpoint import Checkpoint

__all__ = ["ORIGINS", "load", "open_model"]

ORIGINS: Mapping[str, str] = {
    "diffusers": "a folder with model_index.json, or with config.json and weights",
    "k_diffusion": "a JSON configuration beside weights",
    "guided_diffusion": "weights with time_embed and input_blocks",
    "lucidrains": "weights with the buffers betas and alphas_cumprod",
    "score_sde": "weights with an optimizer, a model, an ema and a step",
    "edm": "weights of a preconditioned network",
}
"""Name of each code base whose files are opened, and how its files are recognized."""


class _Origin(Protocol):
    """A module of one code base: recognizes its files by names and small JSON, and opens them."""

    def recognize(self, path: Path) -> bool: ...

    def open_path(self, path: Path, net: nn.Module | None = None, **options: Any) -> Opened: ...


def load(
    path: str | os.PathLike[str] | Checkpoint,
    net: nn.Module | None = None,
    *,
    known: Mapping[str, type] | None = None,
    raw: bool = False,
    average: float | None = None,
    parameterization: Parameterization | None = None,
    sde: SDE | None = None,
    data: Description | None = None,
) -> ScoreModel:
    """The model of a run directory or of another code base's files, in evaluation mode, on the CPU.

    ``load("runs/mine")`` needs no further arguments if the network's class is one of this package, and
    ``load("folder")`` none if the folder is that of a diffusers pipeline and diffusers is installed. Nothing is
    downloaded, and nothing is unpickled. `open_model` also returns what was found and assumed.

    Args:
        path: A run directory (its newest checkpoint), a checkpoint, or one that was read; or a file or folder of
            another code base, see `ORIGINS`.
        net: A network that gets the weights, if it cannot be rebuilt from what is stored.
        known: The user's own classes that the settings of a run may name, e.g. `{"MyNet": MyNet}`. Only these and the
            package's classes are ever called.
        raw: Load the raw weights of a run instead of the averaged ones.
        average: Relative length, in (0, 0.2887], of the EMA to load instead, from a run with ``Training(lengths=…)``.
            An EMA of another length is combined from the run's snapshots.
        parameterization, sde, data: Expected settings; a model with others is refused.

    Returns:
        The model. The global random state does not change.

    Raises:
        FileNotFoundError: If there is nothing at `path`, or nothing that is recognized.
        RuntimeError: If a checkpoint is damaged; names an undamaged one.
        ValueError: If it holds no model or one of another `parameterization`, `sde` or `data`, names an unknown class,
            or does not fit `net`.
    """
    check_arguments(load, locals())
    if isinstance(path, Checkpoint) or _is_run(Path(path)):
        return checkpoint.load(
            path,
            net=net,
            known=known,
            raw=raw,
            average=average,
            parameterization=parameterization,
            sde=sde,
            data=data,
        )
    if raw or average is not None or known:
        raise ValueError(
            f"raw, average and known are about runs of this package, {path} is none; leave them out. "
            "open_model(path) lists the options of other files."
        )
    model = open_model(path, net).model
    for name, expected in {"parameterization": parameterization, "sde": sde, "data": data}.items():
        if expected is not None and getattr(model, name) != expected:
            text = spec.to_text(getattr(model, name))
            raise ValueError(f"a model is used as it was trained; {path} has {name} {text}. Leave the argument out.")
    return model


def open_model(
    path: str | os.PathLike[str], net: nn.Module | None = None, *, origin: str | None = None, **options: Any
) -> Opened:
    """A model of another code base, with what its files state and what had to be assumed.

    Args:
        path: A file or folder, see `ORIGINS`.
        net: The code base's network, which gets the weights; needed where it cannot be built from what is stored.
        origin: Name of the code base; needed if its files do not show it, as a bare dictionary of weights.
        **options: Facts that the files do not state, by the origin's names, e.g. ``steps=1000``.

    Returns:
        The model and the findings; see `Opened`.

    Raises:
        FileNotFoundError: If there is nothing at ``path``, or nothing that is recognized.
        TypeError: If the origin has no such option; lists them.
        ValueError: If the files contradict themselves or ``net``.
    """
    check_arguments(open_model, {"path": path, "net": net, "origin": origin})
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there must be a file or folder at {path}, which does not exist.")
    name = _recognized(path) if origin is None else origin
    module = _origin(name)
    known = [p for p in inspect.signature(module.open_path).parameters if p not in ("path", "net")]
    for option in options:
        if option not in known:
            raise TypeError(f"{name} has no option {option!r}; {nearest(option, known) if known else 'it has none.'}")
    return module.open_path(path, net, **options)


def _origin(name: str) -> _Origin:
    if name not in ORIGINS:
        raise ValueError(f"no origin is named {name!r}; {nearest(name, list(ORIGINS))}")
    return cast("_Origin", importlib.import_module(f"scoresde.bridges.{name}"))


def _recognized(path: Path) -> str:
    names = [name for name in ORIGINS if _origin(name).recognize(path)]
    if not names:
        layouts = "; ".join(f"{name}: {layout}" for name, layout in ORIGINS.items())
        holds = ", ".join(sorted(p.name for p in path.iterdir())[:8]) if path.is_dir() else path.name
        raise FileNotFoundError(
            f"a model must have one of the known layouts ({layouts}; or a run of this package: checkpoint-000001), got "
            f"{holds or 'an empty folder'}. If the files are of one of these code bases, name it: "
            "open_model(path, net=…, origin=…)."
        )
    return names[0]


def _is_run(path: Path) -> bool:
    """Whether this package wrote the folder, or nothing is there, which storage answers."""
    if not path.exists():
        return True
    return path.is_dir() and ((path / "state.json").exists() or bool(checkpoint.numbered(path)))
