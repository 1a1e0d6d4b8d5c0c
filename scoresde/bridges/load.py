"""`load` and `open_model`: models from runs of this package and from files of other code bases."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from scoresde._core.annotations import check_arguments
from scoresde._core.suggest import nearest
from scoresde.bridges.opened import Opened, with_bins
from scoresde.bridges.weights import WeightFile, read_weight_file
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process.parameterization import Parameterization
from scoresde.process.sde import SDE
from scoresde.storage import checkpoint, spec
from scoresde.storage.checkpoint import Checkpoint

__all__ = ["ORIGINS", "load", "open_model"]

ORIGINS: Mapping[str, str] = {
    "diffusers": "a folder with model_index.json or config.json, as save_pretrained writes it",
    "k_diffusion": "a checkpoint with model_ema and its configuration",
    "score_sde": "a checkpoint with model, ema.shadow_params and step",
    "lucidrains": "a trainer's model-<n>.pt with the buffers betas",
    "guided_diffusion": "weights of its U-Net: time_embed, input_blocks, out",
    "edm": "weights of EDM's or EDM2's networks: map_layer0 or emb_noise",
    "azula": "weights of a denoiser, named by origin",
}
"""Name of each code base whose files are opened, a module of `scoresde.bridges`, and how its files are recognized.

A file of weights belongs to the first one whose function ``recognize`` is true.
"""

_NOT_BY_WEIGHTS = ("diffusers", "azula")  # a folder, and names that a denoiser chooses itself


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
        TypeError: If `path` is a network or a pipeline, or another argument is of another kind.
        FileNotFoundError: If there is nothing at `path`, or nothing that is recognized.
        RuntimeError: If a checkpoint is damaged; names an undamaged one.
        ValueError: If it holds no model or one of another `parameterization`, `sde` or `data`, names an unknown class,
            or does not fit `net`.
    """
    _check_path(path)
    check_arguments(load, locals())
    if not isinstance(path, Checkpoint) and not Path(path).exists():
        _refuse_repository(path)
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
            f"raw, average and known are for runs of this package, got {path}, which is not a run; leave them out. "
            "open_model(path) lists the options of other files."
        )
    model = open_model(path, net).model
    for name, expected in {"parameterization": parameterization, "sde": sde, "data": data}.items():
        if expected is not None and getattr(model, name) != expected:
            text = spec.to_text(getattr(model, name))
            raise ValueError(f"a model is used as it was trained; {path} has {name} {text}. Leave the argument out.")
    return model


def open_model(
    path: str | os.PathLike[str],
    net: nn.Module | None = None,
    *,
    origin: str | None = None,
    bins: int | None = None,
    **options: Any,
) -> Opened:
    """A model of another code base, with what its files state and what had to be assumed.

    Args:
        path: A file or folder, see `ORIGINS`.
        net: The code base's network, which gets the weights; needed where it cannot be built from what is stored.
        origin: Name of the code base; needed if its files do not show it, as a bare dictionary of weights.
        bins: Number of integer values of the images, where they are not bytes, e.g. 17 for digits 0 … 16; the range in
            model units stays.
        **options: Facts that the files do not state, by the origin's names, e.g. ``steps=1000``.

    Returns:
        The model and the findings; see `Opened`.

    Raises:
        FileNotFoundError: If there is nothing at ``path``, or nothing that is recognized.
        TypeError: If the origin has no such option; lists them.
        ValueError: If the files contradict themselves or ``net``.
    """
    _check_path(path)
    check_arguments(open_model, {"path": path, "net": net, "origin": origin, "bins": bins})
    path = Path(path)
    if not path.exists():
        _refuse_repository(path)
        raise FileNotFoundError(f"there must be a file or folder at {path}, which does not exist.")
    origin = None if origin is None else origin.replace("-", "_")
    if origin is not None and origin not in ORIGINS:
        raise ValueError(f"no origin is named {origin!r}; {nearest(origin, list(ORIGINS))}")
    name, source = _recognized(path) if origin is None else (origin, path)
    opener, known = _opener(name)
    for option in options:
        if option not in known:
            raise TypeError(f"{name} has no option {option!r}; {nearest(option, known)}")
    if net is None and name != "diffusers":
        raise ValueError(
            f"{path} holds weights of {name}, but not the network that they belong to; build it with the code that "
            f"trained it, and pass it: load({str(path)!r}, net=…)."
        )
    opened = opener(source, net, **options)
    return opened if bins is None else with_bins(opened, bins)


def _module(name: str) -> Any:
    return importlib.import_module(f"scoresde.bridges.{name}")


def _opener(name: str) -> tuple[Callable[..., Opened], list[str]]:
    """The function that opens an origin's files, and the names of its options."""
    module = _module(name)
    if name == "diffusers":
        return module.open_folder, _options(module.open_folder)
    takes_settings = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(module.open_file).parameters.values())
    further = _options(module.from_network) if takes_settings else []
    return module.open_file, [*_options(module.open_file), *further]


def _options(function: Callable[..., Opened]) -> list[str]:
    parameters = list(inspect.signature(function).parameters.values())[2 if "path" in function.__annotations__ else 1 :]
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]


def _recognized(path: Path) -> tuple[str, Path | WeightFile]:
    """The origin of files, and what its function opens: the content of a file of weights, which is read once."""
    if _module("diffusers").recognize(path):
        return "diffusers", path
    if (path / "checkpoints").is_dir():
        return "score_sde", path
    if path.is_file():
        file = read_weight_file(path)
        for name in ORIGINS:
            if name not in _NOT_BY_WEIGHTS and _module(name).recognize(file):
                return name, file
    raise FileNotFoundError(_not_recognized(path))


def _not_recognized(path: Path) -> str:
    layouts = "; ".join(f"{name}: {layout}" for name, layout in ORIGINS.items())
    holds = ", ".join(sorted(p.name for p in path.iterdir())[:8]) if path.is_dir() else path.name
    return (
        f"a model must have one of the known layouts (a run of this package: checkpoint-000001; {layouts}), got "
        f"{holds or 'an empty folder'}. If the files are of one of these code bases, name it: "
        "open_model(path, net=…, origin=…). The weights of a network of your own need no origin: "
        "scoresde.bridges.weights.fit(net, read_weights(path)), then ScoreModel(net, sde, parameterization)."
    )


def _is_run(path: Path) -> bool:
    """Whether this package wrote the folder, or nothing is there; storage has the error for that."""
    if not path.exists():
        return True
    if not path.is_dir() or _module("diffusers").recognize(path):  # whose scripts also write checkpoint-100000
        return False
    return (path / "state.json").exists() or bool(checkpoint.numbered(path))


def _check_path(path: object) -> None:
    """Refuses a network or a pipeline in place of a path, with the call that takes it."""
    if isinstance(path, nn.Module):
        remedy = "it is in memory already: ScoreModel(net, sde, parameterization) makes a model of a network; one of "
        remedy += "another code base goes into an adapter such as FromStep"
    elif hasattr(path, "save_pretrained"):
        remedy = "save it, and open the folder: pipeline.save_pretrained(folder)"
    else:
        return
    raise TypeError(f"path must be that of a run, a file or a folder, got a {type(path).__name__}; {remedy}.")


def _refuse_repository(path: str | os.PathLike[str]) -> None:
    """Refuses what has the form of a repository of the Hugging Face hub and is no path here."""
    text = Path(path).as_posix()
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) and not Path(path).parent.exists():
        raise FileNotFoundError(
            f"there must be a file or folder at {text}, which does not exist; nothing is downloaded. If it is a "
            f"repository of the Hugging Face hub, download it: huggingface_hub.snapshot_download({text!r}) returns the "
            "folder. scoresde.bridges.hub.from_pretrained opens a model of this package."
        )
