"""Fourier features of the network input."""

from __future__ import annotations

import math

import numpy as np
import torch

from scoresde.nn import FourierInput


def test_fourier_features_of_eight_bit_images_are_those_of_the_paper():
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 2 - 1
    expected = [x, *(f(2**n * math.pi * x) for f in (torch.sin, torch.cos) for n in (7, 8))]
    torch.testing.assert_close(FourierInput(base=128)(x, torch.zeros(2)), torch.cat(expected, 1), rtol=0, atol=1e-10)


def test_the_top_fourier_octave_has_the_period_of_a_bin_and_the_octave_below_twice_that():
    x = torch.rand(2, 1, dtype=torch.float64)
    this_bin, next_bin = (FourierInput(base=17 / 2)(x + shift, torch.zeros(2)) for shift in (0.0, 2 / 17))
    torch.testing.assert_close(next_bin[:, [2, 4]], this_bin[:, [2, 4]], rtol=0, atol=1e-12)
    torch.testing.assert_close(next_bin[:, [1, 3]], -this_bin[:, [1, 3]], rtol=0, atol=1e-12)


def test_a_damped_fourier_feature_is_multiplied_by_its_mean_over_the_noise():
    """E[cos(w (x + sigma z))] = cos(w x) exp(-w² sigma² / 2), by Gauss-Hermite quadrature over z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z, share = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    x, log_snr = torch.tensor([0.3], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    sigma = torch.sigmoid(-log_snr).sqrt()
    mean = (FourierInput(1.0)((x + sigma * z)[:, None], log_snr)[:, 1:] * share[:, None]).sum(0)
    damped = FourierInput(1.0, damped=True)(x[:, None], log_snr)
    torch.testing.assert_close(damped[0, 1:], mean, rtol=0, atol=1e-9)
    assert damped[0, 0] == x[0]


def test_fourier_features_of_half_precision_input_are_computed_in_float32():
    x = torch.tensor([[0.3, -0.7]], dtype=torch.bfloat16)
    assert torch.equal(FourierInput(8.5)(x, torch.zeros(1)), FourierInput(8.5)(x.float(), torch.zeros(1)))
