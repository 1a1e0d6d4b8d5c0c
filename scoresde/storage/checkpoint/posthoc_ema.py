r"""Post-hoc EMA: averages of any length after training, as least-squares combinations of a few stored ones.

A power-function EMA at update T gives the weights after update k the weight
$\left(k^{\gamma+1} - (k-1)^{\gamma+1}\right)/T^{\gamma+1}$: the profile $p(t) = (\gamma + 1)\,t^\gamma/T^{\gamma+1}$ on
$[0, T]$. Its length, the standard deviation of p, is the same fraction of T at all times. A profile that was not stored
is approximated by a combination of stored ones, whose coefficients of sum 1 minimize
$\int (p - \sum_i x_i p_i)^2 dt$.

Source: Karras et al. 2024 (Analyzing and improving the training dynamics of diffusion models), section 3, appendix C
(there without the condition on the sum).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.foreign_networks import plain_names
from scoresde._core.tensors import is_narrow
from scoresde.storage.checkpoint.reading import Checkpoint, damage, read_checkpoint
from scoresde.storage.checkpoint.state_dicts import load_into, plain_state
from scoresde.storage.checkpoint.writing import write_whole

__all__ = [
    "LONGEST",
    "PowerProfile",
    "coefficients",
    "discard_after",
    "length_of",
    "load_weights",
    "power_decay",
    "power_of",
    "reconstruct",
    "save_snapshot",
    "weights_of",
    "widened",
]

LONGEST = 12**-0.5
"""Relative length of the mean over all updates, γ = 0."""

_FOLDER = "averages"


def length_of(power: float) -> float:
    r"""Relative length of the EMA of power γ: $\sqrt{(\gamma + 1)/((\gamma + 2)^2(\gamma + 3))}$."""
    check_arguments(length_of, locals())
    return math.sqrt((power + 1) / ((power + 2) ** 2 * (power + 3)))


def power_of(length: float) -> float:
    r"""Power γ of the EMA of a relative ``length``: the root of $(\gamma+2)^2(\gamma+3)\,length^2 = \gamma+1$.

    Raises:
        ValueError: If the length is not in (0, `LONGEST`].
    """
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not 0 < length <= LONGEST * (1 + 1e-12):
        raise ValueError(
            f"a relative length must lie in (0, {LONGEST:.4f}], got {length!r}; 0.05 and 0.1 are usual, and "
            f"{LONGEST:.4f} is the mean over all updates."
        )
    inverse = length**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real.max()))


def power_decay(power: float, updates: int) -> float:
    r"""Decay of the EMA after ``updates`` = n earlier ones, $(n/(n + 1))^{\gamma + 1}$: it starts as a copy."""
    check_arguments(power_decay, locals())
    return (updates / (updates + 1.0)) ** (power + 1.0)


@dataclass(frozen=True)
class PowerProfile:
    """Profile of a power-function EMA.

    Attributes:
        power: γ.
        step: The update T at which it ends.
    """

    power: float
    step: int

    def inner(self, other: PowerProfile) -> float:
        r"""$\int p\,q\,dt = \frac{(a+1)(b+1)}{a+b+1}\,(S/T)^b/T$, p of power a to S, q of power b to T >= S."""
        early, late = (self, other) if self.step <= other.step else (other, self)
        a, b = early.power, late.power
        return (a + 1) * (b + 1) / (a + b + 1) * (early.step / late.step) ** b / late.step


def coefficients(stored: Sequence[PowerProfile], wanted: PowerProfile) -> list[float]:
    """Coefficients of the combination of ``stored`` profiles that is nearest to ``wanted``.

    Args:
        stored: At least one. If ``wanted`` is among them, its coefficient is 1 and the others 0.
        wanted: The profile to approximate.

    Returns:
        One coefficient each. They may be negative, and sum to 1, so that weights that did not change stay the same.
    """
    if wanted in stored:
        return [float(i == stored.index(wanted)) for i in range(len(stored))]
    products = np.array([[p.inner(q) for q in stored] for p in stored])
    with_wanted = np.array([p.inner(wanted) for p in stored])
    base = int(np.argmin(products.diagonal() - 2.0 * with_wanted))  # the nearest one; solve for differences from it
    gram = products - products[:, [base]] - products[[base], :] + products[base, base]
    right = with_wanted - with_wanted[base] - products[:, base] + products[base, base]
    norms = np.sqrt(np.maximum(gram.diagonal(), 1e-300))
    solution = np.linalg.lstsq(gram / norms / norms[:, None], right / norms, rcond=1e-13)[0] / norms
    solution[base] = 0.0
    solution[base] = 1.0 - solution.sum()
    return [float(x) for x in solution]


def save_snapshot(run: str | os.PathLike[str], step: int, lengths: Sequence[float], nets: Sequence[nn.Module]) -> Path:
    """Stores EMAs in the run directory, atomically and with checksums; an undamaged snapshot of the same step stays.

    Args:
        run: The run directory.
        step: Updates done.
        lengths: Relative lengths.
        nets: Networks with the averaged weights, one each.

    Raises:
        OSError: If it cannot be written.
    """
    check_arguments(save_snapshot, locals())
    folder = Path(run) / _FOLDER / f"step-{step:09d}"
    if folder.exists() and not damage(folder):
        return folder  # of a resumed run, with the same weights
    tensors = {f"average_{i}": weights_of(net) for i, net in enumerate(nets)}
    return write_whole(folder, tensors, {"step": step, "lengths": [float(length) for length in lengths]})


def discard_after(run: str | os.PathLike[str], step: int) -> None:
    """Removes snapshots of later steps: a run that is resumed at ``step`` writes them again."""
    check_arguments(discard_after, locals())
    for folder in (Path(run) / _FOLDER).glob("step-*"):
        if int(folder.name.partition("-")[2]) > step:
            shutil.rmtree(folder, ignore_errors=True)


def reconstruct(checkpoint: Checkpoint, length: float) -> dict[str, Tensor]:
    """The weights that an EMA of relative ``length`` would have at the checkpoint's step.

    They are a combination of the EMAs in the checkpoint and in the snapshots of the run directory up to its step.

    Args:
        checkpoint: Of a run with ``Training(lengths=…)``.
        length: Relative length, in (0, `LONGEST`].

    Returns:
        Name -> weight, in the averages' types, at least float32; summed in float64.

    Raises:
        ValueError: If the checkpoint holds no such EMAs, or the length is out of range.
        RuntimeError: If a snapshot is damaged.
    """
    check_arguments(reconstruct, locals())
    power, lengths = power_of(length), checkpoint.meta.get("lengths")
    if not lengths:
        raise ValueError(
            f"an average of any length needs a run with EMAs of two lengths, {checkpoint.path} has none; train with "
            "e.g. Training(lengths=(0.05, 0.1)), or load without average."
        )
    step = int(checkpoint.meta["step"])
    if step == 0:
        return {name: widened(average) for name, average in checkpoint.tensors["average_0"].items()}
    snapshots = [(step, checkpoint.meta["lengths"], checkpoint.tensors)]
    for folder in sorted((checkpoint.path.parent / _FOLDER).glob("step-*")):
        if 0 < int(folder.name.partition("-")[2]) < step:
            snapshot = read_checkpoint(folder)
            snapshots.append((int(snapshot.meta["step"]), snapshot.meta["lengths"], snapshot.tensors))
    stored = [PowerProfile(power_of(each), end) for end, lengths, _ in snapshots for each in lengths]
    tensors = [groups[f"average_{i}"] for _, lengths, groups in snapshots for i in range(len(lengths))]
    return _combined(coefficients(stored, PowerProfile(power, step)), tensors)


def _combined(factors: Sequence[float], tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    combined = {}
    for name, like in tensors[0].items():
        total = torch.zeros(like.shape, dtype=torch.float64)
        for factor, weights in zip(factors, tensors, strict=True):
            if factor:
                total += factor * weights[name].double()
        combined[name] = total.to(widened(like).dtype)
    return combined


def widened(x: Tensor) -> Tensor:
    """A tensor in float32 if it is floating with fewer bits; otherwise the tensor."""
    return x.float() if is_narrow(x) else x


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """The floating parameters of a network, tied ones under each of their names, without buffers."""
    check_arguments(weights_of, locals())
    named = plain_names(net, dict(net.named_parameters(remove_duplicate=False)))
    return {name: p.detach() for name, p in named.items() if p.is_floating_point()}


def load_weights(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies the weights of `weights_of` into a network; its buffers stay.

    Raises:
        ValueError: If names, shapes or types differ, see `load_into`.
    """
    check_arguments(load_weights, locals())
    load_into(net, {**plain_state(net), **weights})
