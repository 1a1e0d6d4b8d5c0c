"""Output files of samples: a PNG with a grid of images, or a compressed ``.npz`` with numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scoresde.cli.outputs import atomic_output

if TYPE_CHECKING:
    from scoresde.model import ScoreModel
    from scoresde.sampling import Samples

__all__ = ["check_image_output", "default_output", "write_samples"]


def default_output(model: ScoreModel) -> str:
    """A file name that suits the model's samples."""
    from scoresde.plots.image_grid import is_image

    return "grid.png" if is_image(model.event_shape or ()) else "samples.npz"


def check_image_output(out: Path | None, model: ScoreModel) -> None:
    """Refuses a PNG of data that are not images, before anything is sampled.

    Raises:
        ValueError: If ``out`` is a PNG and the model's events are not images.
    """
    from scoresde.plots.image_grid import is_image

    if out is not None and out.suffix == ".png" and not is_image(model.event_shape or ()):
        raise ValueError(f"a .png shows images, got events of shape {model.event_shape}; write them as .npz.")


def write_samples(out: Path, samples: Samples) -> None:
    """Writes samples.

    Args:
        out: ``.png`` for a grid of images. Any other name gets the arrays ``x`` (data units), ``tau`` and ``nfe``, and,
            if there is a trajectory, ``trajectory`` (model units) and ``taus``.
        samples: What is written.
    """
    import numpy as np

    values = (samples.x if samples.description is None else samples.data).cpu().numpy()
    if out.suffix == ".png":
        from scoresde.plots.image_grid import save_image_grid

        with atomic_output(out) as path:
            save_image_grid(path, values, samples.description)
        return
    arrays = {"x": values, "tau": np.asarray(samples.tau), "nfe": np.asarray(samples.nfe)}
    if samples.trajectory is not None:
        arrays |= {"trajectory": samples.trajectory.cpu().numpy(), "taus": np.asarray(samples.taus)}
    with atomic_output(out) as path:
        np.savez_compressed(path, allow_pickle=False, **arrays)
