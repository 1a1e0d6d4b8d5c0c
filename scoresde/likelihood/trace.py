r"""What is the divergence of the velocity? $\sum_i e_i^\top J e_i$, $J = \partial v/\partial x$ (or a mean over e).

A `Trace` says along which directions e the Jacobian is probed and how the quadratic forms combine. One
evaluation of the network serves all directions, by reverse or by forward mode.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoresde._tensor import Noise
from scoresde.model import event_size
from scoresde.spec import nearest

__all__ = ["Exact", "Function", "Hutchinson", "QuadraticForms", "Trace"]

Function = Callable[[Tensor], Tensor]
"""The network's output, or the velocity, as a function of the state: ``(B, *D)`` to ``(B, *D)``."""

QuadraticForms = Callable[[Function, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(velocity, x, directions)`` to v, ``(B, *D)``, and $e^\\top J e$, ``(P, B)``."""

_HELD = 1 << 21  # values of x that the products computed together may hold; the network's own width comes on top


class Trace(ABC):
    """Which directions probe the Jacobian, and how many independent estimates of the divergence they make.

    Attributes:
        mode: ``"reverse"``: one reverse pass per direction, down to x only; holds the network's graph, as training.
            ``"forward"``: forward-mode products, batched over directions; holds their tangents instead of a graph. On a
            CPU with torch 2.13 it took 2 times as long as reverse on the package's MLP and UNet, 8 times on tiny ones.
    """

    mode: str

    @abstractmethod
    def directions(self, x: Tensor, noise: Noise) -> Tensor:
        """Directions e, fixed along the path.

        Args:
            x: The batch, ``(B, *D)``.
            noise: Source of random directions.

        Returns:
            ``(P, B, *D)`` of the type of ``x``: P Jacobian products per evaluation.

        Raises:
            ValueError: If the event is too large for this trace.
        """

    @abstractmethod
    def estimates(self, forms: Tensor) -> Tensor:
        r"""From the forms $e^\top J e$, ``(P, B)``, to independent estimates of the divergence, ``(Q, B)``."""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether the estimate, then a single one, has no error."""


@dataclass(frozen=True)
class Exact(Trace):
    """The divergence itself: as many products per evaluation as the event has elements.

    Args:
        limit: Largest event size that is not refused.
        mode: See `Trace`.

    Raises:
        ValueError: If ``limit`` is not a positive integer; when used, if the event is larger.
    """

    limit: int = 256
    mode: str = "reverse"

    def __post_init__(self) -> None:
        _check_mode(self.mode)
        _check_count("limit", self.limit)

    def directions(self, x: Tensor, noise: Noise) -> Tensor:
        """The unit vectors, ``(d, B, *D)``; no random number is drawn."""
        size = event_size(x)
        if size > self.limit:
            raise ValueError(
                f"an exact trace costs one Jacobian product per dimension at every evaluation, here {size}, and is "
                f"refused above limit={self.limit}; use Hutchinson(probes=8), or Exact(limit={size}) if you can wait."
            )
        basis = torch.eye(size, dtype=x.dtype, device=x.device)
        return basis.reshape(size, 1, *x.shape[1:]).expand(size, *x.shape)

    def estimates(self, forms: Tensor) -> Tensor:
        """Their sum, ``(1, B)``."""
        return forms.sum(0, keepdim=True)

    @property
    def exact(self) -> bool:
        """True."""
        return True


@dataclass(frozen=True)
class Hutchinson(Trace):
    r"""The mean of $e^\top J e$ over random e with $E[e\,e^\top] = I$: unbiased, one independent estimate per probe.

    Args:
        probes: Products per evaluation; two or more give a standard error.
        kind: ``"rademacher"`` (signs: only what lies off J's diagonal adds variance) or ``"gaussian"``.
        mode: See `Trace`.

    Raises:
        ValueError: If ``probes`` is not a positive integer or ``kind`` is unknown.

    Source: Hutchinson 1990; Grathwohl et al. 2019 (FFJORD), who fix e along the path, as is done here.
    """

    probes: int = 4
    kind: str = "rademacher"
    mode: str = "reverse"

    def __post_init__(self) -> None:
        _check_mode(self.mode)
        _check_count("probes", self.probes)
        if self.kind not in ("rademacher", "gaussian"):
            raise ValueError(f"no kind is named {self.kind!r}; {nearest(str(self.kind), ('rademacher', 'gaussian'))}")

    def directions(self, x: Tensor, noise: Noise) -> Tensor:
        """Signs or normal numbers, ``(probes, B, *D)``."""
        draw = noise.rademacher if self.kind == "rademacher" else noise.normal
        return torch.stack([draw(x) for _ in range(self.probes)])

    def estimates(self, forms: Tensor) -> Tensor:
        """As they are: each probe is an estimate."""
        return forms

    @property
    def exact(self) -> bool:
        """False."""
        return False


def default_trace(size: int) -> Trace:
    """`Exact` up to 16 dimensions, where it costs twice the products at most, else `Hutchinson` with 8 probes."""
    return Exact() if size <= 16 else Hutchinson(probes=8)


def standard_error(estimates: Tensor) -> Tensor:
    """Of their mean, ``(Q, B)`` to ``(B,)``; NaN, that is unknown, from one estimate."""
    if len(estimates) < 2 or estimates.numel() == 0:
        return torch.full_like(estimates[0], math.nan)
    return estimates.std(0) / math.sqrt(len(estimates))


def _check_mode(mode: str) -> None:
    if mode not in ("reverse", "forward"):
        raise ValueError(f"no mode is named {mode!r}; {nearest(str(mode), ('reverse', 'forward'))}")


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}; a trace takes at least one product.")


def reverse_forms(velocity: Function, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """See `QuadraticForms`: one evaluation, and one reverse pass down to x per direction."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x)
        products = (torch.autograd.grad(v, x, e, retain_graph=True)[0] for e in directions)
        forms = [(e * product).reshape(len(x), -1).sum(1) for e, product in zip(directions, products, strict=True)]
    return v.detach(), torch.stack(forms)


def forward_forms(velocity: Function, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """See `QuadraticForms`: forward-mode products, batched over directions in portions of bounded size."""
    v, forms = x, []
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):  # the attention that has forward-mode products
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, when it first loads its formulas
        for part in directions.split(max(1, _HELD // max(x.numel(), 1))):
            copies, products = torch.func.vmap(lambda e: torch.func.jvp(velocity, (x,), (e,), strict=True)[:2])(part)
            v = copies[0]  # x is the same along the batched axis, and so is v
            forms.append((part * products).reshape(len(part), len(x), -1).sum(2))
    return v, torch.cat(forms)


def choose_forms(trace: Trace, output: Function, velocity: Function, x: Tensor, reverse: bool) -> QuadraticForms:
    """Tries the network on one sample: refuses one without a derivative, and finds out which products it supports.

    Args:
        trace: States the mode that is wanted.
        output: The network's output; v may depend on x also without it.
        velocity: v.
        x: One sample, ``(1, *D)``.
        reverse: Whether reverse mode can be asked: not of weights made under inference_mode.

    Returns:
        `reverse_forms` or `forward_forms`. Reverse with a warning where an operation knows no forward mode.

    Raises:
        RuntimeError: If no derivative in x reaches the output.
    """
    if reverse and not _has_gradient(output, x):
        raise RuntimeError(_NO_DERIVATIVE)
    if reverse and trace.mode == "reverse":
        return reverse_forms
    try:
        forward_forms(output, x, torch.ones_like(x).unsqueeze(0))
        forward_forms(velocity, x, torch.ones_like(x).unsqueeze(0))
    except (RuntimeError, NotImplementedError) as error:
        if not reverse:
            raise RuntimeError(f"{_NO_DERIVATIVE} Forward mode says: {error}") from error
        reason = str(error).splitlines()[0]
        warnings.warn(
            f"no forward-mode products through this network ({reason}); using mode='reverse'.",
            RuntimeWarning,
            stacklevel=2,
        )
        return reverse_forms
    return forward_forms


_NO_DERIVATIVE = (
    "a likelihood needs a network that is differentiable in x, but no derivative reaches its output; "
    "look for detach(), no_grad(), .data or NumPy inside it."
)


def _has_gradient(output: Function, x: Tensor) -> bool:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = output(x)
        return out.requires_grad and torch.autograd.grad(out.sum(), x, allow_unused=True)[0] is not None
