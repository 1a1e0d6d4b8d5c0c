"""The weights in ``examples/fashion-mnist`` load, and have the bits per dimension that their page states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scoresde.data import load_data
from scoresde.likelihood import KernelDecoder, continuous_vlb, measure_error_profile
from scoresde.sampling import Adams, sample
from scoresde.storage.checkpoint import load

WEIGHTS = Path(__file__).parent.parent / "examples" / "fashion-mnist"


def test_the_stored_network_is_small_and_samples_integer_values() -> None:
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8_000_000
    values = sample(load(WEIGHTS), 2, Adams(steps=6), seeds=range(2)).data
    assert values.shape == (2, 1, 28, 28)
    assert values.dtype == torch.uint8
    assert (values == 0).float().mean() > 0.2  # real images: one half


def test_the_bound_of_the_stored_network_on_test_images_is_the_one_on_its_page() -> None:
    try:
        values = load_data("fashion-mnist").test[:32]
    except FileNotFoundError as error:
        pytest.skip(str(error))
    model, generator = load(WEIGHTS), torch.Generator().manual_seed(0)
    assert model.data is not None
    centers = model.data.to_model(model.data.center(values))
    profile = measure_error_profile(model, centers[:16], generator=generator)
    bound = continuous_vlb(
        model, values, decoder=KernelDecoder(), evaluations=8, profile=profile, generator=generator, batch_size=16
    )
    assert bound.mean_stderr < 0.3
    assert bound.mean == pytest.approx(2.81, abs=3 * bound.mean_stderr)
