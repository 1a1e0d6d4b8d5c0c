r"""Log-density by probability-flow ODE: $\log p(x) = \log p_{prior}(z) + \int(\nabla\cdot v - \delta\cdot s)\,d\phi$.

In the angle φ, $\cos\phi = e^{-\tau}$, the flow is $dx/d\phi = v$ and along it $d\log p/d\phi = -\nabla\cdot v$. Both
vanish for standard-normal data, so the integral contains only the difference between the data and noise.

The solver computes the trajectory by forward calls alone; the integral is a quadrature over nodes on it. A trajectory
that was solved with a loose tolerance has the defect $\delta = \dot x - v$. Along it
$d\log p/d\phi = -\nabla\cdot v + \delta\cdot s$, and the score s is known. If s is the score of the density that the
flow transports, the solver's error does not enter the value; otherwise a small part of it does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.noise import Noise
from scoresde._core.progress import ProgressBar
from scoresde.likelihood.batching import Density, evaluation_mode, progress_part
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.ode.adaptive_solver import AdaptiveSolver
from scoresde.likelihood.ode.error_budget import LogProb, join
from scoresde.likelihood.ode.scorer import LikelihoodScorer
from scoresde.likelihood.ode.solver import Solver
from scoresde.likelihood.ode.trace import Trace
from scoresde.likelihood.score_check import refuse_without_score
from scoresde.model import Model, refuse_unknown

__all__ = ["log_prob"]


def log_prob(
    model: Model,
    x: ArrayLike,
    *,
    trace: Trace | None = None,
    solver: Solver | None = None,
    nodes: int = 40,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    strict: bool = False,
    progress: bool = False,
    **cond: object,
) -> LogProb:
    r"""Log-density by the probability-flow ODE under the distribution at ``tau_min``, in the view's coordinates.

    $\log\tilde p(x) = \log p_{prior}(z) + \int(\nabla\cdot v - \delta\cdot s)\,d\phi - d\log c$, δ the trajectory's
    defect. It is not the density at τ = 0: the data are scored as if they carried the noise of ``tau_min``. Runs in
    eval mode and without gradients, in float64 except for the network. With `AdaptiveSolver` and ``seeds`` the value of
    a sample does not depend on its neighbors.

    Args:
        model: Trained or exact.
        x: Data in the view's coordinates at ``tau_min`` (model units), ``(B, *D)``.
        trace: `ExactTrace` or `Hutchinson`; default exact up to 16 dimensions.
        solver: Of the trajectory; default `AdaptiveSolver`, with a step size per sample. In `TorchDiffEq` all samples
            share their steps.
        nodes: Quadrature nodes per sample, at which the divergence is evaluated.
        prior_log_prob: Log-density, nats, ``(B, *D) -> (B,)``, of x itself (not in the view's coordinates) at the end
            of the clock; default the view's prior.
        generator: Source of the probes; the global random state is then not used.
        seeds: One integer in [0, 2**63) per sample instead: the probes of a sample then do not depend on its batch.
        batch_size: Limit of samples in one batch, and of nodes in one network call that computes products; default by
            the size of an event.
        strict: Raise an error if a sample does not arrive, instead of a status and NaN.
        progress: Shows a progress bar.
        **cond: Passed to the network; tensors have one entry per sample, ``(B, ...)``.

    Returns:
        See `LogProb`.

    Raises:
        TypeError: If ``x`` is not floating, or a keyword is neither an option nor read by the network.
        ValueError: If ``x`` is not finite (names the index), a shape does not fit, or a setting is out of its domain.
        RuntimeError: If the network is not differentiable in x or returns NaN (names τ and the samples); with
            ``strict``, if a sample does not arrive.

    Example:
        >>> import torch
        >>> from scoresde import Gaussian, log_prob
        >>> model = Gaussian(torch.zeros(2, dtype=torch.float64), 1.0)
        >>> result = log_prob(model, torch.zeros(1, 2, dtype=torch.float64))
        >>> round(float(result.log_prob), 4)  # -log(2 pi)
        -1.8379

    Source: Chen et al. 2018; Song et al. 2021, appendix D.2; here in the angle, corrected for the trajectory's defect.
    """
    refuse_unknown(log_prob, model, cond)
    refuse_without_score(log_prob, model)
    check_arguments(log_prob, locals())
    x, cond = as_input(model, x, "x"), likelihood_inputs(model, cond)
    scorer = LikelihoodScorer(model, trace, solver or AdaptiveSolver(), nodes, prior_log_prob, cond, batch_size, strict)
    scorer.check(x, seeds)
    parts = []
    with evaluation_mode(model), ProgressBar("likelihood", enabled=progress) as bar:
        for rows in scorer.batches(x) or [slice(0, 0)]:
            noise = Noise(generator, None if seeds is None else seeds[rows])
            done, share = rows.start / max(len(x), 1), (rows.stop - rows.start) / max(len(x), 1)
            hook = progress_part(bar.update if progress else None, done, share)
            parts.append(scorer(x[rows], noise, rows, hook))
    return join(parts)
