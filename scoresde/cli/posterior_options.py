"""Methods that condition a model on what is known, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoresde.cli.parsing import Modules

if TYPE_CHECKING:
    from scoresde.guidance.posterior import PosteriorMethod
    from scoresde.inverse.base import PosteriorSampler

__all__ = ["parse_method"]


def parse_method(text: str, modules: Modules = ()) -> PosteriorMethod | PosteriorSampler:
    """The method that ``text`` writes.

    Args:
        text: As in Python, e.g. ``MMPS(iterations=10)`` or ``TwistedSMC(particles=256)``.
        modules: The user's own modules, whose classes may be named.

    Raises:
        ValueError, TypeError: If the text is no call of such a class; the error names the nearest one.
    """
    from scoresde import guidance, inverse, sampling
    from scoresde.guidance.posterior import PosteriorMethod
    from scoresde.inverse.base import PosteriorSampler
    from scoresde.storage import spec

    places = guidance, inverse, *modules
    methods = {
        **spec.known_classes(*places, kind=PosteriorMethod),
        **spec.known_classes(*places, kind=PosteriorSampler),
    }
    outer = text.partition("(")[0].strip()
    if outer not in methods:
        spec.parse(outer, methods)  # the error names the nearest method
    method = spec.parse(text, spec.known_classes(*places, sampling))
    assert isinstance(method, (PosteriorMethod, PosteriorSampler))
    return method
