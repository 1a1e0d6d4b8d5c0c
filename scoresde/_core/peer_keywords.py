"""Keywords of other diffusion libraries, each with the equivalent call in this one."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

__all__ = ["peer_keyword_hint"]

_STEP_COUNTS = ("num_inference_steps", "num_steps", "n_steps", "sampling_steps")
_STATES = ("noise", "latents")
_GUIDANCE = (
    "not an option here: classifier-free guidance wraps the model in another Model, and is not part of this version"
)
_SAMPLING = {
    **dict.fromkeys(_STEP_COUNTS, "`steps` of the sampler: sample(model, 64, Adams(steps=20))"),
    **dict.fromkeys(_STATES, "`init`, the initial state: sample(model, len(x), Adams(steps=20), init=x)"),
    "model_kwargs": "passed as keywords: sample(model, len(labels), Adams(steps=20), cond=labels)",
    "guidance_scale": _GUIDANCE,
    "eta": "`eta` of the sampler: sample(model, 64, DDIM(steps=50, eta=1.0))",
}
_LIKELIHOOD = {
    **dict.fromkeys(_STEP_COUNTS, "the solver's tolerance: log_prob(model, x, solver=AdaptiveSolver(tol=0.01))"),
    **dict.fromkeys(_STATES, "drawn from `generator` or `seeds`: log_prob(model, x, seeds=range(len(x)))"),
    "model_kwargs": "passed as keywords: log_prob(model, x, cond=labels)",
    "guidance_scale": _GUIDANCE,
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
