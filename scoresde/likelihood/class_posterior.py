r"""Class posteriors of a conditional model: $p(c \mid x) = p(x \mid c)\,p(c) / \sum_k p(x \mid k)\,p(k)$.

The log-densities come from the probability-flow ODE of each class. A random trace uses the same probes for all classes,
so that most of its error cancels in the posterior. The standard error is that over replicates with new probes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike, as_tensor
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_event_shape, check_integer, check_seeds, check_values
from scoresde._core.progress import ProgressBar
from scoresde._core.tensors import event_size, widest_dtype
from scoresde.likelihood.batching import evaluation_mode
from scoresde.likelihood.ode.error_budget import LogProb
from scoresde.likelihood.ode.log_prob import log_prob
from scoresde.likelihood.ode.solver import Solver
from scoresde.likelihood.ode.trace import Hutchinson, Trace, default_trace
from scoresde.model import Model, check_model, refuse_unknown
from scoresde.nn.conditions import Classes

__all__ = ["ClassPosterior", "class_posterior"]


@dataclass(frozen=True, eq=False)
class ClassPosterior:
    """Posterior probabilities of classes with their errors; NaN for a sample that did not arrive for every class.

    Attributes:
        classes: The C classes, int64, ``(C,)``.
        log_prob: Logarithm of each class's posterior probability, nats, ``(B, C)`` float64.
        stderr: Standard error of ``log_prob`` over the probes, ``(B, C)``: 0 for an exact trace, NaN for one replicate.
        bias: Size of the errors of ``log_prob`` by solver, quadrature and the prior at the end of the clock, as far as
            the error budgets know them, ``(B, C)``.
        log_density: Log-density of x given each class, as in `log_prob`, nats, ``(B, C)``.
        nfe: Network evaluations of each sample, ``(B,)``.
        products: Jacobian products of each sample, ``(B,)``.
    """

    classes: Tensor
    log_prob: Tensor
    stderr: Tensor
    bias: Tensor
    log_density: Tensor
    nfe: Tensor
    products: Tensor

    @property
    def predicted(self) -> Tensor:
        """The most probable class of each sample, ``(B,)``; -1 for one that did not arrive."""
        best = self.classes[self.log_prob.nan_to_num(-math.inf).argmax(1)]
        return torch.where(self.log_prob.isnan().any(1), -1, best)


def class_posterior(
    model: Model,
    x: ArrayLike,
    classes: int | Sequence[int],
    *,
    prior: ArrayLike | None = None,
    condition: str = "label",
    trace: Trace | None = None,
    replicates: int = 2,
    solver: Solver | None = None,
    nodes: int = 40,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    strict: bool = False,
    progress: bool = False,
    **cond: object,
) -> ClassPosterior:
    r"""Posterior probabilities of classes, $\log p(c \mid x) = \log p(x \mid c) + \log p(c) - \log p(x)$.

    The densities are those at ``tau_min``, see `log_prob`. Every class costs one `log_prob` per replicate.

    Args:
        model: Conditional, such as a `ScoreModel` whose network has ``conditions={"label": Classes(10)}``.
        x: Model units, ``(B, *D)``; integer values are dequantized first (``description.dequantize``).
        classes: Their number C, for 0 … C - 1, or the classes themselves.
        prior: p(c), positive, ``(C,)``; it is normalized. None: uniform.
        condition: Name of the condition that takes the class.
        trace: As in `log_prob`; default exact up to 16 dimensions, else two random probes per node. A random one has
            the same probes for all classes.
        replicates: Sets of probes, for a random trace; two or more have a standard error.
        solver, nodes, batch_size, strict: As in `log_prob`.
        generator: Source of the probes; the global random state is then not used.
        seeds: One integer per sample instead.
        progress: Shows a progress bar.
        **cond: Further conditions, one entry per sample.

    Raises:
        TypeError: If the model does not read the condition, or ``x`` is not floating.
        ValueError: If there are fewer than two classes, the prior is not positive or of another length, or as
            `log_prob`.

    Source: posteriors from conditional densities, e.g. Zimmermann, Schott, Song, Dunn & Klindt 2021 (score-based
    generative classifiers).
    """
    check_model(model)
    check_arguments(class_posterior, locals())
    refuse_unknown(class_posterior, model, {condition: None, **cond})
    check_integer("replicates", replicates)
    if condition in cond:
        raise ValueError(f"{condition} takes each class in turn, got it as a keyword too; leave it out.")
    x = as_input(model, x, "x")
    if not x.is_floating_point():
        raise TypeError(f"x must be a floating tensor, got {x.dtype}; dequantize and scale integer values first.")
    check_event_shape(x, model.event_shape, "x")
    labels = _checked_classes(classes)
    _check_declared(model, condition, labels)
    log_prior = _checked_prior(prior, len(labels)).to(x.device, widest_dtype(x.device))
    chosen = default_trace(max(event_size(x), 1)) if trace is None else trace
    if trace is None and isinstance(chosen, Hutchinson):
        chosen = Hutchinson(probes=2)  # further ones would be placed by class, not in pairs
    random = isinstance(chosen, Hutchinson)
    rounds = _seeds(len(x), replicates if random else 1, generator, seeds)
    results: list[list[LogProb]] = []
    options = {"trace": chosen, "solver": solver, "nodes": nodes, "batch_size": batch_size, "strict": strict}
    with evaluation_mode(model), ProgressBar("class posterior", enabled=progress) as bar:
        for i, row in enumerate(rounds):
            results.append([])
            for j, label in enumerate(labels):
                given = {condition: torch.full((len(x),), label, device=x.device), **cond}
                results[i].append(log_prob(model, x, seeds=row, **options, **given))
                bar.update((i * len(labels) + j + 1) / (len(rounds) * len(labels)))
    return _posterior(labels, log_prior, results, random)


def _posterior(labels: list[int], log_prior: Tensor, results: list[list[LogProb]], random: bool) -> ClassPosterior:
    """Means over the replicates, each with the same probes for all classes."""
    density = torch.stack([torch.stack([each.log_prob for each in row], 1) for row in results])
    posteriors = torch.log_softmax(density + log_prior, 2)
    mean_density = density.mean(0)
    value = torch.log_softmax(mean_density + log_prior, 1)
    count = len(results)
    if not random:
        stderr = torch.zeros_like(value)
    elif count == 1:
        stderr = torch.full_like(value, math.nan)
    else:
        stderr = posteriors.std(0) / math.sqrt(count)
    error = torch.stack([torch.stack([_error(each) for each in row], 1) for row in results]).mean(0)
    bias = error + (value.exp() * error).sum(1, keepdim=True)
    every = [each for row in results for each in row]
    classes = torch.tensor(labels, device=value.device)
    nfe, products = (torch.stack([getattr(each, name) for each in every]).sum(0) for name in ("nfe", "products"))
    return ClassPosterior(classes, value, stderr, bias, mean_density, nfe, products)


def _error(result: LogProb) -> Tensor:
    return result.budget.solver + result.budget.quadrature + result.budget.prior


def _checked_classes(classes: int | Sequence[int]) -> list[int]:
    each: Any = range(int(classes)) if isinstance(classes, Integral) else classes
    try:
        labels = [operator.index(label) for label in each]
    except TypeError:
        labels = []
    if len(labels) < 2 or len(set(labels)) < len(labels) or min(labels) < 0:
        raise ValueError(
            f"classes must be two or more different integers from 0 on, or their number, got {classes!r}; such as 10."
        )
    return labels


def _check_declared(model: Model, condition: str, labels: list[int]) -> None:
    """Checks the classes against the network's declaration, if it has one; the label after the last class is null."""
    networks = [module for module in model.modules() if isinstance(getattr(module, "conditions", None), dict)]
    declared = networks[0].conditions.get(condition) if networks else None  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    if declared is None:
        return
    if not isinstance(declared, Classes):
        raise TypeError(f"{condition} must be a condition of classes, got {declared}; name the one that is.")
    if max(labels) >= declared.count:
        raise ValueError(f"classes must lie in 0 ... {declared.count - 1}, got {max(labels)}; pass {declared.count}.")


def _checked_prior(prior: ArrayLike | None, count: int) -> Tensor:
    """The logarithm of the normalized prior, ``(C,)`` float64."""
    if prior is None:
        return torch.full((count,), -math.log(count), dtype=torch.float64)
    values = as_tensor(prior, "prior")
    check_values("prior", values)
    values = values.double().cpu()
    if values.shape != (count,) or not bool((values > 0).all()) or not bool(values.isfinite().all()):
        raise ValueError(
            f"prior must be {count} positive numbers, one per class, got {values.tolist()}; leave a class without "
            "probability out of classes."
        )
    return (values / values.sum()).log()


def _seeds(n: int, rounds: int, generator: torch.Generator | None, seeds: Sequence[int] | None) -> list[list[int]]:
    """A seed for each sample of each replicate: the probes of all classes."""
    if seeds is not None:
        if generator is not None:
            raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
        checked = check_seeds(seeds, n)
        drawn = [torch.randint(2**62, (rounds,), generator=torch.Generator().manual_seed(seed)) for seed in checked]
        return torch.stack(drawn, 1).tolist() if drawn else [[] for _ in range(rounds)]
    device = None if generator is None else generator.device
    return torch.randint(2**62, (rounds, n), generator=generator, device=device).tolist()
