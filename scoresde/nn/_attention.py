r"""Multi-head self-attention: $\mathrm{softmax}(QK^T/\sqrt{w})\,V$ per head of width w, over tokens or over a grid."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._execution import full_precision, group_norm_input
from scoresde.nn._initialization import zero_init


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over ``(B, heads, N, head width)``, computed in at least float32 on a CPU.

    On a CPU the backward pass of the fused kernel is about ten times slower in bfloat16 than in float32.
    """
    if query.device.type != "cpu" or query.dtype.itemsize >= 4:
        return F.scaled_dot_product_attention(query, key, value)
    with full_precision(query):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)


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
