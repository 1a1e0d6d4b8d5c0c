"""Options of ``scoresde sample`` that guide the model: classifier-free guidance, or guidance by a weaker average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scoresde.model import Model

__all__ = ["GuidanceOptions", "parse_interval"]

_GUIDANCE = "Guidance"


@dataclass(frozen=True)
class GuidanceOptions:
    """The options as they were written.

    Attributes:
        scale: w; None for no guidance.
        interval: ``LOW,HIGH``, or None.
        rescale: φ, or None.
        weaker: Relative length of the weaker average, or None for classifier-free guidance.

    Raises:
        ValueError: If an option is given without ``--guidance``, two exclude each other, or one has another form.
    """

    scale: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            help="Scale w of the guidance away from the null condition, or from --weaker-average: 1 is the model "
            "itself.",
            show_default=False,
            rich_help_panel=_GUIDANCE,
        ),
    ] = None
    interval: Annotated[
        str | None,
        typer.Option(
            "--guidance-interval",
            metavar="LOW,HIGH",
            help='OU times between which the model is guided, e.g. "0.2,1.5"; default: at all times.',
            show_default=False,
            rich_help_panel=_GUIDANCE,
        ),
    ] = None
    rescale: Annotated[
        float | None,
        typer.Option(
            "--guidance-rescale",
            help="In [0, 1]: how far the spread of the guided output is set back to that of the conditional one; "
            "default 0.",
            show_default=False,
            rich_help_panel=_GUIDANCE,
        ),
    ] = None
    weaker: Annotated[
        float | None,
        typer.Option(
            "--weaker-average",
            help="Guide away from the average of this relative length, a shorter one than that of the samples; needs a "
            "run trained with --lengths.",
            show_default=False,
            rich_help_panel=_GUIDANCE,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.scale is None:
            others = {
                "--guidance-interval": self.interval,
                "--guidance-rescale": self.rescale,
                "--weaker-average": self.weaker,
            }
            for name, value in others.items():
                if value is not None:
                    raise ValueError(f"{name} needs a scale, got {value!r} without one; add --guidance 3.")
        if self.weaker is not None and self.rescale is not None:
            raise ValueError(
                f"--guidance-rescale belongs to classifier-free guidance, got {self.rescale} with --weaker-average; "
                "leave one of them out."
            )
        parse_interval(self.interval)

    def guided(self, model: Model, conditions: bool, load_average: Callable[[float], Model]) -> Model:
        """The guided model, or the model itself without ``--guidance``.

        Args:
            model: The model.
            conditions: Whether the samples have a condition.
            load_average: Loads an average of the same run by its relative length.

        Raises:
            ValueError: If classifier-free guidance has no condition, or a setting is out of range.
        """
        from scoresde.guidance import CFG, Autoguidance

        if self.scale is None:
            return model
        interval = parse_interval(self.interval)
        if self.weaker is not None:
            return Autoguidance(model, load_average(self.weaker), self.scale, interval)
        if not conditions:
            raise ValueError(
                f"--guidance strengthens a condition, got {self.scale:g} without one; add one, such as --label 3, or "
                "guide away from a shorter average by --weaker-average 0.02."
            )
        return CFG(model, self.scale, interval=interval, rescale=self.rescale or 0.0)

    def summary(self) -> dict[str, str]:
        """The guidance in words, as an entry of a summary; without guidance none."""
        if self.scale is None:
            return {}
        words = f"{self.scale:g}"
        words += "" if self.weaker is None else f" away from the average of length {self.weaker:g}"
        interval = parse_interval(self.interval)
        words += "" if interval is None else f", for tau from {interval[0]:g} to {interval[1]:g}"
        return {"guidance": words if not self.rescale else f"{words}, rescaled by {self.rescale:g}"}


def parse_interval(text: str | None) -> tuple[float, float] | None:
    """The two times of ``"0.2,1.5"``; None stays None.

    Raises:
        ValueError: If the text has another form.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f'--guidance-interval takes two OU times, such as "0.2,1.5", got {text!r}.') from None
    if not 0 <= low < high:
        raise ValueError(f"--guidance-interval must increase and not be negative, got {text!r}; write 0.2,1.5.")
    return low, high
