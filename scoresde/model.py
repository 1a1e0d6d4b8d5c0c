r"""What does everything downstream call? `model(x, tau, **cond) -> Prediction`: a network, made a score."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import closest
from scoresde._core.tensors import as_time
from scoresde.data import Description
from scoresde.process import ou
from scoresde.process.parameterization import Parameterization, PosteriorMean, Prediction, V
from scoresde.process.sde import SDE

__all__ = ["Model", "ScoreModel", "evaluating"]


class Model(nn.Module, ABC):
    """The waist: whatever answers `model(x, tau, **cond)` with a `Prediction`, and states its process and event shape.

    Attributes:
        sde: The process.
        event_shape: Shape of one sample, or None where any shape is taken.
        data: The data's description, or None.
    """

    sde: SDE
    event_shape: tuple[int, ...] | None = None
    data: Description | None = None

    @abstractmethod
    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        """As the call, for checked arguments."""

    def forward(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        """The prediction at ``(x, tau)``.

        Args:
            x: State in x (not in a view's coordinates), floating, ``(B, *D)``.
            tau: OU time in (0, tau_max], a number or a tensor of shape ``()`` or ``(B,)``.
            **cond: Passed to the network.

        Raises:
            ValueError: If ``x`` has another event shape, or ``tau`` is not positive, NaN or past the end of the clock.
            TypeError: If ``x`` is not floating.
        """
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating tensor, got {x.dtype}; scale the data first (Description.to_model).")
        self._check_event(x)
        tau = as_time(tau, low=5e-324, high=self.sde.tau_max * (1 + 1e-6))
        if isinstance(tau, Tensor) and tau.ndim and tau.shape != x.shape[:1]:
            raise ValueError(
                f"tau must have shape () or ({len(x)},), got {tuple(tau.shape)}; pass one time per sample."
            )
        return self.predict(x, tau, **cond)

    def _check_event(self, x: Tensor) -> None:
        shape = self.event_shape
        if x.ndim == 0 or (shape is not None and x.shape[1:] != shape):
            want = "(B, *D)" if shape is None else f"(B, {', '.join(map(str, shape))})" if shape else "(B,)"
            raise ValueError(f"x must have shape {want}, got {tuple(x.shape)}; give the batch first, then one event.")
        held = next(self.parameters(), None)
        held = next(self.buffers(), None) if held is None else held
        if held is not None and held.device != x.device:
            raise ValueError(
                f"x is on {x.device}, the model on {held.device}; move one: x.to('{held.device}') or "
                f"model.to('{x.device}')."
            )


class ScoreModel(Model):
    r"""A network that is a score: $s = -\varepsilon/\sqrt{1 - \bar\alpha}$ and all that goes with it.

    Args:
        net: ``net(x, log_snr, **cond)`` with ``x`` ``(B, *D)`` and ``log_snr`` ``(B,)`` float32, returning as ``x``.
            Its own type may be narrower (bf16) than that of ``x``; the output is widened again.
        sde: The process on its clock.
        parameterization: What the output estimates.
        event_shape: Shape of one sample; states what ``sample(model, n)`` draws.
        data: The description of the data it was trained on: the one source of their scaling.
        learned_variance: The network returns two values per element, as ``(B, *D, 2)`` (this package's ``outputs=2``)
            or as twice the channels, ``(B, 2C, …)``. The second, from [-1, 1], is the prediction's ``mix`` in [0, 1]
            (not clamped), which ``DDPM(rev_var="learned")`` reads. ``Loss(hybrid=0.001)`` trains it too.

    Raises:
        TypeError: If a part is not of its class.
        ValueError: If the clock ends without signal and the output does not determine x_0 there (`Eps`, `Score`), if
            the process goes closer to the data than the network's declared ``log_snr_range``, if `PosteriorMean` has another
            clock than the process, or ``event_shape`` is not the data's.
    """

    def __init__(
        self,
        net: nn.Module,
        sde: SDE,
        parameterization: Parameterization | None = None,
        event_shape: tuple[int, ...] | None = None,
        data: Description | None = None,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        check_kind("net", net, nn.Module)
        check_kind("sde", sde, SDE)
        self.net = net
        self.sde = sde
        self.parameterization = V() if parameterization is None else parameterization
        self.data = data
        self.event_shape = tuple(event_shape) if event_shape is not None else (data.shape if data else None)
        self.learned_variance = learned_variance
        self._check()

    def _check(self) -> None:
        check_kind("parameterization", self.parameterization, Parameterization)
        if self.data is not None and self.event_shape != self.data.shape:
            raise ValueError(
                f"event_shape must be that of the data, {self.data.shape}, got {self.event_shape}; leave it out."
            )
        if isinstance(self.parameterization, PosteriorMean) and self.parameterization.schedule != self.sde.schedule:
            raise ValueError(
                f"the mean is that of a step on the process's clock {self.sde.schedule}, got "
                f"{self.parameterization.schedule}; write PosteriorMean(schedule=…) with the same clock."
            )
        if self.parameterization.determinant(self.sde.tau_max) == 0:
            raise ValueError(
                f"{self.parameterization} says nothing about x0 at the end of {self.sde.schedule}, where no signal is "
                "left; use V() or X0(), or a clock that is clipped before that."
            )
        known = getattr(self.net, "log_snr_range", None)
        if known is not None and ou.log_snr(self.sde.tau_min) > known[1]:
            raise ValueError(
                f"the network knows log-SNR up to {known[1]}, but tau_min = {self.sde.tau_min} has "
                f"{ou.log_snr(self.sde.tau_min):.4g}; raise tau_min or widen the network's log_snr_range."
            )

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        """As the call, for checked arguments: one network call."""
        net, inner = self.net, x
        weight = _first_parameter(net)
        if weight is not None and weight.is_floating_point() and weight.dtype != x.dtype:
            inner = x.to(weight.dtype)
        log_snr = ou.log_snr(tau)
        if isinstance(log_snr, Tensor):
            log_snr = log_snr.to(device=x.device, dtype=torch.float32).expand(x.shape[:1])
        else:
            log_snr = torch.full((x.shape[0],), log_snr, dtype=torch.float32, device=x.device)
        out = net(inner, log_snr, **cond)
        if not isinstance(out, Tensor):
            raise TypeError(
                f"the network must return a tensor, got {type(out).__name__}; wrap it in a module that gives the "
                "tensor alone (out[0], out.sample …)."
            )
        out, mix = out if out.dtype == x.dtype else out.to(x.dtype), None
        if self.learned_variance:
            out, mix = _halves(out, x)
        if out.shape != x.shape:
            raise ValueError(f"the network must return the shape of x, {tuple(x.shape)}, got {tuple(out.shape)}.")
        return Prediction(x, tau, out, self.parameterization, mix)


def _halves(out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output proper and the ``mix`` of a network with a learned variance."""
    if out.shape == (*x.shape, 2):
        out, second = out.unbind(-1)
    elif x.ndim > 1 and out.shape == (len(x), 2 * x.shape[1], *x.shape[2:]):
        out, second = out.chunk(2, 1)
    else:
        raise ValueError(
            f"with learned_variance the network must return two values per element, {(*x.shape, 2)} or twice the "
            f"channels, got {tuple(out.shape)}; give it outputs=2, or leave learned_variance out."
        )
    return out, second * 0.5 + 0.5


def _first_parameter(module: nn.Module) -> Tensor | None:
    """As ``next(module.parameters())``, at a tenth of the cost: it is asked for in every network call."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for child in module._modules.values():
        found = None if child is None else _first_parameter(child)
        if found is not None:
            return found
    return None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for every submodule, and each one's own mode again afterwards, also after an exception."""
    training = [m for m in module.modules() if m.training]
    for m in training:
        m.training = False
    try:
        yield
    finally:
        for m in training:
            m.training = True


def refuse_unknown(function: Callable[..., object], model: Model, given: Mapping[str, object]) -> None:
    """Refuses a keyword that is no option of ``function`` and that the network does not read.

    Of a network that takes any keyword, only one that is nearly an option is refused.

    Raises:
        TypeError: Names the nearest option.
    """
    if not given:
        return
    while isinstance(inner := getattr(model, "model", None), Model):  # a wrapper reads what the wrapped one reads
        model = inner
    network = model.net.forward if isinstance(model, ScoreModel) else model.predict
    reads = inspect.signature(network).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in reads.values())
    options = [name for name, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in given:
        match = closest(name, options, 0.75 if takes_any else 0.6)
        if name not in reads and (match or not takes_any):
            guess = f"did you mean {match}? " if match else ""
            raise TypeError(
                f"{name!r} is neither an option nor read by the network; {guess}Options: {', '.join(options)}."
            )


def check_model(model: object) -> None:
    """Refuses what is no `Model`, such as a network.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(model, Model):
        raise TypeError(f"model must be a Model, got {type(model).__name__}; wrap a network: ScoreModel(net, VPSDE()).")


def check_per_sample(cond: Mapping[str, object], n: int, each: str = "sample") -> None:
    """Refuses conditioning that has not one entry for each of ``n`` samples, called ``each``.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it has another number of entries.
    """
    for name, value in cond.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor with one entry per {each}, got {value!r}; wrap it.")
        entries = None if value.ndim == 0 else len(value)
        if entries != n:
            raise ValueError(
                f"{name} must have one entry per {each}, {n}, got {'a single number' if entries is None else entries}."
            )


def event_size(x: Tensor) -> int:
    """Number of elements of one sample of ``x``, shape ``(B, *D)``."""
    return math.prod(x.shape[1:])
