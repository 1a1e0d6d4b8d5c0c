r"""Coupled noise: a step's first draw is the increment $(W_{b(s)} - W_{b(\tau)})/\sqrt{b(s) - b(\tau)}$ of one path W.

Samples from few and from many steps then share one Brownian path per sample, and converge as the steps grow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scoresde.sampling.brownian import VirtualBrownianTree

__all__ = ["coupled_step"]


def coupled_step(
    step: Callable[..., tuple[Any, Any]], clock: Callable[[float], float], brownian: VirtualBrownianTree
) -> Callable[..., tuple[Any, Any]]:
    """A step that takes its first noise from a Brownian path; all further draws are independent.

    Args:
        step: A sampler's ``step``.
        clock: The sampler's ``brownian_clock``.
        brownian: The path.

    Returns:
        A function with the arguments and results of ``step``.
    """

    def coupled(predict: Any, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any) -> tuple[Any, Any]:
        drawn = False

        def increment() -> Any:
            nonlocal drawn
            begin, end = clock(tau), clock(s)
            if drawn or begin == end:  # a further draw, or a step over which the clock stands still
                return noise()
            drawn = True
            return brownian.normal(begin, end)

        return step(predict, x, tau, s, increment, memory)

    return coupled
