"""Neural networks that read a noised state and its log-SNR, ``net(x, log_snr, **conditions)``; independent of SDEs."""

from __future__ import annotations

from scoresde.nn._condition_encoders import LabelEmbedding
from scoresde.nn.categorical_net import CategoricalNet
from scoresde.nn.conditions import Channels, Classes, Condition, Known, Tokens, Vector
from scoresde.nn.dit import DiT
from scoresde.nn.embeddings import Conditioning, JumpEmbedding, LogSNREmbedding
from scoresde.nn.fourier_features import FourierInput
from scoresde.nn.gaussian_skip import GaussianSkip
from scoresde.nn.mixed_net import MixedNet
from scoresde.nn.mlp import MLP
from scoresde.nn.pointwise import Pointwise
from scoresde.nn.quantized_skip import QuantizedSkip
from scoresde.nn.unet import UNet

__all__ = [
    "MLP",
    "MixedNet",
    "CategoricalNet",
    "Channels",
    "Classes",
    "Condition",
    "DiT",
    "Conditioning",
    "FourierInput",
    "GaussianSkip",
    "JumpEmbedding",
    "Known",
    "LabelEmbedding",
    "QuantizedSkip",
    "LogSNREmbedding",
    "Pointwise",
    "Tokens",
    "UNet",
    "Vector",
]
