"""Options of ``scoresde train`` as objects: augmentation, lengths of averages, and the callback that monitors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoresde.cli.parsing import Modules
    from scoresde.data import Augment, Data
    from scoresde.training import Callback

__all__ = ["monitoring", "parse_augment", "parse_lengths"]


def monitoring(out: Path, data: Data, every: int, dequantize: bool) -> list[Callback]:
    """The callback that monitors a run: samples, and the loss on held-out events; none for ``every`` 0."""
    from scoresde.cli.sample_output import joined_texts
    from scoresde.plots.image_grid import is_image, save_image_grid
    from scoresde.plots.strips import is_strip, save_strips
    from scoresde.training import Callback, Monitor

    if every == 0:
        return []
    show, about = None, data.description
    if about.alphabet is not None and len(about.shape) == 1:
        show = lambda path, x, description: path.with_suffix(".txt").write_text(  # noqa: E731
            joined_texts(description.texts(x)), encoding="utf-8"
        )
    elif about.classes is not None and is_strip(about.shape):
        show = lambda path, x, description: save_strips(path.with_suffix(".png"), x, description.classes)  # noqa: E731
    elif is_image(about.shape):
        show = lambda path, x, description: save_image_grid(path.with_suffix(".png"), x, description)  # noqa: E731
    return [Callback(every, Monitor(out, data, save_samples=show, dequantize=dequantize))]


def parse_augment(text: str | None, modules: Modules) -> Augment | None:
    """The augmentation that a text writes; None for None."""
    from scoresde.cli.parsing import parse
    from scoresde.data import Augment

    return None if text is None else parse(text, Augment, modules)


def parse_lengths(text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas; None for None.

    Raises:
        ValueError: If the text has another form.
    """
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f'--lengths are numbers separated by commas, such as "0.05,0.1", got {text!r}.') from None
