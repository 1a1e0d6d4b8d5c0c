"""Images and masks that a command line names, as events of a model in data units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scoresde.data import Description
    from scoresde.model import Model

__all__ = ["read_events", "read_white"]


def read_events(path: Path, model: Model) -> Tensor:
    """Events of a model, ``(n, *D)`` in data units: one image, or an array of a ``.npy`` file.

    An image is scaled until it covers the size of the model's images and center-cropped. Its 256 values become those of
    the data: the nearest of fewer bins, points of the declared range, or bits, 1 where a pixel is at least half white.

    Args:
        path: An image file; or a ``.npy`` file with ``(n, *D)`` or ``(*D)`` in data units.
        model: States event shape and data.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the model's events are not images of known range, or the file cannot be read as one.
    """
    import torch
    from numpy import load

    description = _described(model)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).")
    if path.suffix.lower() == ".npy":
        array = load(path, allow_pickle=False)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype("int64")
        if not array.size:
            raise ValueError(f"{path} must hold at least one event, got an array of shape {array.shape}.")
        events = torch.from_numpy(array)
        return events.unsqueeze(0) if tuple(events.shape) == description.shape else events
    values = torch.tensor(_decoded(path, description.shape, None)).unsqueeze(0)
    if description.bins is not None:
        if description.bins == 256:
            return values
        k = (values.double() * (description.bins - 1) / 255).round()
        return k.to(torch.uint8 if description.bins < 256 else torch.int64)
    if description.classes is not None:
        if description.classes > 2:
            raise ValueError(
                f"an image has gray values, the model's data are {description.classes} classes without an order; write "
                "the classes of pixels as .npy."
            )
        return (values >= 128).to(torch.uint8)
    low, high = description.low, description.high
    if low is None or high is None:
        raise ValueError(
            f"the bytes of an image need a model that knows the bins or the range of its data, got "
            f"{description.name!r} without; write the values as .npy in data units."
        )
    return low + (high - low) * values.double() / 255


def read_white(path: Path, model: Model) -> Tensor:
    """Where an image is white rather than black, bool, shape of one event of the model.

    Args:
        path: An image of any size, scaled as in `read_events`.
        model: States the event shape.

    Raises:
        FileNotFoundError, ValueError: As `read_events`; if it is all white or all black.
    """
    import torch

    shape = _described(model).shape
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).")
    white = torch.tensor(_decoded(path, shape, 1) >= 128).expand(shape)
    if bool(white.all()) or not bool(white.any()):
        raise ValueError(f"a mask has white and black pixels, {path} is all {'white' if white.any() else 'black'}.")
    return white


def _described(model: Model) -> Description:
    from scoresde.plots.image_grid import is_image

    if model.data is None or not is_image(model.data.shape):
        raise ValueError(
            f"this command takes a model of images, got events of shape {model.event_shape}; use scoresde.edit or "
            "scoresde.inpaint in Python for other data."
        )
    return model.data


def _decoded(path: Path, shape: tuple[int, ...], channels: int | None) -> np.ndarray:
    """The bytes of an image in the size of an event: ``(C, H, W)``, or ``(H, W)`` where events have no channels."""
    from scoresde.data.decode_image import ImageDecoder

    wanted = (1 if len(shape) == 2 else shape[0]) if channels is None else channels
    values = ImageDecoder((shape[-2], shape[-1]), wanted)(path)
    return values[0] if len(shape) == 2 else values
