r"""Jacobian of the velocity at quadrature nodes: quadratic forms $e^\top J e$, $J = \partial v/\partial x$, in chunks.

One network evaluation serves all directions e at a node, by reverse mode or by forward mode. The size of the chunks is
bounded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoresde.likelihood.ode.quadrature import QuadratureNodes
from scoresde.likelihood.ode.solver import NotFinite, VelocityFunction

__all__ = ["Jacobian", "QuadraticForms", "StateFunction", "choose_forms", "forward_forms", "reverse_forms"]

StateFunction = Callable[[Tensor], Tensor]
"""The network's output, or the velocity, as a function of the state: ``(B, *D)`` to ``(B, *D)``."""

QuadraticForms = Callable[[StateFunction, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(velocity, x, directions)`` to v, ``(B, *D)``, and $e^\\top J e$, ``(P, B)``."""

_FORWARD_VALUES = 1 << 21  # values of x in one forward-mode product; the network's own width comes on top


@dataclass(eq=False)
class Jacobian:
    """v and its Jacobian at the nodes of all samples, with counts of evaluations and products.

    Attributes:
        nodes: Quadrature nodes.
        velocity: v, as for a solver.
        forms: Computes the quadratic forms.
        batch_size: Number of nodes that one network call evaluates.
        observe: Called with the number of nodes of each chunk.
        v: ``(B, N, d)``; NaN until the first products at a node.
        calls, products: Evaluations and Jacobian products at each node, ``(B, N)`` int64.
    """

    nodes: QuadratureNodes
    velocity: VelocityFunction
    forms: QuadraticForms
    batch_size: int
    observe: Callable[[int], None] | None = None
    v: Tensor = field(init=False)
    calls: Tensor = field(init=False)
    products: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.v = torch.full_like(self.nodes.x, float("nan"))
        self.calls = torch.zeros(self.nodes.phi.shape, dtype=torch.int64, device=self.nodes.x.device)
        self.products = torch.zeros_like(self.calls)

    def at(self, nodes: Tensor, directions: Tensor) -> Tensor:
        r"""$e^\top J e$ at some nodes, ``(P, M)``.

        Args:
            nodes: Indices into the flattened ``(B, N)``, ``(M,)``; a node may occur more than once.
            directions: ``(P, M, d)``.
        """
        if not len(nodes):
            return directions.new_zeros(directions.shape[:2])
        phi, x, v = self.nodes.phi.reshape(-1), self.nodes.x.flatten(0, 1), self.v.view(-1, self.v.shape[2])
        per_sample, out = self.nodes.phi.shape[1], []
        for chunk, e in zip(nodes.split(self.batch_size), directions.split(self.batch_size, 1)):
            rows, angle = chunk // per_sample, phi[chunk]
            v[chunk], forms = self.forms(lambda x, r=rows, a=angle: self.velocity(r, a, x), x[chunk], e)
            out.append(forms)
            if self.observe is not None:
                self.observe(len(chunk))
        ones = torch.ones_like(nodes)
        self.calls.view(-1).index_add_(0, nodes, ones)
        self.products.view(-1).index_add_(0, nodes, ones * len(directions))
        return torch.cat(out, 1)

    def check_finite(self, values: Tensor, samples: Tensor) -> None:
        """Refuses NaN and infinities among v and the given values.

        Args:
            values: At the nodes, ``(B, N)``.
            samples: Which samples are checked, ``(B,)`` bool.

        Raises:
            RuntimeError: Names τ and the samples.
        """
        bad = ~(torch.isfinite(values) & torch.isfinite(self.v).all(2)) & samples.unsqueeze(1)
        if bool(bad.any()):
            rows, columns = bad.nonzero(as_tuple=True)
            raise NotFinite(rows, self.nodes.phi[rows, columns])


def reverse_forms(velocity: StateFunction, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """`QuadraticForms` by reverse mode: one evaluation, and one backward pass to x per direction."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x)
        products = (torch.autograd.grad(v, x, e, retain_graph=True)[0] for e in directions)
        forms = [(e * product).reshape(len(x), -1).sum(1) for e, product in zip(directions, products, strict=True)]
    return v.detach(), torch.stack(forms)


def forward_forms(velocity: StateFunction, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """`QuadraticForms` by forward-mode products, batched over directions in chunks of bounded size."""
    v, forms = x, []
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):  # the attention that has forward-mode products
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, when it first loads its formulas
        for chunk in directions.split(max(1, _FORWARD_VALUES // max(x.numel(), 1))):
            copies, products = torch.func.vmap(lambda e: torch.func.jvp(velocity, (x,), (e,), strict=True)[:2])(chunk)
            v = copies[0]  # x is the same along the batched axis, and so is v
            forms.append((chunk * products).reshape(len(chunk), len(x), -1).sum(2))
    return v, torch.cat(forms)


def choose_forms(mode: str, output: StateFunction, velocity: StateFunction, x: Tensor, reverse: bool) -> QuadraticForms:
    """Tests the network on one sample: that it is differentiable in x, and which mode of products it supports.

    Args:
        mode: ``"reverse"`` or ``"forward"``, as requested.
        output: The network's output; v may depend on x even if the output does not.
        velocity: v.
        x: One sample, ``(1, *D)``.
        reverse: Whether reverse mode is possible. It is not for weights made under inference_mode.

    Returns:
        `reverse_forms` or `forward_forms`. If an operation has no forward mode: reverse, with a warning.

    Raises:
        RuntimeError: If the output has no derivative in x.
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
            raise RuntimeError(f"{_NO_DERIVATIVE} Forward mode reports: {error}") from error
        reason = str(error).splitlines()[0]
        warnings.warn(
            f"no forward-mode products through this network ({reason}); using mode='reverse'.",
            RuntimeWarning,
            stacklevel=2,
        )
        return reverse_forms
    return forward_forms


_NO_DERIVATIVE = (
    "a likelihood needs a network that is differentiable in x, but its output has no derivative in x; "
    "look for detach(), no_grad(), .data or NumPy inside it."
)


def _has_gradient(output: StateFunction, x: Tensor) -> bool:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = output(x)
        return out.requires_grad and torch.autograd.grad(out.sum(), x, allow_unused=True)[0] is not None
