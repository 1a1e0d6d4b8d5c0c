r"""Multi-head attention: $\mathrm{softmax}(QK^T/\sqrt{w})\,V$ per head of width w, over tokens or over a grid.

In self-attention queries, keys and values are of the same positions. In cross-attention the keys and values are those
of a context, the tokens of a network's conditions, of which some may be absent.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._condition_inputs import Context
from scoresde.nn._execution import full_precision, group_norm_input
from scoresde.nn._initialization import zero_init


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention over ``(B, heads, N, head width)``, computed in at least float32 on a CPU.

    ``mask``, bool, broadcasts to ``(B, heads, queries, keys)`` and says which keys are attended to.
    On a CPU the backward pass of the fused kernel is about ten times slower in bfloat16 than in float32.
    """
    if query.device.type != "cpu" or query.dtype.itemsize >= 4:
        return F.scaled_dot_product_attention(query, key, value, mask)
    with full_precision(query):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), mask).to(query.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens ``(B, N, width)``; with ``zero_output`` it returns 0 before training.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, width: int, heads: int, zero_output: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out_proj = zero_init(nn.Linear(width, width)) if zero_output else nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.out_proj(scaled_dot_product(query, key, value).transpose(1, 2).reshape(tokens.shape))


class SpatialAttention(nn.Module):
    """Residual self-attention over the positions of a grid ``(B, width, *grid)``; the identity before training."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.attention = SelfAttention(width, heads, zero_output=True)

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.norm(group_norm_input(h)).flatten(2).mT  # a view where channels are last in memory
        return h + self.attention(tokens).mT.reshape(h.shape)


class CrossAttention(nn.Module):
    """Multi-head attention of positions ``(B, N, width)`` to the tokens of a context; returns 0 before training.

    Source: Vaswani et al. 2017, section 3.2.
    """

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context_width, 2 * width)
        self.out_proj = zero_init(nn.Linear(width, width))

    def forward(self, positions: Tensor, context: Context) -> Tensor:
        tokens, present = context
        head_width = positions.shape[2] // self.heads
        query = self.query(positions).unflatten(2, (self.heads, head_width)).transpose(1, 2)
        key_value = self.key_value(tokens).unflatten(2, (2, self.heads, head_width))
        key, value = key_value.permute(2, 0, 3, 1, 4).unbind(0)
        mask = present.unsqueeze(1).unsqueeze(1).expand(-1, -1, positions.shape[1], -1)
        return self.out_proj(scaled_dot_product(query, key, value, mask).transpose(1, 2).flatten(2))


class SpatialCrossAttention(nn.Module):
    """Residual cross-attention of the positions of a grid ``(B, width, *grid)``; the identity before training."""

    def __init__(self, width: int, context_width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.attention = CrossAttention(width, context_width, heads)

    def forward(self, h: Tensor, context: Context) -> Tensor:
        positions = self.norm(group_norm_input(h)).flatten(2).mT  # a view where channels are last in memory
        return h + self.attention(positions, context).mT.reshape(h.shape)
