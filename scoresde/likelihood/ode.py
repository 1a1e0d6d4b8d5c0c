r"""What is log p under a model? By the ODE, $\log p(x) = \log p_{prior}(z) + \int \nabla\cdot v\,d\phi$.

In the angle φ, $\cos\phi = e^{-\tau}$, the flow is $dx/d\phi = v$ and along it $d\log p/d\phi = -\nabla\cdot v$. Both
vanish for standard-normal data: what is integrated is only how the data differ from noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde import _tensor as t
from scoresde._tensor import Noise
from scoresde.likelihood.flow import Flow, Solver
from scoresde.likelihood.trace import Trace, choose_forms, default_trace, standard_error
from scoresde.model import Model, evaluating, event_size, refuse_unknown

__all__ = ["LogProb", "log_prob"]

Density = Callable[[Tensor], Tensor]
Observe = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class LogProb:
    """Log-densities, where the data went, and what it cost.

    Attributes:
        log_prob: ``(B,)`` float64, nats, of the law at ``tau_min``, in the view's coordinates: mean of ``per_probe``.
        latent: The state at the end of the clock, view's coordinates, ``(B, *D)``; ``sample(..., ODE(), init=latent)``
            leads back to the data.
        nfe: Evaluations of the network that a sample saw (the most over the batches), without the few with which one
            sample tests its derivative.
        products: Jacobian products that a sample saw.
        stderr: ``(B,)`` float64, standard error over the probes: 0 for an exact trace, NaN (unknown) for one probe.
        per_probe: ``(Q, B)`` float64, log-density by each probe alone; Q = 1 for an exact trace.
    """

    log_prob: Tensor
    latent: Tensor
    nfe: int
    products: int
    stderr: Tensor
    per_probe: Tensor


def log_prob(
    model: Model,
    x: Tensor,
    *,
    trace: Trace | None = None,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    **cond: object,
) -> LogProb:
    r"""$\log\tilde p(x) = \log p_{prior}(z) + \int \nabla\cdot v\,d\phi - d\log c$, of the law at ``tau_min``.

    Not of the law at 0: data are scored as if they carried that much noise. Runs in eval mode and without gradients, in
    float64 but for the network. Probes are drawn once and kept along the path. The batch shares the solver's steps; see
    `scoresde.likelihood.flow.Solver` for what that means for one sample.

    Args:
        model: Trained or exact.
        x: Data in the view's coordinates at ``tau_min`` (model units), ``(B, *D)``.
        trace: `Exact` or `Hutchinson`; default exact up to 16 dimensions, else 8 probes.
        method: torchdiffeq's ``"dopri5"``, ``"bosh3"``, ``"dopri8"`` or ``"adaptive_heun"``.
        rtol, atol: Tolerances of a step, for x and for log p in nats per dimension.
        max_nfe: Evaluations, per batch, before it gives up.
        prior_log_prob: Log-density, nats, ``(B, *D) -> (B,)``, of x itself (not of the view's) at the end of the clock;
            default the view's prior.
        generator: Source of the probes; the global random state is then left alone.
        seeds: One integer per sample instead: a sample's probes then do not depend on its batch.
        batch_size: Samples at once; default all.
        progress: Shows a progress bar.
        **cond: Passed to the network; tensors have one entry per sample, ``(B, ...)``.

    Returns:
        See `LogProb`.

    Raises:
        TypeError: If ``x`` is not floating, or a keyword is neither an option nor read by the network.
        ValueError: If ``x`` is not finite (names the index), a shape does not fit, or a setting is out of its domain.
        RuntimeError: If the network is not differentiable in x, returns NaN (names τ and the samples), or the solver
            does not arrive.

    Source: Chen et al. 2018; Song et al. 2021, appendix D.2; here in the angle.
    """
    refuse_unknown(log_prob, model, cond)
    scorer = Scorer(model, trace, Solver(method, rtol, atol, max_nfe), prior_log_prob, cond)
    scorer.check(x, seeds)
    parts = []
    with evaluated(model), bar(progress) as observe:
        for rows in batches(len(x), batch_size):
            noise = Noise(generator, None if seeds is None else seeds[rows])
            parts.append(scorer(x[rows], noise, rows, part_of(observe, rows.start / len(x), len(x[rows]) / len(x))))
    return join(parts or [scorer(x, Noise(generator, seeds), slice(0, 0))])


@dataclass(frozen=True, eq=False)
class Scorer:
    """Everything about a log-density but the data: what `log_prob` and the bound on quantised data share."""

    model: Model
    trace: Trace | None
    solver: Solver
    prior_log_prob: Density | None
    cond: dict[str, object]

    def check(self, x: Tensor, seeds: Sequence[int] | None) -> None:
        """Refuses data, seeds or conditioning that do not fit; see `log_prob`."""
        shape = self.model.event_shape
        if self.trace is not None and not isinstance(self.trace, Trace):
            raise TypeError(f"trace must be a Trace, got {self.trace!r}; pass an object such as Hutchinson(probes=8).")
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating tensor, got {x.dtype}; levels are scored by bits_per_dim.")
        if x.ndim == 0 or (shape is not None and x.shape[1:] != shape):
            axes = ", ".join(["B", *map(str, ("*D",) if shape is None else shape)])
            raise ValueError(f"x must have shape ({axes}), got {tuple(x.shape)}; give the batch first, then one event.")
        t.check_finite(x, "x")
        per_sample = {k: v for k, v in self.cond.items() if isinstance(v, Tensor) and v.ndim}
        for name, value in {"seeds": seeds, **per_sample}.items():
            if value is not None and len(value) != len(x):
                raise ValueError(f"{name} must have one entry per sample, {len(x)}, got {len(value)}.")

    def __call__(self, x: Tensor, noise: Noise, rows: slice, observe: Observe | None = None) -> LogProb:
        """One batch, which is ``rows`` of the whole; inside `evaluated`."""
        sde, size = self.model.sde, event_size(x)
        trace = default_trace(size) if self.trace is None else self.trace
        state = x.detach().to(t.wide(x.device)) / float(sde.scale(sde.tau_min))
        directions = trace.directions(state, noise)
        gathered = trace.estimates(directions.new_zeros(directions.shape[:2]))
        nfe = 0
        if len(x):
            flow = self._flow(state, trace, directions, rows)
            state, gathered = self.solver.solve(flow, state, observe)
            nfe = flow.nfe
        inside = self._prior(state) - size * math.log(float(sde.scale(sde.tau_min)))
        per_probe = t.sum_event(gathered.unsqueeze(2).flatten(0, 1)).reshape(gathered.shape) + inside
        latent = state * float(sde.scale(min(sde.tau_max, 300.0)))  # an infinite clock has reached its limit there
        return LogProb(
            per_probe.mean(0),
            latent.to(torch.promote_types(x.dtype, torch.float32)),
            nfe,
            nfe * len(directions),
            torch.zeros_like(inside) if trace.exact else standard_error(per_probe),
            per_probe,
        )

    def _flow(self, x: Tensor, trace: Trace, directions: Tensor, rows: slice) -> Flow:
        model, tau = self.model, self.model.sde.tau_min
        cond = {name: _rows_of(value, rows, x.device) for name, value in self.cond.items()}
        one = {name: _rows_of(value, slice(0, 1), x.device) for name, value in cond.items()}
        forms = choose_forms(
            trace,
            lambda x: model(x, tau, **one).out,
            lambda x: model(x, tau, **one).v,
            x[:1],
            reverse=not any(held.is_inference() for held in [*model.parameters(), *model.buffers()]),
        )
        return Flow(model, cond, trace, directions, forms, self.solver.max_nfe, rows.start)

    def _prior(self, z: Tensor) -> Tensor:
        if self.prior_log_prob is None:
            return self.model.sde.prior_log_prob(z)
        out = self.prior_log_prob(z)
        if out.shape != z.shape[:1]:
            raise ValueError(f"prior_log_prob must return shape ({len(z)},), one per sample, got {tuple(out.shape)}.")
        return t.sum_event(out)


def _rows_of(value: object, rows: slice, device: torch.device) -> object:
    """A conditioning tensor's part for some samples, usable by autograd also if it was made under inference_mode."""
    if not isinstance(value, Tensor):
        return value
    value = (value[rows] if value.ndim else value).to(device)
    return value.clone() if value.is_inference() else value


@contextmanager
def evaluated(model: Model) -> Iterator[None]:
    """Eval mode, no graph kept, and tensors that autograd can use, whatever the caller's modes."""
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        yield


@contextmanager
def bar(shown: bool) -> Iterator[Observe | None]:
    """A progress bar, as the function that takes the share done; None if not shown."""
    if not shown:
        yield None
        return
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task("likelihood", total=1.0)
        yield lambda share: progress.update(task, completed=share)


def part_of(observe: Observe | None, start: float, length: float) -> Observe | None:
    """The observer of a part of the work, by its start and length as shares of the whole."""
    return None if observe is None else lambda share: observe(start + length * share)


def batches(n: int, batch_size: int | None) -> list[slice]:
    """Rows of each batch.

    Raises:
        ValueError: If the size is not a positive integer.
    """
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size != int(batch_size) or batch_size < 1):
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}.")
    size = max(n, 1) if batch_size is None else int(batch_size)
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def join(parts: list[LogProb]) -> LogProb:
    """The batches' results as one."""
    return LogProb(
        torch.cat([part.log_prob for part in parts]),
        torch.cat([part.latent for part in parts]),
        max(part.nfe for part in parts),
        max(part.products for part in parts),
        torch.cat([part.stderr for part in parts]),
        torch.cat([part.per_probe for part in parts], 1),
    )
