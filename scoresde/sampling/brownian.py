r"""Where is a Brownian path at any time? A tree of midpoints: $W(m) = \tfrac12(W(a) + W(b)) + \tfrac12\sqrt{b - a}\,z$.

The half line is cut at the powers of 2, and every $[2^k, 2^{k+1}]$ halved `_LEVELS` times. Each z is a hash of the
path's seed, the place in the tree and the element, so the path depends neither on which times are asked for nor on
their order, and (but for rounding) neither on the device nor on the type. Between two neighbors of the last level,
$W(a + \theta w) = W(a) + \theta(W(a + w) - W(a)) + \sqrt{\theta(1 - \theta)w}\,z$: the increments over times of which
no two lie between the same neighbors have exactly the law of Brownian motion, and one that lies there is refused.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scoresde._core.tensors import combine, has_values, widest_dtype

__all__ = ["Brownian"]

_LEVELS = 12
_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # of SplitMix64, signed


class Brownian:
    r"""A Brownian path on $[0, \infty)$ for every element of a batch.

    It keeps 14 tensors as ``like``, those around the last time asked for, so that walking along the path costs a few
    draws a step, about ten where one grows the time by 2 %.

    Args:
        like: Shape, type and device of the state, ``(B, *D)``; its values are not read.
        seeds: One integer for the batch, or one per sample, on which its path then depends alone.

    Raises:
        ValueError: If there is not one seed per sample.
    """

    def __init__(self, like: Tensor, seeds: int | Sequence[int]) -> None:
        per_sample = not isinstance(seeds, int)
        if per_sample and len(seeds) != len(like):
            raise ValueError(f"seeds must have one entry per sample, {len(like)}, got {len(seeds)}.")
        keys = [_key(int(seed)) for seed in seeds] if per_sample else [_key(seeds)]
        rows, event = ((len(like), *[1] * (like.ndim - 1)), like.shape[1:]) if per_sample else ((), like.shape)
        self._like, self._wide = like.detach(), widest_dtype(like.device)
        self._keys = torch.empty(len(keys), dtype=torch.int64, device=like.device).reshape(rows)
        if has_values(like):
            self._keys = torch.tensor(keys, device=like.device).reshape(rows)
        self._elements = (torch.arange(math.prod(event), device=like.device) * _GOLDEN).reshape(event)
        self._octave: int | None = None
        self._place = 0
        self._spans: list[Tensor] = []  # W over the nested intervals around the last time, the octave's first
        self._last: tuple[float, Tensor] | None = None

    def increment(self, a: float, b: float) -> Tensor:
        """W(b) - W(a), ``(B, *D)``.

        Args:
            a, b: Times with ``0 <= a < b``, finite.

        Raises:
            ValueError: If they are no such times, or closer than the tree tells apart, 2**-12 of them.
        """
        if not 0 <= a < b < math.inf:
            raise ValueError(f"times of a Brownian path must satisfy 0 <= a < b < inf, got a = {a!r}, b = {b!r}.")
        (first, place), (last, end) = _split(a), _split(b)
        if a > 0 and first == last and int(place) == int(end):
            raise ValueError(
                f"a Brownian path is known to 2**-{_LEVELS} of its time, got a step from {a!r} to {b!r}, which is "
                "shorter; take fewer steps, or leave coupled out."
            )
        if a == 0:  # what comes before is lost in the rounding of W(b)
            first = last + math.floor(2 * math.log2(torch.finfo(self._like.dtype).eps))
            total = self._node(first, 0)
        else:
            before = self._within(a)
            if first == last:
                return self._within(b) - before
            total = self._spans[0] - before
        for octave in range(first + 1, last):
            total = total + self._node(octave, 0)
        return total + self._within(b)

    def normal(self, a: float, b: float) -> Tensor:
        """(W(b) - W(a)) / sqrt(b - a), unit normal; as `increment`."""
        return self.increment(a, b) * (1.0 / math.sqrt(b - a))

    def _within(self, b: float) -> Tensor:
        """W(b) - W(2**k) for b in [2**k, 2**(k + 1)); afterwards `_spans` are those around b."""
        if self._last is not None and self._last[0] == b:
            return self._last[1]
        octave, place = _split(b)
        leaf = int(place)
        same = _LEVELS + 1 - (leaf ^ self._place).bit_length() if octave == self._octave else 0
        self._spans, self._octave, self._place = self._spans[:same] or [self._node(octave, 0)], octave, leaf
        passed = torch.zeros_like(self._like, memory_format=torch.contiguous_format)
        for level in range(_LEVELS):
            right = leaf >> (_LEVELS - 1 - level) & 1
            whole = self._spans[level]
            if level + 1 == len(self._spans):
                node = (1 << level) + (leaf >> (_LEVELS - level))
                half = combine(0.5, whole, 0.5 * _std(octave, level), self._node(octave, node))
                self._spans.append(whole - half if right else half)
            if right:
                passed = passed + (whole - self._spans[level + 1])
        theta = place - leaf
        if theta > 0:
            bridge = self._node(octave, (1 << _LEVELS) + leaf)
            passed = passed.add(self._spans[-1], alpha=theta)
            passed = passed.add(bridge, alpha=math.sqrt(theta * (1.0 - theta)) * _std(octave, _LEVELS))
        self._last = b, passed
        return passed

    def _node(self, octave: int, node: int) -> Tensor:
        """The draw of a place in the tree, unit normal; that of an octave (node 0) its whole increment."""
        bits = _mixed(_mixed(self._keys ^ _key(octave, node)) + self._elements)
        if self._wide == torch.float64:  # odd numerators: inside (-1, 1), and exact
            signed = (bits >> 11 | 1).to(torch.float64) * 2.0**-52
        else:
            signed = (bits >> 40 | 1).to(torch.float32) * 2.0**-23
        scale = math.sqrt(2.0) * (1.0 if node else _std(octave, 0))
        return (torch.erfinv(signed) * scale).to(self._like.dtype)


def _key(*parts: int) -> int:
    """64 bits, signed, hashed from integers of any size."""
    text = ",".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _mixed(bits: Tensor) -> Tensor:
    """The finalizer of SplitMix64 on signed 64-bit integers, whose products wrap (Steele, Lea & Flood 2014)."""
    bits = (bits ^ (bits >> 30 & 0x3FFFFFFFF)) * _FIRST
    bits = (bits ^ (bits >> 27 & 0x1FFFFFFFFF)) * _SECOND
    return bits ^ (bits >> 31 & 0x1FFFFFFFF)


def _split(b: float) -> tuple[int, float]:
    """The octave k with b in [2**k, 2**(k + 1)), and how many intervals of the last level b lies behind its start."""
    mantissa, exponent = math.frexp(b)
    return exponent - 1, math.ldexp(2.0 * mantissa - 1.0, _LEVELS) if b else 0.0


def _std(octave: int, level: int) -> float:
    """Standard deviation of the increment over an interval of this level."""
    return math.sqrt(math.ldexp(1.0, octave - level))
