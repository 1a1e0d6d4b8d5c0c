"""Embeddings of log-SNR and class labels."""

from __future__ import annotations

import math

import pytest
import torch

from scoresde.nn import LabelEmbedding, LogSNREmbedding


def test_log_snr_features_have_geometric_periods_and_are_injective_on_the_range():
    embedding = LogSNREmbedding(4, (-10.0, 6.0), periods=5, shortest_period=2.0).double()
    log_snr = torch.linspace(-10, 6, 50, dtype=torch.float64)
    periods = torch.tensor([32 / 2**n for n in range(5)], dtype=torch.float64)
    phase = 2 * math.pi * (log_snr[:, None] + 10) / periods
    expected = torch.cat([torch.sin(phase), torch.cos(phase)], 1)
    torch.testing.assert_close(embedding.features(log_snr), expected, rtol=0, atol=1e-12)
    assert (expected[:, 5].diff() < 0).all()  # the slowest cosine falls all the way


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_log_snr_features_do_not_depend_on_the_precision_of_the_weights(dtype):
    log_snr = torch.linspace(-30, 30, 101)
    features = LogSNREmbedding(4).to(dtype).features(log_snr)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.double(), LogSNREmbedding(4).double().features(log_snr), rtol=0, atol=1e-4)


def test_a_half_precision_embedding_resolves_log_snrs_that_half_precision_rounds_together():
    embedding = LogSNREmbedding(16).to(torch.bfloat16)
    log_snr = torch.tensor([5.0, 5.01])
    assert log_snr.bfloat16().diff() == 0
    assert embedding(log_snr).diff(dim=0).any()


@pytest.mark.parametrize("null", [False, True])
def test_a_label_out_of_range_is_refused(null):
    table = LabelEmbedding(2, 4, null)
    last = 4 if null else 3
    assert table(torch.tensor([0, last])).shape == (2, 2)
    with pytest.raises(ValueError, match=rf"labels must lie in 0 \.\.\. {last}, got -1 \.\.\. 2"):
        table(torch.tensor([2, -1]))
    with pytest.raises(ValueError, match=rf"labels must lie in 0 \.\.\. {last}, got 1 \.\.\. {last + 1}"):
        table(torch.tensor([last + 1, 1]))
