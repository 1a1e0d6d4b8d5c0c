"""Conditioning keywords of a call, and those of other diffusion libraries with the equivalent call in this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from scoresde._core.foreign_networks import inner_network
from scoresde._core.suggest import closest

__all__ = ["check_keywords", "network_reader", "peer_keyword_hint"]

_STEP_COUNTS = ("num_inference_steps", "num_steps", "n_steps", "sampling_steps")
_STATES = ("noise", "latents")
_GUIDANCE = "the scale of a guided model: sample(CFG(model, scale=3.0), len(labels), Adams(steps=20), label=labels)"
_GUIDED_LIKELIHOOD = "not defined for a likelihood: the field of a guided model is no score; leave it out"
_SAMPLING = {
    **dict.fromkeys(_STEP_COUNTS, "`steps` of the sampler: sample(model, 64, Adams(steps=20))"),
    **dict.fromkeys(_STATES, "`init`, the initial state: sample(model, len(x), Adams(steps=20), init=x)"),
    "model_kwargs": "passed as keywords: sample(model, len(labels), Adams(steps=20), label=labels)",
    "guidance_scale": _GUIDANCE,
    "eta": "`eta` of the sampler: sample(model, 64, DDIM(steps=50, eta=1.0))",
}
_LIKELIHOOD = {
    **dict.fromkeys(_STEP_COUNTS, "the solver's tolerance: log_prob(model, x, solver=AdaptiveSolver(tol=0.01))"),
    **dict.fromkeys(_STATES, "drawn from `generator` or `seeds`: log_prob(model, x, seeds=range(len(x)))"),
    "model_kwargs": "passed as keywords: log_prob(model, x, label=labels)",
    "guidance_scale": _GUIDED_LIKELIHOOD,
    "eta": "not defined for a likelihood, whose ODE has no noise: log_prob(model, x)",
}


def peer_keyword_hint(keyword: str, function: Callable[..., object]) -> str | None:
    """What to write instead of a keyword of another library.

    Args:
        keyword: The keyword that the caller passed.
        function: The function that received it.

    Returns:
        E.g. "num_steps is `steps` of the sampler: sample(model, 64, Adams(steps=20))"; None for other keywords.
    """
    parameters = signature(function).parameters
    if keyword in _STEP_COUNTS and "steps" in parameters:
        return f"{keyword} is `steps` of {function.__name__}: {function.__name__}(…, steps=20)"
    if keyword in _STATES and "noises" in parameters:
        return None  # calibrate draws its own noises; the error then names the nearest option
    equivalent = (_SAMPLING if "sampler" in parameters else _LIKELIHOOD).get(keyword)
    return None if equivalent is None else f"{keyword} is {equivalent}"


def network_reader(net: Any) -> Callable[..., object]:
    """The function whose signature names what a network reads: its ``forward``, or what its ``cond_reader`` returns.

    Args:
        net: The network. One that passes its inputs on to another network has a method ``cond_reader``.
    """
    net = inner_network(net)
    reader = getattr(net, "cond_reader", None)
    return net.forward if reader is None else reader()


def _read_names(reader: Callable[..., object]) -> tuple[list[str], list[str], bool]:
    """Names of the arguments that a function reads, of its network's conditions, and whether it takes any other."""
    parameters = signature(reader).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    names = [name for name, parameter in parameters.items() if parameter.kind is not Parameter.VAR_KEYWORD]
    conditions = getattr(getattr(reader, "__self__", None), "conditions", None)
    if isinstance(conditions, Mapping):
        return names, list(conditions), False
    return names, [], takes_any


def check_keywords(
    function: Callable[..., object], reader: Callable[..., object], keywords: Mapping[str, object]
) -> None:
    """Checks that a model reads each conditioning keyword of a call.

    A network that declares ``conditions``, a mapping, reads these and what ``forward`` names. Another network with
    ``**cond`` reads any keyword, except those that resemble an option of ``function`` or that other libraries use for
    one; such a network must name them in ``forward``.

    Args:
        function: The function that was called.
        reader: The network's ``forward``, or ``predict`` of a model without a network.
        keywords: Keyword arguments that are not options of ``function``.

    Raises:
        TypeError: If the network does not read a keyword. The error names the nearest option or, for keywords of other
            libraries, the equivalent call.
    """
    named, conditions, takes_any = _read_names(reader)
    options = [name for name, p in signature(function).parameters.items() if p.kind is Parameter.KEYWORD_ONLY]
    for keyword in keywords:
        if keyword in named or keyword in conditions:
            continue
        if (hint := peer_keyword_hint(keyword, function)) is not None:
            ambiguous = takes_any and reader.__name__ == "forward"
            exception = f" A network that reads {keyword} must name it in forward." if ambiguous else ""
            raise TypeError(f"{hint}.{exception}")
        match = closest(keyword, [*options, *conditions], 0.75 if takes_any else 0.6)
        if match or not takes_any:
            suggestion = f"did you mean {match}? " if match else ""
            inputs = f" Conditions of the network: {', '.join(conditions)}." if conditions else ""
            raise TypeError(
                f"{keyword!r} is neither an option nor read by the network; {suggestion}Options: {', '.join(options)}."
                f"{inputs}"
            )
