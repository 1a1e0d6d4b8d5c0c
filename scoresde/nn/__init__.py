"""Networks that read a noised state and its log-SNR: ``net(x, log_snr, cond=None)``. They know nothing of SDEs."""

from __future__ import annotations

from scoresde.nn.dit import DiT
from scoresde.nn.embeddings import Conditioning, FourierInput, LabelEmbedding, LogSNREmbedding
from scoresde.nn.mlp import MLP
from scoresde.nn.pointwise import Pointwise
from scoresde.nn.quantized_skip import QuantizedSkip
from scoresde.nn.unet import UNet

__all__ = [
    "MLP",
    "DiT",
    "Conditioning",
    "FourierInput",
    "LabelEmbedding",
    "QuantizedSkip",
    "LogSNREmbedding",
    "Pointwise",
    "UNet",
]
