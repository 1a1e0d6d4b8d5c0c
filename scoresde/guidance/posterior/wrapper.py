r"""`Posterior`: a model of $x_0$ given $y = A x_0 + n$, with data estimate $\hat x_0' = \hat x_0 + \Delta$."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import as_time, expand, has_values
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import LinearOperator, Operator
from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift
from scoresde.guidance.posterior.estimate import DataEstimate, with_signal
from scoresde.guidance.posterior.mmps import MMPS
from scoresde.model import Model, check_model, gaussian_process
from scoresde.process import ou
from scoresde.process.parameterization import X0
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = ["Posterior"]


@dataclass(frozen=True)
class _Selection:
    """The operator and the measurements of one batch, kept while its index is the same tensor."""

    index: weakref.ref[Tensor] | None
    source: tuple[Observation, int, int]
    kind: tuple[int, torch.dtype, torch.device]
    operator: Operator
    y: Tensor
    support: Tensor | None

    def has(self, index: Tensor | None) -> bool:
        """Whether it was made for this very tensor."""
        return index is None if self.index is None else index is not None and self.index() is index


class Posterior(Model):
    r"""A model given an observation, by a posterior method: $\hat x_0' = \hat x_0 + \Delta$.

    It is a model, so every sampler takes it. The estimate is exact only where its method says so; in general its score
    is not that of any density. Samples of a batch do not influence each other. Process, event shape, data description
    and conditioning are those of the wrapped model; its learned variance is passed on unchanged.

    Calls take ``observation=index``, integers ``(B,)``, if there are several observations:
    ``sample(Posterior(model, obs), 20 * m, Adams(50), observation=torch.arange(m).repeat_interleave(20))``.

    Where hardly any signal is left (α below the cube root of the type's rounding error, as at the end of a clock
    without signal), the model is evaluated at the last time before it.

    Args:
        model: The wrapped model, differentiable in x unless the method needs no Jacobian.
        observation: The observation, in model units.
        method: How Δ is computed; default `MMPS`.

    Raises:
        TypeError: If an argument has the wrong class, or the model's states hold categories.
        ValueError: If the operator takes other events than the model, or the method cannot use the observation.

    Example:
        >>> import torch
        >>> from scoresde import Adams, Gaussian, sample
        >>> from scoresde.guidance import Mask, Observation, Posterior
        >>> prior = Gaussian(torch.zeros(2).double(), torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double())
        >>> seen = Observation(Mask(torch.tensor([True, False])), torch.tensor([2.0, 0.0]).double(), noise_std=0.1)
        >>> drawn = sample(Posterior(prior, seen), 2000, Adams(steps=20), seeds=range(2000))
        >>> [round(float(value), 1) for value in drawn.x.mean(0)]
        [2.0, 1.8]
    """

    def __init__(self, model: Model, observation: Observation, method: PosteriorMethod | None = None) -> None:
        check_model(model)
        gaussian_process(model)
        check_kind("observation", observation, Observation)
        super().__init__()
        self.model, self.observation = model, observation
        self.sde, self.event_shape, self.data = model.sde, model.event_shape, model.data
        self.method = MMPS() if method is None else method
        check_kind("method", self.method, PosteriorMethod)
        operator = observation.operator
        if self.event_shape is not None and tuple(self.event_shape) != tuple(operator.event_shape):
            raise ValueError(
                f"the operator must take the model's events of shape {self.event_shape}, got {operator.event_shape}."
            )
        self.method.check(observation)
        self._selection: _Selection | None = None
        self._differentiable = False  # not yet checked

    @property
    def cost(self) -> int:
        """Network evaluations per call: 1 and one per Jacobian product, times those of the wrapped model."""
        return self.model.cost * (1 + self.method.jacobian_products(self.observation.operator.measured()))

    def cost_at(self, tau: Scalar) -> int:
        """Network evaluations of one call at ``tau``, as `cost`."""
        inner: int = self.model.cost_at(tau)
        return inner * (1 + self.method.jacobian_products(self.observation.operator.measured()))

    def why_guided(self) -> str | None:
        """That the estimate is an approximation, exact for some data only; a model does not know its own."""
        return (
            f"{type(self.method).__name__} approximates the data estimate given an observation, and the result is in "
            "general no density's score; for an exact model take model.given(observation)"
        )

    def cond_reader(self) -> Callable[..., object]:
        return _with_observation(self.model.cond_reader())

    def largest_value(self) -> float | None:
        """That of the wrapped model: an observation far outside of its range is not expected."""
        return self.model.largest_value()

    def predict(self, x: Tensor, tau: Scalar, observation: Tensor | None = None, **cond: object) -> Prediction:
        """The prediction given the observation; see `Model.predict`.

        Args:
            x: State, ``(B, *D)``.
            tau: OU time, a number or ``(B,)``.
            observation: Which observation each sample belongs to, integers ``(B,)``; None if there is one.
            **cond: Passed to the wrapped model.
        """
        estimate, shift = self.shift(x, tau, observation, **cond)
        return GaussianPrediction(x, tau, estimate.x0 + shift.value, X0(), estimate.mix)

    def shift(
        self, x: Tensor, tau: Scalar, observation: Tensor | None = None, **cond: object
    ) -> tuple[DataEstimate, Shift]:
        """The wrapped model's data estimate, and Δ with the residual of its linear system; arguments as `predict`."""
        signal_tau = with_signal(tau if isinstance(tau, float) else as_time(tau), x.dtype)
        estimate = DataEstimate(self.model, x, signal_tau, cond, self.method.needs_jacobian)
        if self.method.needs_jacobian and not self._differentiable:
            estimate.check_differentiable()
            self._differentiable = True
        return estimate, self.method.shift(self._problem(estimate, signal_tau, self._select(x, observation)))

    def _problem(self, estimate: DataEstimate, tau: Scalar, selection: _Selection) -> Problem:
        operator, x0, support = selection.operator, estimate.x0, selection.support
        value, apply, adjoint = operator.linearize(x0)
        alpha, sigma = expand(ou.alpha(tau), x0), expand(ou.sigma(tau), x0)
        v_factor, observation = sigma * sigma / alpha, self.observation
        variance = None if observation.noise_std is None else observation.noise_std.to(x0.dtype).square()

        def on_support(w: Tensor) -> Tensor:
            return w if support is None else w * support

        return Problem(
            operator,
            x0,
            tau,
            alpha,
            sigma,
            on_support(selection.y - value),
            apply,
            adjoint,
            lambda w: on_support(observation.apply_noise_cov(w)),
            lambda v: estimate.transposed_product(v) * v_factor,
            operator.gram_diagonal(x0) if isinstance(operator, LinearOperator) else None,
            variance,
            self.observation.operator.measured(),
            self.sde,
        )

    def _select(self, x: Tensor, index: Tensor | None) -> _Selection:
        if index is not None:
            _check_index(index, len(x))
        kept, kind = self._selection, (len(x), x.dtype, x.device)
        source = (self.observation, _version(self.observation.y), 0 if index is None else _version(index))
        if kept is not None and kept.kind == kind and kept.source == source and kept.has(index):
            return kept
        if index is not None:
            _check_range(index, self.observation.count or 1)
        operator, y = self.observation.of_batch(x, index)
        reference = None if index is None else weakref.ref(index)
        self._selection = _Selection(reference, source, kind, operator, y.to(x.dtype), operator.support())
        return self._selection


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; 0 for those of ``torch.inference_mode``, which do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _check_index(index: object, size: int) -> None:
    if not isinstance(index, Tensor) or index.is_floating_point() or index.dtype is torch.bool:
        received = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise TypeError(f"observation must be an integer tensor, one index per sample, got {received}.")
    if index.shape != (size,):
        raise ValueError(f"observation must have shape ({size},), one index per sample, got {tuple(index.shape)}.")


def _check_range(index: Tensor, count: int) -> None:
    """Reads the values of an index, once for each index tensor and not in every step."""
    if not has_values(index) or not index.numel():
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= count:
        raise ValueError(f"observation must lie in 0 … {count - 1}, one of {count} observations, got {low} to {high}.")


def _with_observation(reader: Callable[..., object]) -> Callable[..., object]:
    """A function with the signature of ``reader`` and the keyword ``observation``."""

    @functools.wraps(reader)
    def read(*args: object, **kwargs: object) -> object:
        return reader(*args, **kwargs)

    signature = inspect.signature(reader)
    parameters = [p for p in signature.parameters.values() if p.name != "observation"]
    added = inspect.Parameter("observation", inspect.Parameter.KEYWORD_ONLY, default=None)
    last = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_KEYWORD), len(parameters))
    vars(read)["__signature__"] = signature.replace(parameters=[*parameters[:last], added, *parameters[last:]])
    return read
