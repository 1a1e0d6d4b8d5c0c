"""Output files of ``edit`` and ``inpaint``: a sheet that shows before and after, or numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scoresde.cli.outputs import atomic_output

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Description
    from scoresde.model import Model

__all__ = ["check_sheet", "check_shows", "seeds_from", "write_sheet"]


def check_sheet(out: Path | None) -> None:
    """Refuses an output file that is neither .png nor .npz, before any work is done.

    Raises:
        ValueError: If it is another one.
    """
    if out is not None and out.suffix.lower() not in (".png", ".npz"):
        raise ValueError(f"--out must end in .png (a sheet of images) or .npz (numbers in data units), got {out}.")


def check_shows(out: Path | None, model: Model) -> None:
    """Refuses a sheet of events that are not images, before anything is drawn.

    Raises:
        ValueError: If they are not.
    """
    from scoresde.plots.image_grid import is_image

    shape = model.event_shape or ()
    if out is not None and out.suffix.lower() == ".png" and not is_image(shape):
        raise ValueError(f"a .png shows images, got events of shape {shape}; write them as .npz.")


def write_sheet(
    out: Path | None,
    before: Tensor,
    after: Tensor,
    description: Description | None,
    hidden: Tensor | None,
    name: str,
) -> None:
    """Writes the results, and prints the path.

    Args:
        out: The file; None writes nothing and prints how to write one.
        before: Originals in data units, ``(n, *D)``.
        after: Results, ``(n, k, *D)``.
        description: Of the data.
        hidden: Which entries were not kept, ``(n, *D)``, or None. A ``.npz`` has the arrays ``before``, ``after`` and,
            with a mask, ``hidden``.
        name: What the results are called.
    """
    from scoresde.cli import console
    from scoresde.plots.image_grid import is_image

    count = f"{after.shape[0] * after.shape[1]} {name}"
    if out is None:
        suffix = "png" if is_image(before.shape[1:]) else "npz"
        console.print_done(f"{count}, none saved; to save them add --out {name}.{suffix}")
        return
    arrays = {"before": before.cpu().numpy(), "after": after.cpu().numpy()}
    if hidden is not None:
        arrays["hidden"] = hidden.cpu().numpy()
    with atomic_output(out) as path:
        if out.suffix.lower() == ".npz":
            from scoresde._core.arrays import write_npz

            with path.open("wb") as file:
                write_npz(file, arrays)
        else:
            from scoresde.plots.before_after import save_before_and_after

            save_before_and_after(path, arrays["before"], arrays["after"], description, arrays.get("hidden"))
    console.print_done(f"{count} in {out}")


def seeds_from(seed: int, count: int) -> list[int]:
    """One seed per event, derived from one number; the first ones are the same for any count."""
    from scoresde.training.source import derive

    return [derive(seed, row) for row in range(count)]
