r"""Layers that read conditions: $e = \mathrm{where}(c\ \mathrm{is\ null},\ e_\varnothing,\ f(c))$, sample by sample.

Null entries of floating conditions are NaN. They are set to 0 before any layer reads them, so that neither values nor
gradients become NaN, and no value is read on the host. An entry that is NaN only in part, or null without a learned
null, is not replaced: the output is then NaN, which samplers and losses report.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer

__all__ = ["ChannelEncoder", "KnownEncoder", "LabelEmbedding", "TokenEncoder", "TokenPooling", "VectorEmbedding"]

_LABEL_STD = 0.25  # of the size of the embedding of log-SNR: with 0.02 a run of 250 updates does not see the labels


def _learned_null(size: int, null: bool) -> nn.Parameter | None:
    return nn.Parameter(0.02 * torch.randn(size)) if null else None


@dataclass(eq=False, repr=False)
class LabelEmbedding(CheckedArguments, nn.Module):
    """A learned vector per class, and optionally one for the null label.

    Attributes:
        width: Width of the embedding.
        count: Number of classes; labels are 0 ... ``count - 1``.
        null: Whether there is a null label, ``count``. To train it, replace some labels by it.

    Raises:
        ValueError: If a setting is not positive.
    """

    width: int
    count: int
    null: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        check_integer("width", self.width)
        check_integer("count", self.count)
        self.table = nn.Embedding(self.count + bool(self.null), self.width)
        nn.init.normal_(self.table.weight, std=_LABEL_STD)

    def forward(self, label: Tensor) -> Tensor:
        """Returns the vectors of the labels.

        Args:
            label: Integers of shape ``(B,)``.

        Returns:
            Shape ``(B, width)``.

        Raises:
            ValueError: If a label is out of range and ``label`` is on the CPU. On a GPU the look-up itself stops the
                program with a device-side assertion; checking first would make every step wait for the device.
        """
        try:
            return self.table(label.long())
        except IndexError as error:
            null = f"the null label is {self.count}" if self.null else "there is no null label"
            raise ValueError(
                f"labels must lie in 0 ... {self.table.num_embeddings - 1}, got {int(label.min())} ... "
                f"{int(label.max())}; there are {self.count} classes and {null}."
            ) from error


class VectorEmbedding(nn.Module):
    """Two layers over a vector ``(B, size)``; a learned vector in place of a null one. Returns ``(B, width)``."""

    def __init__(self, size: int, width: int, null: bool) -> None:
        super().__init__()
        self.linear_in = nn.Linear(size, width)
        self.linear_out = nn.Linear(width, width)
        self.null = _learned_null(width, null)

    def forward(self, value: Tensor) -> Tensor:
        value = value.to(self.linear_in.weight.dtype)
        if self.null is None:
            return self._embed(value)
        absent = value.isnan().all(1, keepdim=True)
        embedding = self._embed(torch.where(absent, 0.0, value))
        return torch.where(absent, self.null.to(embedding.dtype), embedding)

    def _embed(self, value: Tensor) -> Tensor:
        return self.linear_out(F.silu(self.linear_in(value)))


class TokenEncoder(nn.Module):
    """A linear map of each token ``(B, n, size)``, and a learned token before them, present in null samples only.

    With a null, attention to the learned token alone gives exactly its value, whatever the number of absent tokens.

    Returns tokens ``(B, n + 1, width)``, without a null ``(B, n, width)``, and which of them are present.
    """

    def __init__(self, size: int, width: int, null: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(size, width)
        self.null = _learned_null(width, null)

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        absent = value.isnan().all(2)
        all_absent = absent.all(1, keepdim=True)
        if self.null is None:
            absent = absent & ~all_absent  # a null sample stays NaN: no token can stand for it
        value = torch.where(absent.unsqueeze(2), 0.0, value).to(self.linear.weight.dtype)
        tokens = self.linear(value)
        if self.null is None:
            return tokens, ~absent
        null = self.null.to(tokens.dtype).expand(value.shape[0], 1, -1)
        return torch.cat([null, tokens], 1), torch.cat([all_absent, ~absent], 1)


class TokenPooling(nn.Module):
    """Tokens as one vector, for networks without attention: the mean of a function of each token that is present.

    Source: Zaheer et al. 2017 (Deep Sets): such sums represent every continuous function of a set.
    """

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.linear_out = nn.Linear(width, width)

    def forward(self, value: Tensor) -> Tensor:
        tokens, present = self.encoder(value)
        features, weight = self.linear_out(F.silu(tokens)), present.unsqueeze(2).to(tokens.dtype)
        return (features * weight).sum(1) / weight.sum(1)


class ChannelEncoder(nn.Module):
    """Channels ``(B, channels, *sizes)`` on the grid of the event; a learned value per channel in null entries.

    Attributes:
        features: Channels that it returns: with a null one more, which is 1 where the entry is given, else 0.
    """

    def __init__(self, channels: int, null: bool) -> None:
        super().__init__()
        self.features = channels + bool(null)
        self.null = _learned_null(channels, null)

    def forward(self, value: Tensor, sizes: tuple[int, ...]) -> Tensor:
        if self.null is not None:
            per_sample = (value.shape[0], *(1 for _ in value.shape[1:]))
            absent = value.isnan().flatten(1).all(1).reshape(per_sample)
            null = self.null.to(value.dtype).reshape(-1, *(1 for _ in sizes))
            given = (~absent).to(value.dtype).expand(-1, 1, *value.shape[2:])
            value = torch.cat([torch.where(absent, null, value), given], 1)
        for axis, size in enumerate(sizes, start=2):
            if size != value.shape[axis]:
                value = value.repeat_interleave(size // value.shape[axis], axis)
        return value


class KnownEncoder(nn.Module):
    """The known entries of the event, 0 where unknown, and as many channels that are 1 where known, else 0.

    Attributes:
        features: Channels that it returns.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = 2 * channels

    def forward(self, value: Tensor, sizes: tuple[int, ...]) -> Tensor:
        unknown = value.isnan()
        return torch.cat([torch.where(unknown, 0.0, value), (~unknown).to(value.dtype)], 1)
