"""Folders in diffusers' layout: which network, scheduler and autoencoder they hold, and the files of their weights.

A pipeline folder has `model_index.json` and a folder for each component; a model folder has `config.json` beside its
weights. The weights of a variant are in `diffusion_pytorch_model.VARIANT.safetensors`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scoresde.bridges.opened import Finding
from scoresde.bridges.weights import read_json, read_weights
from scoresde.bridges.weights.safetensors_files import read_index

__all__ = ["Layout", "current_names", "folder_weights", "read_layout", "recognize", "weights_file"]

NETWORKS = ("unet", "transformer")
AUTOENCODERS = ("vae", "vqvae")
_STEM = "diffusion_pytorch_model"
_ENDINGS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")


@dataclass(frozen=True, eq=False)
class Layout:
    """What a folder holds.

    Attributes:
        folder: The folder that was opened.
        network: The folder of the network.
        config: The network's configuration, with ``_class_name``.
        scheduler: The scheduler's configuration, with ``_class_name``; None if the folder has no scheduler.
        scheduler_file: Its path.
        vae: The folder of the autoencoder; None if the folder has no autoencoder.
        findings: Which of several choices was taken.
    """

    folder: Path
    network: Path
    config: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None
    scheduler_file: Path | None
    vae: Path | None
    findings: tuple[Finding, ...] = ()


def recognize(path: Path) -> bool:
    """Whether a folder is in diffusers' layout; reads names and one small JSON file.

    Args:
        path: Any path.
    """
    path = Path(path)
    if not path.is_dir():
        return False
    if (path / "model_index.json").is_file():
        return True
    return any(_is_network(folder) for folder in (path, *(path / name for name in NETWORKS)))


def _is_network(folder: Path) -> bool:
    """Whether diffusers wrote the folder of a network: also without an index, as training scripts keep checkpoints."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    return "_diffusers_version" in config and "_class_name" in config


def read_layout(path: Path, ema: bool | None = None) -> Layout:
    """Reads the names and the small JSON files of a folder.

    Args:
        path: A pipeline folder or a model folder.
        ema: Whether to take the averaged weights of a folder such as `unet_ema`; None takes them if they are there.

    Raises:
        FileNotFoundError: If there is no folder, or none for a component that `model_index.json` names.
        ValueError: If the folder holds no network, or ``ema`` asks for averages that it does not hold.
    """
    path, index = Path(path), {}
    if not path.is_dir():
        raise FileNotFoundError(
            f"path must be a folder of diffusers, got {path}, which is not a folder; check the path."
        )
    if (path / "model_index.json").is_file():
        index = read_json(path / "model_index.json")
        names = [name for name in NETWORKS if isinstance(index.get(name), list) and index[name][0]]
    else:
        names = [name for name in NETWORKS if (path / name / "config.json").is_file()]
    findings: list[Finding] = []
    at_root = (path / "config.json").is_file()
    if at_root and (not names or not (path / names[0]).is_dir()):
        network = path
        if ema:
            raise ValueError(f"{path} is the folder of a network, got ema=True; pass the folder that holds both.")
    elif len(names) == 1:
        network = _network_folder(path, names[0], ema, findings)
    else:
        raise ValueError(
            f"{path} must hold one network, in a folder {' or '.join(NETWORKS)} or as config.json, got "
            f"{', '.join(names) or 'none'}; pass the folder of the network."
        )
    config = read_json(network / "config.json")
    scheduler_file = _scheduler_file(path, network)
    scheduler = None if scheduler_file is None else read_json(scheduler_file)
    if scheduler is not None and "_class_name" not in scheduler and isinstance(index.get("scheduler"), list):
        scheduler = {**scheduler, "_class_name": index["scheduler"][-1]}
    places = [folder / name for folder in (path, network.parent) for name in AUTOENCODERS]
    vae = next((place for place in places if (place / "config.json").is_file()), None)
    named = next((n for n in AUTOENCODERS if isinstance(index.get(n), list) and index[n][0]), None)
    if named and vae is None:
        raise FileNotFoundError(f"{path / 'model_index.json'} names {named}, but there is no {path / named}; copy it.")
    pipeline = index.get("_class_name")
    if pipeline:
        findings.insert(0, Finding("pipeline", str(pipeline), "stated", "_class_name in model_index.json"))
    return Layout(path, network, config, scheduler, scheduler_file, vae, tuple(findings))


def _network_folder(path: Path, name: str, ema: bool | None, findings: list[Finding]) -> Path:
    averaged = path / f"{name}_ema"
    present = (averaged / "config.json").is_file()
    if ema and not present:
        raise ValueError(f"{path} must hold averaged weights in {averaged.name}, got none; leave ema out.")
    if not present:
        return path / name
    use = ema is not False
    value = "exponential moving average" if use else "raw"
    findings.append(Finding("weights", value, "stated", f"the folder holds {name} and {averaged.name}"))
    return averaged if use else path / name


def _scheduler_file(path: Path, network: Path) -> Path | None:
    """`scheduler_config.json` in the folder, in its `scheduler`, or in the pipeline around the network."""
    names = ("scheduler_config.json", "scheduler/scheduler_config.json")
    candidates = [folder / name for folder in (path, network.parent, network.parent.parent) for name in names]
    return next((file for file in candidates if file.is_file()), None)


def weights_file(folder: Path, variant: str | None = None) -> tuple[Path, tuple[Finding, ...]]:
    """The file, or the index of the files, that holds the weights of a model folder.

    Args:
        folder: A model folder.
        variant: E.g. ``"fp16"``; None takes the weights without a variant, or the only variant.

    Raises:
        FileNotFoundError: If there are no such weights; names the variants that there are.
    """
    found: dict[str | None, Path] = {}
    for ending in reversed(_ENDINGS):
        for file in sorted(folder.glob(f"{_STEM}*{ending}")):
            name = _variant_of(file.name, ending)
            if not isinstance(name, bool):
                found[name] = file
    for file in sorted(folder.glob(f"{_STEM}.*.index.*.json")):
        name = _index_of(file.name)
        if isinstance(name, str):
            found.setdefault(name, file)
    if variant is None and None not in found and len(found) == 1:
        name, file = next(iter(found.items()))
        return file, (Finding("weights", f"variant {name}", "stated", f"{file.name} is the only one"),)
    if variant not in found:
        known = ", ".join(name or "without a variant" for name in found) or "none"
        raise FileNotFoundError(
            f"{folder} must hold the weights {_STEM}{'' if variant is None else '.' + variant}.safetensors, got "
            f"{known}; pass variant=…, or download them."
        )
    return found[variant], ()


def _variant_of(name: str, ending: str) -> str | bool | None:
    """The variant in a file's name, None for the file without one; False if it is another file, such as one shard."""
    middle = name.removeprefix(_STEM).removesuffix(ending)
    if not middle:
        return None
    if not middle.startswith(".") or "-of-" in middle or "." in middle[1:]:
        return False
    return middle[1:]


def _index_of(name: str) -> str | bool:
    """The variant of an index `….safetensors.index.VARIANT.json`; False if it is another file."""
    match = re.fullmatch(re.escape(_STEM) + r"\.(?:safetensors|bin)\.index\.([^.]+)\.json", name)
    return match[1] if match else False


def folder_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file or an index of `weights_file`.

    Args:
        file: The file.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    if not _index_of(file.name):
        return read_weights(file)
    index = read_index(file)
    shards = {name: read_weights(file.parent / name) for name in sorted(set(index.values()))}
    if absent := [name for name, shard in index.items() if name not in shards[shard]]:
        raise ValueError(f"the files that {file} names must hold its tensors, they lack {', '.join(absent[:8])}.")
    return {name: shards[shard][name] for name, shard in index.items()}


_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def current_names(tensors: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The weights with the names of attention blocks from before diffusers 0.15 replaced.

    Args:
        tensors: Weights by name.
        net: The network or autoencoder.
    """
    known, renamed = net.state_dict().keys(), {}
    for name, value in tensors.items():
        parts = name.split(".")
        if name not in known and len(parts) > 1 and parts[-2] in _RENAMED:
            parts[-2] = _RENAMED[parts[-2]]
        renamed[".".join(parts)] = value
    return renamed
