r"""How is v's Jacobian J asked? By forms $e^\top J e$ at the nodes of a path, in portions of bounded size.

One evaluation of the network serves all directions at a node, by reverse or by forward mode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoresde.likelihood.ode.quadrature import QuadratureNodes
from scoresde.likelihood.ode.solver import NotFinite, Velocity

__all__ = ["Function", "Jacobian", "QuadraticForms", "choose_forms", "forward_forms", "reverse_forms"]

Function = Callable[[Tensor], Tensor]
"""The network's output, or the velocity, as a function of the state: ``(B, *D)`` to ``(B, *D)``."""

QuadraticForms = Callable[[Function, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(velocity, x, directions)`` to v, ``(B, *D)``, and $e^\\top J e$, ``(P, B)``."""

_HELD = 1 << 21  # values of x that the products computed together may hold; the network's own width comes on top


@dataclass(eq=False)
class Jacobian:
    """v and its Jacobian at the nodes of all samples; it counts.

    Attributes:
        nodes: The places.
        velocity: v, as for a solver.
        forms: How the products are computed.
        held: Places that go through the network together.
        observe: Called with the number of places done in each portion.
        v: ``(B, N, d)``; filled by the first products at a place.
        calls, products: Evaluations and Jacobian products at each place, ``(B, N)`` int64.
    """

    nodes: QuadratureNodes
    velocity: Velocity
    forms: QuadraticForms
    held: int
    observe: Callable[[int], None] | None = None
    v: Tensor = field(init=False)
    calls: Tensor = field(init=False)
    products: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.v = torch.full_like(self.nodes.x, float("nan"))
        self.calls = torch.zeros(self.nodes.phi.shape, dtype=torch.int64, device=self.nodes.x.device)
        self.products = torch.zeros_like(self.calls)

    def at(self, places: Tensor, directions: Tensor) -> Tensor:
        r"""$e^\top J e$, ``(P, M)``.

        Args:
            places: Indices into the flattened ``(B, N)``, ``(M,)``; one may come more than once.
            directions: ``(P, M, d)``.
        """
        if not len(places):
            return directions.new_zeros(directions.shape[:2])
        phi, x, v = self.nodes.phi.reshape(-1), self.nodes.x.flatten(0, 1), self.v.view(-1, self.v.shape[2])
        count, out = self.nodes.phi.shape[1], []
        for part, e in zip(places.split(self.held), directions.split(self.held, 1)):
            rows, angle = part // count, phi[part]
            value, forms = self.forms(lambda x, r=rows, a=angle: self.velocity(r, a, x), x[part], e)
            v[part] = value
            out.append(forms)
            if self.observe is not None:
                self.observe(len(part))
        once = torch.ones_like(places)
        self.calls.view(-1).index_add_(0, places, once)
        self.products.view(-1).index_add_(0, places, once * len(directions))
        return torch.cat(out, 1)

    def refuse_values(self, values: Tensor, kept: Tensor) -> None:
        """Refuses what is not finite.

        Args:
            values: At the nodes, ``(B, N)``.
            kept: The samples that count, ``(B,)`` bool.

        Raises:
            RuntimeError: Names τ and the samples.
        """
        bad = ~(torch.isfinite(values) & torch.isfinite(self.v).all(2)) & kept.unsqueeze(1)
        if bool(bad.any()):
            rows, columns = bad.nonzero(as_tuple=True)
            raise NotFinite(rows, self.nodes.phi[rows, columns])


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


def choose_forms(mode: str, output: Function, velocity: Function, x: Tensor, reverse: bool) -> QuadraticForms:
    """Tries the network on one sample: refuses one without a derivative, and finds out which products it supports.

    Args:
        mode: ``"reverse"`` or ``"forward"``, as wanted.
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
    if reverse and mode == "reverse":
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
