"""Spectra, autocorrelations, histograms and slices of the report, against closed forms."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from scoresde.experiments.report.parts.curves import autocorrelation, histogram, histogram_edges, power_spectrum
from scoresde.experiments.report.parts.images import images_per_sheet
from scoresde.experiments.report.parts.volumes import middle_slices
from scoresde.experiments.report.pictures import Panel, Picture


@pytest.mark.parametrize(("axes", "size"), [(1, 64), (2, 32), (3, 12)])
def test_white_noise_has_a_flat_spectrum_at_its_variance(axes: int, size: int) -> None:
    x = 2.0 * np.random.default_rng(0).normal(size=(400 // axes**2, 1, *[size] * axes)) + 5.0
    frequencies, power = power_spectrum(x, axes)
    np.testing.assert_allclose(frequencies, np.arange(1, size // 2 + 1) / size)
    np.testing.assert_allclose(power, 4.0, rtol=0.35)
    assert power.mean() == pytest.approx(4.0, rel=0.05)


def test_a_wave_has_all_its_power_at_its_frequency() -> None:
    position = np.arange(40)
    x = np.cos(2 * np.pi * 5 / 40 * position + np.linspace(0, 6, 30)[:, None])
    frequencies, power = power_spectrum(x, 1)
    assert frequencies[power.argmax()] == 5 / 40
    assert power.max() == pytest.approx(40 / 4)  # amplitude 1: |F|^2 / N = N / 4 at both signs of the frequency
    assert np.delete(power, power.argmax()).max() < 1e-2


def test_the_autocorrelation_of_a_first_order_process_is_a_power() -> None:
    draw, rho = np.random.default_rng(0), 0.7
    x = np.empty((4000, 2, 20))
    x[..., 0] = draw.normal(size=(4000, 2))
    for t in range(1, 20):
        x[..., t] = rho * x[..., t - 1] + np.sqrt(1 - rho**2) * draw.normal(size=(4000, 2))
    lags, values = autocorrelation(x + 3.0)
    np.testing.assert_array_equal(lags, np.arange(11))
    np.testing.assert_allclose(values, rho**lags, atol=0.02)


def test_integer_values_have_a_bin_each_and_outliers_count_at_the_ends() -> None:
    edges = histogram_edges(np.arange(4), 4)
    middles, shares = histogram(np.asarray([[0, 1, 1], [3, 3, 9]]), edges)
    np.testing.assert_array_equal(middles, np.arange(4))
    np.testing.assert_allclose(shares, [1 / 6, 2 / 6, 0, 3 / 6])


def test_slices_are_those_through_the_middle() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6))
    slices = middle_slices(x)
    assert slices.shape == (2, 3, 6, 6)
    np.testing.assert_array_equal(slices[:, 0, :5, :6], x[:, 0, 2])
    np.testing.assert_array_equal(slices[:, 1, :4, :6], x[:, 0, :, 2])
    np.testing.assert_array_equal(slices[:, 2, :4, :5], x[:, 0, :, :, 3])


def test_large_images_are_fewer_in_a_sheet() -> None:
    assert images_per_sheet(8 * 8 * 3, 14) == 36
    assert images_per_sheet(64 * 64 * 3, 14) == 4
    assert images_per_sheet(1024 * 1024 * 3, 14) == 1


def test_a_panel_without_axes_does_not_take_its_layout_from_the_users_settings() -> None:
    panel = Panel("", lambda axes: axes.set_xlim(0, 1) and None, framed=False)
    (plain,) = Picture("a panel", [panel]).drawn("p")
    with mpl.rc_context({"figure.constrained_layout.use": True}):  # warnings are errors here
        (drawn,) = Picture("a panel", [panel]).drawn("p")
    assert drawn.svg == plain.svg
