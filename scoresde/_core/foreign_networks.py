"""Networks of other code bases, which take a step or a noise level instead of log-SNR, or return a wrapped tensor.

And networks inside the wrappers of torch: `torch.compile`, `DataParallel`, `DistributedDataParallel`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

__all__ = [
    "check_time_argument",
    "inner_network",
    "plain_names",
    "real_output",
    "refuse_integer_times",
    "refuse_output",
]

_Value = TypeVar("_Value")

_ADAPTERS = {
    **dict.fromkeys(("timestep", "timesteps", "time_step", "step", "steps"), "FromStep(net, clock, steps=1000)"),
    **dict.fromkeys(("sigma", "sigmas", "noise_labels", "noise_level", "c_noise"), "FromSigma(net)"),
    **dict.fromkeys(("time_cond", "time_steps"), "FromTime(net, sde, scale=999)"),
}
_AMBIGUOUS = ("t", "time", "times", "ts")


def inner_network(net: Any) -> Any:
    """The network that `torch.compile`, DataParallel or DistributedDataParallel wraps; itself without such a wrapper.

    Args:
        net: The network, whose attributes such as ``conditions`` these wrappers hide.
    """
    while (name := _wrapped(net)) is not None:
        net = getattr(net, name)
    return net


def plain_names(net: nn.Module, values: Mapping[str, _Value]) -> dict[str, _Value]:
    """Values by the names that they have without wrappers in the network.

    Args:
        net: The network.
        values: By names of its state dict, such as ``_orig_mod.linear.weight``; a name that it does not have stays.
    """
    return {_plain(net, name): value for name, value in values.items()}


def _wrapped(net: Any) -> str | None:
    """Name of the submodule that a wrapper of torch wraps; None if ``net`` is not one."""
    if isinstance(net, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return "module"
    return "_orig_mod" if isinstance(net, nn.Module) and "_orig_mod" in net._modules else None


def _plain(net: Any, name: str) -> str:
    parts = []
    for part in name.split("."):
        if part != _wrapped(net):
            parts.append(part)
        net = getattr(net, part, None)
    return ".".join(parts)


def check_time_argument(net: Any) -> None:
    """Refuses a network whose second argument is named for a step or a noise level; warns if it is named for a time.

    Raises:
        TypeError: If the second argument of ``forward`` is a step or a noise level; names the adapter.
    """
    net = inner_network(net)
    try:
        parameters = list(inspect.signature(net.forward).parameters.values())
    except (TypeError, ValueError, AttributeError):  # no signature can be read
        return
    if len(parameters) < 2 or parameters[1].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        return
    name, called = parameters[1].name, f"{type(net).__name__}.forward{inspect.signature(net.forward)}"
    if name in _ADAPTERS:
        raise TypeError(
            f"a network is called as net(x, log_snr), got {called}, whose second argument is named {name}; wrap it in "
            f"an adapter, scoresde.adapters.{_ADAPTERS[name]}, or name the argument log_snr if it is the log-SNR."
        )
    if name in _AMBIGUOUS:
        warnings.warn(
            f"{called} will receive log-SNR in nats, from about 11 near the data to -10 at the end of the clock, as "
            f"{name}. Name the argument log_snr if it is that; otherwise wrap the network in an adapter: "
            "scoresde.adapters.FromStep, FromTime or FromSigma.",
            stacklevel=4,
        )


def refuse_integer_times(net: Any, error: Exception) -> None:
    """Explains a failed call of a network that takes integers.

    Raises:
        TypeError: If the error is about indices that must be integers; names the adapter.
    """
    text = str(error).lower()
    if ("indices" in text or "index" in text) and any(kind in text for kind in ("long", "int64", "integer")):
        raise TypeError(
            f"a network receives log-SNR as a floating tensor, but {type(net).__name__} needs integers ({error}); if "
            "it takes DDPM's step, wrap it: scoresde.adapters.FromStep(net, clock, steps=1000, rounding=True)."
        ) from error


def refuse_output(net: Any, out: object) -> NoReturn:
    """Refuses an output that is not a tensor.

    Raises:
        TypeError: Always; names the adapters, which unwrap it.
    """
    raise TypeError(
        f"the network must return a tensor, got {type(out).__name__} from {type(net).__name__}; a network of another "
        "code base goes into an adapter, which also converts its time and unwraps its output: scoresde.adapters."
        "FromStep, FromTime or FromSigma. Otherwise wrap it in a module that returns the tensor only (out[0], "
        "out.sample …)."
    )


def real_output(net: Any, out: Tensor, dtype: torch.dtype) -> Tensor:
    """The output of a network in the type of the state.

    Args:
        net: The network, for the error.
        out: Its output.
        dtype: The type of the state.

    Raises:
        TypeError: If the output is complex or holds integers, which are not estimates.
    """
    if out.is_floating_point():
        return out.to(dtype)
    remedy = "return its real part" if out.is_complex() else "return what is before rounding or argmax"
    raise TypeError(
        f"the network must return real floating numbers, got {out.dtype} from {type(net).__name__}; {remedy}."
    )
