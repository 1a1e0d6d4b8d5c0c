r"""Events in data units as states in model units and back, where some entries of the events are known.

Quantized values go to the centers of their bins. That loses nothing: in the data that a model is trained on,
the position in a bin is independent of the values, so $p(x_{rest} \mid k + u)$ is the same for every u in the bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.arrays import ArrayLike, as_tensor
from scoresde._core.call_inputs import as_input, empty_state
from scoresde._core.checks import check_event_shape, check_finite
from scoresde.data import Description
from scoresde.model import Model

__all__ = ["KnownEvents"]


@dataclass(frozen=True, eq=False)
class KnownEvents:
    """Events of a caller, and the same events as states of a model.

    Attributes:
        values: As they arrived, in data units where the model knows its data, else in model units, ``(n, *D)``.
        x: Model units, ``(n, *E)``, in the type and on the device of the model's states. Missing values are NaN.
        description: Of the model's data, or None.
    """

    values: Tensor
    x: Tensor
    description: Description | None

    @classmethod
    def of(cls, model: Model, values: ArrayLike, name: str = "x", missing: bool = False) -> KnownEvents:
        """Reads events for a model.

        Args:
            model: Its ``data`` states the units.
            values: ``(n, *D)``. Integers of quantized data, also in a floating type, go to the centers of their bins;
                other floating events are positions in bins, see `Description.to_model`.
            name: Name of the argument in an error.
            missing: Whether NaN stands for a missing value.

        Raises:
            TypeError: If the model does not know its data and the values are not floating.
            ValueError: If the events have another shape, or a value contradicts the description.
        """
        values = as_input(model, values, name)
        like, description = empty_state(model), model.data
        if description is None:
            if not values.is_floating_point():
                raise TypeError(
                    f"{name} must be floating for a model that does not know its data, got {values.dtype}; convert it "
                    "to model units, or pass data= to ScoreModel."
                )
            check_event_shape(values, model.event_shape, name)
            if not missing:
                check_finite(values, name)
            return cls(values, values.to(like), None)
        checked = values.nan_to_num(_inside(description)) if missing and not description.missing else values
        try:
            if missing and description.classes is not None and checked.is_floating_point():
                checked = _whole(checked)
            description.validate(checked)
        except ValueError as error:
            raise ValueError(f"{name} is in data units: {error}") from error
        if not missing and values.is_floating_point() and not description.missing:
            check_finite(values, name)
        placed = values
        if description.bins is not None and description.encoding is None:
            placed = _in_bins(description, values)
        return cls(values, description.to_model(placed).to(like), description)

    def model_mask(self, mask: ArrayLike, name: str = "mask") -> Tensor:
        """A mask of entries in data units as one of entries in model units, ``(n, *E)``.

        Args:
            mask: Bool; ``(n, *D)``, ``(*D)``, or what broadcasts to the latter, such as ``(H, W)`` for all channels.
            name: Name of the argument in an error.

        Raises:
            TypeError: If it is not bool.
            ValueError: If its shape does not fit.
        """
        full = self.data_mask(mask, name).to(self.x.device)
        encoding = None if self.description is None else self.description.encoding
        if encoding is None:
            return full
        return full[:, torch.tensor(encoding.owners, device=full.device)]

    def data_mask(self, mask: ArrayLike, name: str = "mask") -> Tensor:
        """The mask in the shape of the values, ``(n, *D)``; raises as `model_mask` does."""
        mask = as_tensor(mask, name)
        if mask.dtype is not torch.bool:
            raise TypeError(f"{name} must be bool, true where an entry is known, got {mask.dtype}; write mask > 0.")
        try:
            return mask.to(self.values.device).expand(self.values.shape)
        except RuntimeError as error:
            event = tuple(self.values.shape[1:])
            raise ValueError(
                f"{name} must have the shape of one event, {event}, or of all, {tuple(self.values.shape)}, got "
                f"{tuple(mask.shape)}; an image's mask (H, W) serves all channels."
            ) from error

    def to_data(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """States as events in data units, in which the known values are those that arrived, bit for bit.

        Args:
            x: Model units, ``(n, *E)``, or ``(n, draws, *E)`` for several states of each event.
            mask: Which values are known, ``(n, *D)``; None for none.

        Returns:
            ``(n, *D)`` or ``(n, draws, *D)``, in a type that holds the known values.
        """
        several = x.ndim > self.x.ndim
        flat = x.flatten(0, 1) if several else x
        new = flat if self.description is None else self.description.to_data(flat)
        if several:
            new = new.unflatten(0, x.shape[:2])
        if mask is None:
            return new
        values = self.values.to(new.device)
        about = self.description
        if about is not None and (about.bins is not None or about.classes is not None):
            values = values.nan_to_num(0.0).floor() if values.is_floating_point() else values
            values = values.to(new.dtype)
        kind, mask = torch.promote_types(new.dtype, values.dtype), mask.to(new.device)
        if several:
            values, mask = values.unsqueeze(1), mask.unsqueeze(1)
        return torch.where(mask, values.to(kind), new.to(kind))


def _inside(description: Description) -> float:
    """A value that every entry may have, for the check of events in which others are missing."""
    return 0.0 if description.low is None else float(description.low)


def _whole(codes: Tensor) -> Tensor:
    """Codes of categories as integers, which came as floating numbers because others are missing (NaN).

    Raises:
        ValueError: If one is no whole number; names the first.
    """
    bad = codes != codes.round()
    if bool(bad.any()):
        index = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"categories must be whole numbers, or NaN where one is missing, got {codes[index].item():g} at index "
            f"{index}; write the codes of classes."
        )
    return codes.long()


def _in_bins(description: Description, values: Tensor) -> Tensor:
    """Quantized values at the centers of their bins; floating ones are positions, except events of whole numbers."""
    if not values.is_floating_point():
        return description.center(values)
    whole = (values.isnan() | (values == values.floor())).flatten(1).all(1)
    return values + 0.5 * whole.reshape(-1, *(1,) * (values.ndim - 1)).to(values)
