r"""Virtual Brownian tree: $W(m) = \tfrac12(W(a) + W(b)) + \tfrac12\sqrt{b - a}\,z$ at the midpoint m of a and b.

The half line is cut at the powers of 2, and every octave $[2^k, 2^{k+1}]$ is halved `_TREE_DEPTH` times. Each z is a
hash of the path's seed, the node of the tree and the element. So the path depends neither on which times are queried
nor on their order. Up to rounding, it depends neither on the device nor on the floating type.

Between two neighboring leaves, $W(a + \theta w) = W(a) + \theta(W(a + w) - W(a)) + \sqrt{\theta(1 - \theta)w}\,z$.
If no two of the times lie between the same leaves, the increments have exactly the distribution of Brownian motion. A
step with both ends between the same leaves is refused.

Source: Li, Wong, Chen & Duvenaud 2020; a hash takes the place of their splittable seeds.
"""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_seed, check_seeds
from scoresde._core.tensors import combine, has_values, widest_dtype

__all__ = ["VirtualBrownianTree"]

_TREE_DEPTH = 12
# The constants of SplitMix64 as signed integers: the golden-ratio increment and the two multipliers of its finalizer.
_INCREMENT, _MULTIPLIER_1, _MULTIPLIER_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


class VirtualBrownianTree(CheckedArguments):
    r"""A Brownian path on $[0, \infty)$ for every element of a batch.

    The tree stores 14 tensors of the size of ``like``, those around the last time queried. A sampler that moves along
    the path therefore costs a few draws per step: about ten where a step increases the time by 2 %.

    Args:
        like: Shape, type and device of the state, ``(B, *D)``; its values are not read.
        seeds: One integer for the batch, or one per sample. With one per sample, its path depends on its seed alone.

    Raises:
        ValueError: If a seed is not an integer in [0, 2**63), or a sequence does not have one entry per sample.
    """

    def __init__(self, like: Tensor, seeds: int | Sequence[int]) -> None:
        if not like.is_floating_point() or like.ndim == 0:
            raise TypeError(f"like must be floating, (B, *D), got {like.dtype} of shape {tuple(like.shape)}.")
        per_sample = not isinstance(seeds, numbers.Integral)
        checked = check_seeds(seeds, len(like)) if per_sample else [check_seed(seeds)]
        keys = [_hash(seed) for seed in checked]
        rows, event = ((len(like), *[1] * (like.ndim - 1)), like.shape[1:]) if per_sample else ((), like.shape)
        self._like, self._draw_dtype = like.detach(), widest_dtype(like.device)
        self._seed_keys = torch.empty(len(keys), dtype=torch.int64, device=like.device).reshape(rows)
        if has_values(like):
            self._seed_keys = torch.tensor(keys, device=like.device).reshape(rows)
        self._element_keys = (torch.arange(math.prod(event), device=like.device) * _INCREMENT).reshape(event)
        self._octave: int | None = None
        self._leaf = 0
        self._branch: list[Tensor] = []  # increments over the nested intervals around the last time, from the octave on
        self._last: tuple[float, Tensor] | None = None

    def increment(self, a: float, b: float) -> Tensor:
        """W(b) - W(a), ``(B, *D)``.

        Args:
            a, b: Times with ``0 <= a < b``, finite.

        Raises:
            ValueError: If not ``0 <= a < b < inf``, or if both times lie in the same leaf, 2**-12 of an octave.
        """
        if not 0 <= a < b < math.inf:
            raise ValueError(f"times of a Brownian path must satisfy 0 <= a < b < inf, got a = {a!r}, b = {b!r}.")
        (first, start), (last, end) = _locate(a), _locate(b)
        if a > 0 and first == last and int(start) == int(end):
            raise ValueError(
                f"a virtual Brownian tree resolves 2**-{_TREE_DEPTH} of its time, got a step from {a!r} to {b!r}, "
                "which is shorter; take fewer steps, or leave coupled out."
            )
        if a == 0:  # earlier octaves are lost in the rounding of W(b)
            first = last + math.floor(2 * math.log2(torch.finfo(self._like.dtype).eps))
            total = self._draw(first, 0)
        else:
            before = self._from_octave_start(a)
            if first == last:
                return self._from_octave_start(b) - before
            total = self._branch[0] - before
        for octave in range(first + 1, last):
            total = total + self._draw(octave, 0)
        return total + self._from_octave_start(b)

    def normal(self, a: float, b: float) -> Tensor:
        """(W(b) - W(a)) / sqrt(b - a), unit normal; arguments and errors as in `increment`."""
        return self.increment(a, b) * (1.0 / math.sqrt(b - a))

    def _from_octave_start(self, time: float) -> Tensor:
        """W(time) - W(2**k) for a time in [2**k, 2**(k + 1)); leaves `_branch` at this time."""
        if self._last is not None and self._last[0] == time:
            return self._last[1]
        octave, position = _locate(time)
        leaf = int(position)
        shared = _TREE_DEPTH + 1 - (leaf ^ self._leaf).bit_length() if octave == self._octave else 0
        self._branch, self._octave, self._leaf = self._branch[:shared] or [self._draw(octave, 0)], octave, leaf
        total = torch.zeros_like(self._like, memory_format=torch.contiguous_format)
        for depth in range(_TREE_DEPTH):
            in_right_half = leaf >> (_TREE_DEPTH - 1 - depth) & 1
            whole = self._branch[depth]
            if depth + 1 == len(self._branch):
                node = (1 << depth) + (leaf >> (_TREE_DEPTH - depth))
                left = combine(0.5, whole, 0.5 * _increment_std(octave, depth), self._draw(octave, node))
                self._branch.append(whole - left if in_right_half else left)
            if in_right_half:
                total = total + (whole - self._branch[depth + 1])
        theta = position - leaf
        if theta > 0:
            bridge = self._draw(octave, (1 << _TREE_DEPTH) + leaf)
            total = total.add(self._branch[-1], alpha=theta)
            total = total.add(bridge, alpha=math.sqrt(theta * (1.0 - theta)) * _increment_std(octave, _TREE_DEPTH))
        self._last = time, total
        return total

    def _draw(self, octave: int, node: int) -> Tensor:
        """Unit normal draw of a node, numbered from 1 (the octave's midpoint); node 0 is the octave's increment."""
        bits = _mix(_mix(self._seed_keys ^ _hash(octave, node)) + self._element_keys)
        if self._draw_dtype == torch.float64:  # odd numerators: inside (-1, 1), and exact
            uniform = (bits >> 11 | 1).to(torch.float64) * 2.0**-52
        else:
            uniform = (bits >> 40 | 1).to(torch.float32) * 2.0**-23
        scale = math.sqrt(2.0) * (1.0 if node else _increment_std(octave, 0))
        return (torch.erfinv(uniform) * scale).to(self._like.dtype)


def _hash(*integers: int) -> int:
    """Signed 64-bit hash of integers of any size."""
    text = ",".join(map(str, integers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _mix(bits: Tensor) -> Tensor:
    """The finalizer of SplitMix64 on signed 64-bit integers, whose products wrap (Steele, Lea & Flood 2014)."""
    bits = (bits ^ (bits >> 30 & 0x3FFFFFFFF)) * _MULTIPLIER_1
    bits = (bits ^ (bits >> 27 & 0x1FFFFFFFFF)) * _MULTIPLIER_2
    return bits ^ (bits >> 31 & 0x1FFFFFFFF)


def _locate(time: float) -> tuple[int, float]:
    """The octave k with time in [2**k, 2**(k + 1)), and the distance from its start in leaves."""
    mantissa, exponent = math.frexp(time)
    return exponent - 1, math.ldexp(2.0 * mantissa - 1.0, _TREE_DEPTH) if time else 0.0


def _increment_std(octave: int, depth: int) -> float:
    """Standard deviation of the increment over an interval at this depth of the tree."""
    return math.sqrt(math.ldexp(1.0, octave - depth))
