r"""Models: `model(x, tau, **cond) -> Prediction`, the one interface of losses, samplers and likelihoods.

`ScoreModel` makes a model of a network, a process and a parameterization; `scoresde.analytic` has exact models.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments, refuse_signature
from scoresde._core.arrays import ArrayLike, as_tensor, is_array
from scoresde._core.call_inputs import as_input, check_model_device, cond_inputs
from scoresde._core.checks import check_event_shape, check_integer, check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.foreign_networks import (
    check_time_argument,
    inner_network,
    real_output,
    refuse_integer_times,
    refuse_output,
)
from scoresde._core.peer_keywords import check_keywords, network_reader
from scoresde._core.tensors import as_time
from scoresde.data import Description
from scoresde.nn.conditions import null_conditions, reads_known
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.mixed import Mixed
from scoresde.process.outputs import default_output, linear_target, split_learned_variance
from scoresde.process.parameterization import NetworkOutput, Parameterization, PosteriorMean
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.sde import SDE

__all__ = ["Model", "ScoreModel", "evaluating"]


class Model(nn.Module, ABC):
    """A module with `model(x, tau, **cond) -> Prediction`, a process and an event shape. Subclasses define `predict`.

    Attributes:
        sde: The forward process.
        event_shape: Shape of one sample; None if any shape is valid.
        data: Description of the data; None if unknown.
        jump_times: None, except for few-step students, whose calls also take the end of the step. Then the OU times of
            the jumps that the student was trained for, or ``()`` if it was trained for jumps between any two times.
        cost: Network evaluations per call.
    """

    sde: Process
    event_shape: tuple[int, ...] | None = None
    data: Description | None = None
    jump_times: tuple[float, ...] | None = None

    @property
    def cost(self) -> int:
        """Network evaluations per call: default 1, or the sum over the models that this one wraps.

        Sampling and likelihood count in it. A wrapper that evaluates a model more than once must state it: as an
        attribute of the class or of the object, or as a property.
        """
        stated = self.__dict__.get("_cost")
        return stated or sum(model.cost for model in wrapped_models(self)) or 1

    @cost.setter
    def cost(self, value: int) -> None:
        check_integer("cost", value)
        vars(self)["_cost"] = value

    def cost_at(self, tau: Scalar) -> int:
        """Network evaluations of one call at ``tau``, at most `cost`; default `cost`, or the sum over wrapped models.

        A wrapper that evaluates a model only at some times overrides it. Sampling counts in it. A wrapper that states
        its own `cost` has that cost at every time. With a tensor for ``tau`` all of `cost` is evaluated.
        """
        if self.__dict__.get("_cost") or type(self).cost is not Model.cost:
            return self.cost
        return sum(model.cost_at(tau) for model in wrapped_models(self)) or 1

    def why_no_score(self) -> str | None:
        """Why the field is not the score of the marginals of one process; None if it is, or estimates it.

        Log-densities and bounds of a Gaussian process refuse a model that has a reason.
        """
        if not isinstance(self.sde, SDE):
            return f"the states of {type(self.sde).__name__} have probabilities, not a score"
        return self.why_guided()

    def why_guided(self) -> str | None:
        """Why the estimates are not those of one process, such as those of guidance; None if they are.

        Bounds of any process refuse a model that has a reason. Default: the first reason of the wrapped models.
        """
        return next((reason for model in wrapped_models(self) if (reason := model.why_guided())), None)

    def largest_value(self) -> float | None:
        """Magnitude in model units that hardly any sample of an exact model exceeds; None if unknown.

        Default: the largest over the models that this one wraps, if all know theirs.
        """
        values = [model.largest_value() for model in wrapped_models(self)]
        known = [value for value in values if value is not None]
        return max(known) if known and len(known) == len(values) else None

    def amplifies_at_noise(self) -> bool:
        r"""Whether an error of the network's output is far larger in v near pure noise.

        With a noise or score estimate it is $1/\alpha$ times as large. Default: whether one of the models that this
        one wraps does so.
        """
        return any(model.amplifies_at_noise() for model in wrapped_models(self))

    def cond_reader(self) -> Callable[..., object]:
        """The function whose signature names the conditioning: `predict`, or that of the wrapped ``model``."""
        inner = getattr(self, "model", None)
        return inner.cond_reader() if isinstance(inner, Model) else self.predict

    def null_cond(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Conditioning of the same shapes in which every entry is null: the call without conditions.

        Args:
            cond: Conditions by name, and what else the network reads.

        Returns:
            The conditions as null entries (see `scoresde.nn.conditions`). The inputs ``augment``, ``observed`` and
            ``delta`` are not conditions and stay as they are. Default: what the wrapped ``model`` returns.

        Raises:
            ValueError: If the network does not declare a condition, or has no null for it.
        """
        inner = getattr(self, "model", None)
        if isinstance(inner, Model):
            return inner.null_cond(cond)
        return null_conditions(type(self).__name__, {}, cond)

    @abstractmethod
    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        """The prediction at ``(x, tau)``, as in `forward`, without checks of the arguments."""

    def forward(self, x: ArrayLike, tau: Scalar | ArrayLike, **cond: object) -> Prediction:
        """The prediction at ``(x, tau)``.

        NumPy arrays, pandas frames and lists of numbers are converted, and go to the model's device.

        Args:
            x: State in x, not in the coordinates of a view, floating, ``(B, *D)``.
            tau: OU time in (0, tau_max], a number or a tensor of shape ``()`` or ``(B,)``.
            **cond: Passed to the network.

        Raises:
            ValueError: If ``x`` has another event shape or is on another device than the model; if ``tau`` is not
                positive, is NaN, is past the end of the clock, or has another length.
            TypeError: If ``x`` is not floating, or is something else than an array.
        """
        x, tau, cond = self._checked_inputs(x, tau, cond)
        prediction = self.predict(x, tau, **cond)
        self._check_prediction(prediction, x)
        return prediction

    def _check_prediction(self, prediction: object, x: Tensor) -> None:
        """Checks what `predict` of a subclass returned; another batch would broadcast.

        Raises:
            TypeError: If it is not a prediction.
            ValueError: If it belongs to other states than ``x``.
        """
        name = type(self).__name__
        if not isinstance(prediction, Prediction):
            raise TypeError(
                f"{name}.predict must return a Prediction, got {type(prediction).__name__}; return "
                "GaussianPrediction(x, tau, out, V()), with what out estimates."
            )
        if isinstance(prediction, GaussianPrediction) and not prediction.out.shape == prediction.x.shape == x.shape:
            raise ValueError(
                f"{name}.predict must return out in the shape of x, {tuple(x.shape)}, got "
                f"{tuple(prediction.out.shape)}; return one output per sample."
            )

    def _checked_inputs(
        self, x: ArrayLike, tau: Scalar | ArrayLike, cond: Mapping[str, object]
    ) -> tuple[Tensor, Scalar, dict[str, object]]:
        """The arguments of a call as `predict` takes them, after the checks of `forward`."""
        x, cond = as_input(self, x, "x"), cond_inputs(self, cond)
        if isinstance(tau, (list, tuple, np.ndarray)) and is_array(tau):
            tau = as_tensor(tau, "tau", x.device)
        x = self.sde.checked_state(x)
        self._check_event(x)
        tau = as_time(cast("Scalar", tau), low=5e-324, high=self.sde.tau_max * (1 + 1e-6))
        if isinstance(tau, Tensor) and tau.ndim and tau.shape != x.shape[:1]:
            raise ValueError(
                f"tau must have shape () or ({len(x)},), got {tuple(tau.shape)}; pass one time per sample."
            )
        return x, tau, cond

    def _check_event(self, x: Tensor) -> None:
        check_event_shape(x, self.event_shape)
        check_model_device(self, x)


class ScoreModel(Model):
    r"""A network as a model: its output gives $\hat\varepsilon$ and the score $-\hat\varepsilon/\sqrt{1 - \bar\alpha}$.

    With a process of categories (`Categorical`, `Binomial`) its output gives the probabilities of x_0, with a `Mixed`
    one both.

    Args:
        net: ``net(x, log_snr, **cond)`` with ``x`` ``(B, *D)`` and ``log_snr`` ``(B,)`` float32, returning the shape of
            ``x``. Its weights may have a narrower type (bf16) than ``x``; the output is converted back.
        sde: The forward process on its clock.
        parameterization: What the output estimates; default `V`, `Logits` of x_0 for a process of categories, and
            `MixedOutput` for a mixed one.
        event_shape: Shape of one sample, which ``sample(model, n)`` draws; default that of ``data``, or the
            network's attribute ``event_shape``.
        data: Description of the training data, the only source of their scaling.
        learned_variance: The network returns two values per element, as ``(B, *D, 2)`` (this package's ``outputs=2``)
            or as twice the channels, ``(B, 2C, …)``. The second value, in [-1, 1], becomes ``Prediction.mix`` in
            [0, 1], without clamping. ``DDPM(rev_var="learned")`` reads it and ``Loss(hybrid=0.001)`` trains it.

    Raises:
        TypeError: If an argument has the wrong class, or the network's second argument is a step or a noise level.
        ValueError: If the clock ends without signal and the output does not determine x_0 there (`Eps`, `Score`); if
            ``tau_min`` lies outside the network's declared ``log_snr_range``; if the clock of `PosteriorMean` is not
            that of the process; or if ``event_shape`` is not that of the data.

    Example:
        >>> import torch
        >>> from scoresde import MLP, V, VPSDE, ScoreModel
        >>> model = ScoreModel(MLP((2,), width=16, depth=1), VPSDE(), V(), event_shape=(2,))
        >>> prediction = model(torch.randn(5, 2), tau=0.3)
        >>> prediction.eps.shape, prediction.score.shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    def __init__(
        self,
        net: nn.Module,
        sde: Process,
        parameterization: NetworkOutput | None = None,
        event_shape: tuple[int, ...] | None = None,
        data: Description | None = None,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        check_kind("net", net, nn.Module)
        check_kind("sde", sde, Process)
        check_arguments(ScoreModel, locals())
        self.net = net
        self.sde = sde
        self.parameterization = default_output(sde) if parameterization is None else parameterization
        self.data = data
        if event_shape is None:
            event_shape = data.model_shape if data else getattr(inner_network(net), "event_shape", None)
        self.event_shape = None if event_shape is None else tuple(event_shape)
        self.learned_variance = learned_variance
        self._check()

    def _check(self) -> None:
        if isinstance(self.net, Model):
            raise TypeError(f"net must be a network, got the model {type(self.net).__name__}; pass its network.")
        check_time_argument(self.net)
        check_kind("parameterization", self.parameterization, NetworkOutput)
        kind = self.parameterization.process_kind
        if not isinstance(self.sde, kind):
            raise TypeError(
                f"{self.parameterization} is the output of a network for {kind.__name__}, got {self.sde}; leave "
                "parameterization out for the output that belongs to the process."
            )
        if self.data is not None and self.event_shape != self.data.model_shape:
            raise ValueError(
                f"event_shape must be that of the data, {self.data.model_shape}, got {self.event_shape}; leave it out."
            )
        target = linear_target(self.parameterization)
        if isinstance(target, PosteriorMean) and target.schedule != self.sde.schedule:
            raise ValueError(
                f"PosteriorMean must have the clock of the process, {self.sde.schedule}, got "
                f"{target.schedule}; write PosteriorMean(schedule=…) with the same clock."
            )
        if target is not None and not target.determinant(self.sde.tau_max):
            raise ValueError(
                f"{target} does not determine x0 at the end of {self.sde.schedule}, where no signal "
                "remains; use V() or X0(), or a clock that is clipped earlier."
            )
        log_snr_range = getattr(inner_network(self.net), "log_snr_range", None)
        numbers = isinstance(self.sde, (SDE, Mixed))
        if log_snr_range is not None and numbers and ou.log_snr(self.sde.tau_min) > log_snr_range[1]:
            raise ValueError(
                f"the network supports log-SNR up to {log_snr_range[1]}, but tau_min = {self.sde.tau_min} has "
                f"{ou.log_snr(self.sde.tau_min):.4g}; raise tau_min or widen the network's log_snr_range."
            )

    def amplifies_at_noise(self) -> bool:
        target = linear_target(self.parameterization)
        return target is not None and abs(float(target.determinant(self.sde.tau_max))) < 0.1

    def cond_reader(self) -> Callable[..., object]:
        return network_reader(self.net)

    def null_cond(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        net = inner_network(self.net)
        return null_conditions(type(net).__name__, getattr(net, "conditions", {}), cond)

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        net, net_input = self.net, x
        weight = _first_parameter(net)
        if weight is not None and weight.is_floating_point() and weight.dtype != x.dtype:
            net_input = self.sde.network_input(x, weight.dtype)
        given = cond.get("known")
        known = given if isinstance(given, Tensor) and given.shape == x.shape and reads_known(net) else None
        if known is not None:
            clean = self.sde.noise_free(known, tau).to(net_input.dtype)
            net_input = torch.where(known.isnan(), net_input, clean)
        log_snr = ou.log_snr(tau)
        if isinstance(log_snr, Tensor):
            log_snr = log_snr.to(device=x.device, dtype=torch.float32).expand(x.shape[:1])
        else:
            log_snr = torch.full((x.shape[0],), log_snr, dtype=torch.float32, device=x.device)
        try:
            out = net(net_input, log_snr, **cond)
        except (TypeError, RuntimeError, IndexError) as error:
            if isinstance(error, TypeError):
                refuse_signature(net, cond, error)
            refuse_integer_times(net, error)
            raise
        if not isinstance(out, Tensor):
            refuse_output(net, out)
        out, mix = out if out.dtype == x.dtype else real_output(net, out, x.dtype), None
        if self.learned_variance:
            out, mix = split_learned_variance(out, x)
        expected = self.parameterization.output_shape(self.sde, x)
        if out.shape != expected:
            what = "the shape of x" if expected == tuple(x.shape) else "one logit per class"
            raise ValueError(f"the network must return {what}, {expected}, got {tuple(out.shape)}.")
        if known is not None:
            out = self.parameterization.with_known(self.sde, x, tau, out, known)
        return self.parameterization.prediction(self.sde, x, tau, out, mix)


def gaussian_process(model: Model, what: str = "this") -> SDE:
    """The process of a model whose states are noised by Gaussian noise.

    Args:
        model: Any.
        what: What needs it, for the error.

    Raises:
        TypeError: If states are categories, or hold some.
    """
    if isinstance(model.sde, SDE):
        return model.sde
    if isinstance(model.sde, Mixed):
        got = "numbers and categories"
        remedy = "take MixedSampler() to sample, BridgeSMC() to impute and continuous_vlb for a bound, or train on "
        remedy += "one-hot categories: load_data(path, one_hot=True) (--read one_hot=true)"
    else:
        got = "categories"
        remedy = "take Ancestral() to sample, PathKL() to train, and discrete_vlb or continuous_vlb for bounds"
    raise TypeError(f"{what} needs a Gaussian process such as VPSDE(), got a model of {got}; {remedy}.")


def gaussian_output(model: ScoreModel) -> Parameterization:
    """The target of a network for a Gaussian process.

    Raises:
        TypeError: If its states are categories.
    """
    gaussian_process(model)
    assert isinstance(model.parameterization, Parameterization)
    return model.parameterization


def _first_parameter(module: nn.Module) -> Tensor | None:
    """``next(module.parameters())`` at a tenth of the cost, because every network call needs it."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for child in module._modules.values():
        parameter = None if child is None else _first_parameter(child)
        if parameter is not None:
            return parameter
    return None


_EVALUATING: dict[int, int] = {}  # number of `evaluating` blocks that hold a submodule, by its id, in all threads
_EVALUATING_LOCK = threading.Lock()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Sets every submodule to evaluation mode; then restores the mode of each one, also after an exception.

    Threads may share a module: the mode is restored when the last of their blocks ends.
    """
    check_arguments(evaluating, locals())
    with _EVALUATING_LOCK:
        held = [submodule for submodule in module.modules() if submodule.training or id(submodule) in _EVALUATING]
        for submodule in held:
            submodule.training = False
            _EVALUATING[id(submodule)] = _EVALUATING.get(id(submodule), 0) + 1
    try:
        yield
    finally:
        with _EVALUATING_LOCK:
            for submodule in held:
                _EVALUATING[id(submodule)] -= 1
                if not _EVALUATING[id(submodule)]:
                    del _EVALUATING[id(submodule)]
                    submodule.training = True


def wrapped_models(module: nn.Module) -> list[Model]:
    """The models among a module's submodules, without those that lie inside another of them."""
    models: list[Model] = []
    for child in module.children():
        models += [child] if isinstance(child, Model) else wrapped_models(child)
    return models


def check_model(model: object) -> None:
    """Checks that ``model`` is a `Model`, rather than a network or the path of a checkpoint.

    Raises:
        TypeError: If it is not; the error has the call that makes it one.
    """
    if isinstance(model, Model):
        return
    if isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model must be a Model, got the path {os.fspath(model)!r}; load it first: sd.load(path).")
    if isinstance(model, nn.Module):
        received, remedy = type(model).__name__, "wrap a network: ScoreModel(net, VPSDE())"
        if any(isinstance(child, Model) for child in model.children()):
            remedy = (
                "it wraps a Model. Pass that one, e.g. model.module, and wrap its network instead: "
                "model.net = torch.compile(model.net), ScoreModel(DistributedDataParallel(net), sde)"
            )
    else:
        received = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        remedy = "pass an object such as ScoreModel(net, VPSDE()) or sd.load(path)"
    raise TypeError(f"model must be a Model, got {received}; {remedy}.")


def refuse_unknown(function: Callable[..., object], model: Model, keywords: Mapping[str, object]) -> None:
    """Checks the model of a call and its conditioning keywords: the network must read each of them.

    Args:
        function: The function that was called.
        model: Its model.
        keywords: Keyword arguments that are not options of ``function``.

    Raises:
        TypeError: If ``model`` is not a `Model`, or the network does not read a keyword; see `check_keywords`.
    """
    check_model(model)
    if keywords:
        check_keywords(function, model.cond_reader(), keywords)
