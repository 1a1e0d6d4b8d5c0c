r"""How do the places of an event read each other? $\mathrm{softmax}(QK^T/\sqrt{w})\,V$, per head of width w."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._layers import derivable, full_precision, zeroed


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over ``(B, heads, N, head width)``, in at least float32 on a CPU.

    There the fused kernel's backward pass in bfloat16 takes some ten times as long as in float32.
    """
    if query.device.type != "cpu" or query.dtype.itemsize >= 4:
        return F.scaled_dot_product_attention(query, key, value)
    with full_precision(query):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens ``(B, N, width)``; gives 0 if ``silent`` and not yet trained."""

    def __init__(self, width: int, heads: int, silent: bool) -> None:
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(width, 3 * width)
        self.leave = zeroed(nn.Linear(width, width)) if silent else nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        joined = self.enter(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = joined.permute(2, 0, 3, 1, 4).unbind(0)
        return self.leave(attend(query, key, value).transpose(1, 2).reshape(tokens.shape))


class GridAttention(nn.Module):
    """Residual self-attention over the places of a grid ``(B, width, *grid)``; the identity before training."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.attention = SelfAttention(width, heads, silent=True)

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.norm(derivable(h)).flatten(2).mT  # a view where channels are last in memory
        return h + self.attention(tokens).mT.reshape(h.shape)
