"""DiT: patches, position embeddings, and blocks that start as the identity, as in its paper."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scoresde.nn import DiT
from scoresde.nn.dit import position_embedding


def perturb(net: DiT) -> DiT:
    """Moves every weight away from zero; float64."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.double().eval()


@pytest.mark.parametrize("shape", [(3, 8), (2, 6, 4), (2, 4, 2, 6)])
def test_the_patch_embedding_is_a_convolution_whose_stride_is_the_patch_size(shape):
    net = DiT(shape, patch=2, width=12, depth=1, heads=1).double()
    x, axes = torch.randn(2, *shape, dtype=torch.float64), len(shape) - 1
    kernel = net.patch_embedding.weight.reshape(12, shape[0], *[2] * axes)
    expected = (F.conv1d, F.conv2d, F.conv3d)[axes - 1](x, kernel, net.patch_embedding.bias, stride=2).flatten(2).mT
    torch.testing.assert_close(net.patch_embedding(net._to_patches(x)), expected)


@pytest.mark.parametrize(("shape", "patch"), [((3, 7), 3), ((2, 5, 4), 2), ((1, 3, 4, 5), 2), ((1, 1, 1), 4)])
def test_from_patches_inverts_to_patches(shape, patch):
    net = DiT(shape, patch=patch, width=12, depth=1, heads=1)
    x = torch.randn(2, *shape)
    patches, grid = net._to_patches(x), tuple(math.ceil(n / patch) for n in shape[1:])
    assert patches.shape == (2, math.prod(grid), shape[0] * patch ** len(grid))
    assert torch.equal(net._from_patches(patches, grid), x)


def test_position_embeddings_are_sines_and_cosines_of_each_axis():
    embedding = position_embedding((2, 3), 8, torch.zeros((), dtype=torch.float64))
    for n, (row, column) in enumerate((r, c) for r in range(2) for c in range(3)):
        phases = [[position, position / 100] for position in (row, column)]
        expected = [f(p) for axis in phases for f in (math.sin, math.cos) for p in axis]
        torch.testing.assert_close(embedding[n], torch.tensor(expected, dtype=torch.float64))
    assert position_embedding((5,), 6, torch.zeros((), dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_every_block_starts_as_the_identity_for_every_embedding():
    net = DiT((1, 4, 4), width=8, depth=2, heads=2)
    h = torch.randn(3, 4, 8)
    for block in net.blocks:
        assert torch.equal(block(h, torch.randn(3, 8)), h)


def test_a_block_is_gated_attention_then_a_gated_mlp_each_after_adaptive_layer_norm():
    block: Any = perturb(DiT((1, 4, 4), width=8, depth=1, heads=2)).blocks[0]
    h, embedding = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    a1, b1, g1, a2, b2, g2 = (
        (embedding @ block.modulation.weight.T + block.modulation.bias).reshape(3, 6, 1, 8).unbind(1)
    )
    norm, attention = nn.LayerNorm(8, elementwise_affine=False), block.attention
    query, key, value = (
        part.reshape(3, 5, 2, 4).transpose(1, 2) for part in attention.qkv(norm(h) * (1 + a1) + b1).chunk(3, 2)
    )
    heads = (query @ key.mT / 2).softmax(-1) @ value  # heads of width 4
    expected = h + g1 * attention.out_proj(heads.transpose(1, 2).reshape(3, 5, 8))
    hidden = F.gelu(block.linear_in(norm(expected) * (1 + a2) + b2), approximate="tanh")
    torch.testing.assert_close(block(h, embedding), expected + g2 * block.linear_out(hidden), rtol=1e-10, atol=1e-12)


def test_the_position_of_a_patch_affects_the_output():
    net = perturb(DiT((1, 8), patch=2, width=8, depth=1, heads=1))
    x, log_snr = torch.randn(1, 1, 8, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    moved = net(x.roll(2, 2), log_snr).roll(-2, 2)
    assert (moved - net(x, log_snr)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"event_shape": (3,)}, r"event_shape must be \(channels, one to three sizes\), got \(3,\); use MLP"),
        ({"width": 190}, r"width must be a multiple of heads and of 2 x axes = 4, got width=190 and heads=3; use"),
        ({"heads": 5}, r"width must be a multiple of heads and of 2 x axes = 4, got width=192 and heads=5; use"),
        ({"patch": 0}, r"patch must be a positive integer, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_invalid_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        DiT(**{"event_shape": (1, 8, 8), **settings})
