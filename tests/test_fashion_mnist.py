"""The weights that are shipped are read by this version, and need about as many bits as their page says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scoresde.data import load_data
from scoresde.likelihood import KernelDecoder, continuous_vlb, measure_error_profile
from scoresde.sampling import Adams, sample
from scoresde.storage.checkpoint import load

WEIGHTS = Path(__file__).parent.parent / "examples" / "fashion-mnist"


def test_the_shipped_network_is_small_and_draws_levels() -> None:
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8_000_000
    drawn = sample(load(WEIGHTS), 2, Adams(steps=6), seeds=range(2)).data
    assert drawn.shape == (2, 1, 28, 28)
    assert drawn.dtype == torch.uint8
    assert (drawn == 0).float().mean() > 0.2  # half of a real picture


def test_the_shipped_network_bounds_test_pictures_as_its_page_says() -> None:
    try:
        levels = load_data("fashion-mnist").test[:32]
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    model, generator = load(WEIGHTS), torch.Generator().manual_seed(0)
    assert model.data is not None
    centers = model.data.to_model(model.data.center(levels))
    profile = measure_error_profile(model, centers[:16], generator=generator)
    bound = continuous_vlb(
        model, levels, decoder=KernelDecoder(), evaluations=8, profile=profile, generator=generator, batch_size=16
    )
    assert bound.mean_stderr < 0.3
    assert bound.mean == pytest.approx(2.81, abs=3 * bound.mean_stderr)
