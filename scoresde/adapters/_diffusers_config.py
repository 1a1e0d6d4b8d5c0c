"""Configurations of diffusers networks: their JSON text, the network that they describe, and its event shape."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["Config", "built", "event_shape_of", "parsed"]

Config = Mapping[str, Any]


def parsed(text: str) -> dict[str, Any]:
    """The configuration as a dictionary.

    Args:
        text: Text of a ``config.json``.

    Raises:
        ValueError: If the text is not a JSON object.
    """
    try:
        config = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"config must be the text of a config.json, got {str(text)[:80]!r}: {error}; pass the content of the file."
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"config must be a JSON object, got {type(config).__name__}; pass the text of config.json.")
    return config


def built(class_name: str, config: Config) -> nn.Module:
    """The network with untrained weights; entries of ``config`` that its class does not have are left out.

    The global random state does not change.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(
            f"a {class_name} is built by diffusers, which is not installed; pip install 'scoresde[diffusers]', or pass "
            "the network itself: net=…."
        ) from error
    cls = getattr(diffusers, class_name)
    known = set(inspect.signature(cls.__init__).parameters) - {"self"}
    with torch.random.fork_rng(devices=[]):
        return cls(**{name: value for name, value in config.items() if name in known}).eval()


def event_shape_of(config: Config) -> tuple[int, ...] | None:
    """Shape (channels, height, width) of one sample; None if the configuration has no size or no channels.

    Args:
        config: Configuration of the network, with ``sample_size`` (a number or height and width) and ``in_channels``.
    """
    size, channels = config.get("sample_size"), config.get("in_channels")
    if size is None or channels is None:
        return None
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(channels), int(height), int(width)
