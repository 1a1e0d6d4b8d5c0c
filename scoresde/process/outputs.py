"""Outputs of networks: the usual one of a process, the target of its numbers, and the part of a learned variance."""

from __future__ import annotations

from torch import Tensor

from scoresde.process.base import Process
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import Logits
from scoresde.process.mixed import Mixed, MixedOutput
from scoresde.process.parameterization import NetworkOutput, Parameterization, V

__all__ = ["default_output", "linear_target", "split_learned_variance"]


def default_output(sde: Process) -> NetworkOutput:
    """The output of a network that is usual for a process: `Logits` of categories, `V` of numbers, or both."""
    if isinstance(sde, Mixed):
        return MixedOutput()
    return Logits() if isinstance(sde, DiscreteProcess) else V()


def linear_target(output: NetworkOutput) -> Parameterization | None:
    """The target of a network's numbers; None if all its states are categories."""
    target = output.continuous if isinstance(output, MixedOutput) else output
    return target if isinstance(target, Parameterization) else None


def split_learned_variance(out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output for the target and ``mix``, from a network with a learned variance."""
    if out.shape == (*x.shape, 2):
        out, variance_output = out.unbind(-1)
    elif x.ndim > 1 and out.shape == (len(x), 2 * x.shape[1], *x.shape[2:]):
        out, variance_output = out.chunk(2, 1)
    else:
        raise ValueError(
            f"with learned_variance the network must return two values per element, {(*x.shape, 2)} or twice the "
            f"channels, got {tuple(out.shape)}; give it outputs=2, or leave learned_variance out."
        )
    return out, variance_output * 0.5 + 0.5
