"""Events and masks that a command line names: images for models of images, arrays for models of any data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scoresde.data import Description
    from scoresde.model import Model

__all__ = ["read_events", "read_white", "split_missing", "without_missing"]


def read_events(path: Path, model: Model) -> Tensor:
    """Events of a model, ``(n, *D)`` in data units: one image, or an array of a ``.npy`` file.

    An image is scaled until it covers the size of the model's images and center-cropped. Its 256 values become those of
    the data: the nearest of fewer bins, points of the declared range, or bits, 1 where a pixel is at least half white.

    Args:
        path: An image file; or a ``.npy`` file with ``(n, *D)`` or ``(*D)`` in data units.
        model: States event shape and data.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an image is given and the model's events are not images of known range; if the file cannot be
            read, or an array holds no event.
    """
    import torch

    _check_file(path)
    if path.suffix.lower() == ".npy":
        events = _array(path)
        if not events.numel():
            raise ValueError(f"{path} must hold at least one event, got an array of shape {tuple(events.shape)}.")
        shape = model.event_shape if model.data is None else model.data.shape
        return events.unsqueeze(0) if tuple(events.shape) == shape else events
    description = _described(model)
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
    """Where a mask is white rather than black, or true rather than false; bool.

    Args:
        path: An image of any size, scaled as in `read_events`; or a ``.npy`` file of bools, or of 0 and 1, in the shape
            of an event, of all events, or one that broadcasts to it.
        model: States the event shape.

    Returns:
        The shape of one event of the model, or that of the array.

    Raises:
        FileNotFoundError, ValueError: As `read_events`; if it is all white or all black, or has other values.
    """
    import torch

    _check_file(path)
    if path.suffix.lower() == ".npy":
        array = _array(path)
        if array.dtype is not torch.bool and not bool(((array == 0) | (array == 1)).all()):
            raise ValueError(f"a mask holds bools, or 0 and 1, {path} has other values of {array.dtype}; compare them.")
        white = array.bool()
    else:
        shape = _described(model).shape
        white = torch.tensor(_decoded(path, shape, 1) >= 128).expand(shape)
    if bool(white.all()) or not bool(white.any()):
        sides = "white and black pixels" if path.suffix.lower() != ".npy" else "true and false entries"
        raise ValueError(f"a mask has {sides}, {path} is all {sides.split()[0 if white.any() else 2]}.")
    return white


def split_missing(events: Tensor, model: Model, path: Path) -> tuple[Tensor, Tensor]:
    """Events whose missing entries (NaN) have valid values, and where these entries are, ``(n, *D)`` bool.

    Args:
        events: In data units, ``(n, *D)``.
        model: Knows its data, or takes model units.
        path: Their file, for the error.

    Raises:
        ValueError: If no entry is missing, or all are.
    """
    missing = events.isnan()
    if not bool(missing.any()) or bool(missing.all()):
        raise ValueError(
            f"what is drawn must be stated: {path} has {'no NaN' if not missing.any() else 'nothing but NaN'}; pass a "
            "mask, or write NaN for the entries that are to be drawn."
        )
    return without_missing(events, model), missing


def without_missing(events: Tensor, model: Model) -> Tensor:
    """Events with a valid value of the data in place of NaN, ``(n, *D)``; whole numbers of categories as integers."""
    low = None if model.data is None else model.data.low
    complete = events.nan_to_num(0.0 if low is None else low)
    codes = model.data is not None and model.data.classes is not None and bool((complete == complete.round()).all())
    return complete.long() if codes else complete


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).")


def _array(path: Path) -> Tensor:
    import torch
    from numpy import load

    try:
        array = load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} must be a complete .npy file of numbers, got: {error}.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path} must hold real numbers, got {array.dtype}; convert it.")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(array.astype("int64") if array.dtype.kind == "u" and array.dtype.itemsize > 1 else array)


def _described(model: Model) -> Description:
    from scoresde.plots.image_grid import is_image

    if model.data is None or not is_image(model.data.shape):
        raise ValueError(
            f"an image needs a model of images, got one of events of shape {model.event_shape}; pass such "
            "events as a .npy file, in data units."
        )
    return model.data


def _decoded(path: Path, shape: tuple[int, ...], channels: int | None) -> np.ndarray:
    """The bytes of an image in the size of an event: ``(C, H, W)``, or ``(H, W)`` where events have no channels."""
    from scoresde.data.decode_image import ImageDecoder

    wanted = (1 if len(shape) == 2 else shape[0]) if channels is None else channels
    values = ImageDecoder((shape[-2], shape[-1]), wanted)(path)
    return values[0] if len(shape) == 2 else values
