r"""Conditions: the named inputs c of a network besides its state, $\hat x_0 = E[x_0 \mid x_\tau, c]$.

A network declares them as a mapping, ``UNet(shape, conditions={"label": Classes(10), "text": Tokens(384)})``, and is
called by their names, ``net(x, log_snr, label=labels, text=tokens)``. A condition is a class, a vector, a set of tokens
or channels on the grid of the event. It enters the network in one of three ways:

- ``"vector"``: it is added to the embedding of log-SNR, which scales and shifts every block (FiLM);
- ``"tokens"``: the blocks of the network attend to it (cross-attention);
- ``"channels"``: it is concatenated to the channels of the input. So are the entries of the event that are `Known`.

A null entry is one that is not given. The network replaces it by a learned null, so that one network estimates
$E[x_0 \mid x_\tau, c]$ and $E[x_0 \mid x_\tau]$, as classifier-free guidance needs. The null is coded in the tensor:
a label that equals the number of classes, or floating values that are all NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_integer, check_tensor
from scoresde._core.foreign_networks import inner_network
from scoresde._core.suggest import nearest
from scoresde.nn._condition import Condition, Way
from scoresde.nn._condition_encoders import ChannelEncoder, KnownEncoder, LabelEmbedding, TokenEncoder, VectorEmbedding

__all__ = ["Channels", "Classes", "Condition", "Known", "Tokens", "Vector", "null_conditions", "reads_known"]


def _check_floating(name: str, value: Tensor) -> None:
    check_tensor(name, value)
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating, got {value.dtype}; call .float() on it.")


def _shape_error(name: str, expected: str, value: Tensor, remedy: str) -> ValueError:
    return ValueError(f"{name} must have shape {expected}, got {tuple(value.shape)}; {remedy}.")


@dataclass(frozen=True)
class Classes(Condition):
    """A class label per sample, an integer in 0 … ``count`` - 1, ``(B,)``. Its usual name is ``label``.

    The null is the label ``count``. The network learns a vector per class, and one for the null.

    Attributes:
        count: Number of classes.
        null: Whether there is a null label.

    Raises:
        ValueError: If ``count`` is not a positive integer.

    Example:
        >>> import torch
        >>> from scoresde.nn import MLP, Classes
        >>> net = MLP((2,), width=16, depth=1, conditions={"label": Classes(10)})
        >>> net(torch.randn(4, 2), torch.zeros(4), label=torch.tensor([3, 0, 9, 10])).shape  # the last one is null
        torch.Size([4, 2])

    Source: Ho & Salimans 2022 (classifier-free guidance), for the null label.
    """

    count: int
    null: bool = True
    enters: ClassVar[Way] = "vector"

    def __post_init__(self) -> None:
        check_integer("count", self.count)

    def check(self, name: str, value: Tensor, batch: int, event_shape: tuple[int, ...] = ()) -> None:
        check_tensor(name, value)
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name} must hold integers, got {value.dtype}; pass labels as torch.long.")
        if value.shape != (batch,):
            raise _shape_error(name, f"({batch},)", value, "pass one label per sample")

    def left_out(self, like: Tensor, event_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.full(like.shape, self.count, dtype=torch.long, device=like.device)

    def encoder(self, width: int) -> LabelEmbedding:
        return LabelEmbedding(width, self.count, self.null)

    def _null_like(self, value: Tensor) -> Tensor:
        return torch.full_like(value, self.count, dtype=torch.long)


@dataclass(frozen=True)
class Vector(Condition):
    """A vector of numbers per sample, ``(B, size)``, such as measurements or the embedding of a text.

    The null is a vector of NaN. The numbers should be of order 1. Two layers embed them; the null has a learned vector.

    Attributes:
        size: Numbers per sample.
        null: Whether there is a null.

    Raises:
        ValueError: If ``size`` is not a positive integer.
    """

    size: int
    null: bool = True
    enters: ClassVar[Way] = "vector"

    def __post_init__(self) -> None:
        check_integer("size", self.size)

    def check(self, name: str, value: Tensor, batch: int, event_shape: tuple[int, ...] = ()) -> None:
        _check_floating(name, value)
        if value.shape != (batch, self.size):
            raise _shape_error(name, f"({batch}, {self.size})", value, "pass one vector per sample")

    def left_out(self, like: Tensor, event_shape: tuple[int, ...] = ()) -> Tensor:
        return like.new_full((like.shape[0], self.size), math.nan)

    def encoder(self, width: int) -> VectorEmbedding:
        return VectorEmbedding(self.size, width, self.null)


@dataclass(frozen=True)
class Tokens(Condition):
    """A set of tokens per sample, ``(B, n, size)`` with any n, such as those of a text encoder.

    The blocks of `UNet` and `DiT` attend to the tokens; `MLP` averages a function of each. No positions are added: the
    result does not depend on the order of the tokens, unless they contain their positions, as those of a text encoder
    do. A token of NaN is absent, so sets of different sizes are padded with NaN. A sample whose tokens are all absent
    is null; the network then attends to one learned token.

    Attributes:
        size: Numbers per token.
        null: Whether there is a null.

    Raises:
        ValueError: If ``size`` is not a positive integer.

    Source: Rombach et al. 2022, section 3.3 (cross-attention of a denoiser to the tokens of a condition).
    """

    size: int
    null: bool = True
    enters: ClassVar[Way] = "tokens"

    def __post_init__(self) -> None:
        check_integer("size", self.size)

    def check(self, name: str, value: Tensor, batch: int, event_shape: tuple[int, ...] = ()) -> None:
        _check_floating(name, value)
        if value.ndim != 3 or value.shape[0] != batch or value.shape[2] != self.size:
            raise _shape_error(name, f"({batch}, n, {self.size})", value, "pass n tokens per sample, NaN where absent")
        if not self.null and not value.shape[1]:
            raise _shape_error(name, f"({batch}, n, {self.size}) with n > 0", value, "without a null, pass a token")

    def left_out(self, like: Tensor, event_shape: tuple[int, ...] = ()) -> Tensor:
        return like.new_full((like.shape[0], 1, self.size), math.nan)

    def encoder(self, width: int) -> TokenEncoder:
        return TokenEncoder(self.size, width, self.null)


@dataclass(frozen=True)
class Channels(Condition):
    """Channels on the grid of the event or on a coarser one, ``(B, channels, *sizes)``, such as a small image.

    They are concatenated to the channels of the input. Each size must divide that of the event; values of a coarser
    grid are repeated. The null is an entry that is NaN everywhere: it becomes a learned value per channel, and one more
    channel says whether the entry is given.

    Attributes:
        channels: Number of channels.
        null: Whether there is a null.

    Raises:
        ValueError: If ``channels`` is not a positive integer.

    Source: Saharia et al. 2022 (SR3, Palette): concatenation of a low-resolution image to the input.
    """

    channels: int
    null: bool = True
    enters: ClassVar[Way] = "channels"

    def __post_init__(self) -> None:
        check_integer("channels", self.channels)

    def check(self, name: str, value: Tensor, batch: int, event_shape: tuple[int, ...]) -> None:
        _check_floating(name, value)
        sizes, given = event_shape[1:], value.shape[2:]
        expected = f"({batch}, {self.channels}, {', '.join(map(str, sizes))})"
        fits = value.ndim == len(event_shape) + 1 and tuple(value.shape[:2]) == (batch, self.channels)
        if not fits or any(m < 1 or n % m for n, m in zip(sizes, given)):
            raise _shape_error(name, expected, value, "a coarser grid needs sizes that divide these; resize it")

    def left_out(self, like: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        return like.new_full((like.shape[0], self.channels, *(1 for _ in event_shape[1:])), math.nan)

    def encoder(self, width: int = 0) -> ChannelEncoder:
        return ChannelEncoder(self.channels, self.null)


@dataclass(frozen=True)
class Known(Condition):
    r"""Entries of the event itself that are known, in model units, ``(B, *event_shape)``, NaN where unknown.

    Its name is ``known``. It needs no data: training draws the known entries of each event at random, any share of
    them. The network then estimates $E[x_0 \mid x_\tau, \mathrm{known}]$ for every subset, so that imputation is plain
    sampling. A known entry reaches the network without noise, and its estimate is its value. The null is an event of
    NaN.

    Attributes:
        channels: Entries of an event of one axis; else its first axis.
        null: Always: nothing need be known.

    Raises:
        ValueError: If ``channels`` is not a positive integer, or ``null`` is False.

    Source: Tashiro et al. 2021 (CSDI), section 4.
    """

    channels: int
    null: bool = True
    enters: ClassVar[Way] = "channels"

    def __post_init__(self) -> None:
        check_integer("channels", self.channels)
        if not self.null:
            raise ValueError("null must be True for Known, whose unknown entries are NaN; leave it out.")

    def check(self, name: str, value: Tensor, batch: int, event_shape: tuple[int, ...]) -> None:
        _check_floating(name, value)
        if tuple(value.shape) != (batch, *event_shape):
            raise _shape_error(name, f"({batch}, {', '.join(map(str, event_shape))})", value, "NaN where unknown")

    def left_out(self, like: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        return like.new_full((like.shape[0], *event_shape), math.nan)

    def encoder(self, width: int = 0) -> KnownEncoder:
        return KnownEncoder(self.channels)


def reads_known(net: nn.Module) -> bool:
    """Whether a network reads which entries of the event are known, see `Known`."""
    return isinstance((getattr(inner_network(net), "conditions", None) or {}).get("known"), Known)


def null_conditions(name: str, conditions: Mapping[str, Condition], cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Conditions of the same shapes whose entries are all null; ``augment``, ``observed`` and ``delta`` stay.

    So do known entries of the event, which guidance must not move.

    Args:
        name: Name of the network or model, for the error.
        conditions: Those that it declares.
        cond: Conditions by name, ``(B, …)``.

    Raises:
        ValueError: If a condition is not declared, or has no null.
    """
    nulls: dict[str, Tensor] = {}
    for key, value in cond.items():
        if key in conditions and not isinstance(conditions[key], Known):
            nulls[key] = conditions[key].null_like(value, key)
        elif key in conditions or key in ("augment", "observed", "delta"):
            nulls[key] = value
        else:
            hint = f"{nearest(key, conditions)} Or " if conditions else ""
            raise ValueError(
                f"guidance needs a null for {key}, and {name} declares no such condition; {hint}pass its null entry, "
                f"CFG(model, null={{{key!r}: …}}), or train a network with conditions={{{key!r}: …}}."
            )
    return nulls
