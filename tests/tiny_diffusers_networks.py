"""Untrained networks of diffusers of a few thousand weights: their classes, configurations, conditions and calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Call = Callable[[nn.Module, Tensor, Tensor, dict[str, Tensor]], Tensor]


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


_BLOCKS: dict[str, Any] = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
_DIT: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 1,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 10,
}

NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Tensor], Call]] = {
    "UNet2DModel": (
        {
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "num_class_embeds": 5,
            **_BLOCKS,
        },
        {"label": torch.tensor([1, 4])},
        lambda net, x, t, c: net(x, t, class_labels=c["label"]).sample,
    ),
    "UNet2DConditionModel": (
        {
            "sample_size": 8,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 12,
            "attention_head_dim": 4,
            **_BLOCKS,
        },
        {"text": _normal(2, 3, 12)},
        lambda net, x, t, c: net(x, t, c["text"]).sample,
    ),
    "UNet2DConditionModel of SDXL": (
        {
            "sample_size": (8, 8),
            "in_channels": 4,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 12,
            "attention_head_dim": 4,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 6 + 6 * 4,
            **_BLOCKS,
        },
        {"text": _normal(2, 3, 12), "pooled": _normal(2, 6), "size": torch.full((2, 6), 8.0)},
        lambda net, x, t, c: (
            net(x, t, c["text"], added_cond_kwargs={"text_embeds": c["pooled"], "time_ids": c["size"]}).sample
        ),
    ),
    "DiTTransformer2DModel": (
        {**_DIT, "norm_num_groups": 2},
        {"label": torch.tensor([3, 10])},
        lambda net, x, t, c: net(x, t, class_labels=c["label"]).sample,
    ),
    "SD3Transformer2DModel": (
        {
            "sample_size": 8,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 12,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 6,
            "pos_embed_max_size": 8,
        },
        {"text": _normal(2, 3, 12), "pooled": _normal(2, 6)},
        lambda net, x, t, c: net(x, c["text"], c["pooled"], t).sample,
    ),
    "FluxTransformer2DModel": (
        {
            "patch_size": 1,
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 12,
            "pooled_projection_dim": 6,
            "guidance_embeds": True,
            "axes_dims_rope": (4, 6, 6),
        },
        {"text": _normal(2, 3, 12), "pooled": _normal(2, 6), "guidance": torch.full((2, 1), 3.5)},
        lambda net, x, t, c: _flux(net, x, t, c),
    ),
    "PixArtTransformer2DModel of 1024 pixels": (
        {**_DIT, "cross_attention_dim": 24, "caption_channels": 12, "use_additional_conditions": True},
        {"text": _normal(2, 3, 12), "resolution": torch.full((2, 2), 64.0), "aspect_ratio": torch.ones(2, 1)},
        lambda net, x, t, c: (
            net(
                x,
                encoder_hidden_states=c["text"],
                timestep=t,
                added_cond_kwargs={"resolution": c["resolution"], "aspect_ratio": c["aspect_ratio"]},
            ).sample
        ),
    ),
    "PixArtTransformer2DModel": (
        {**_DIT, "cross_attention_dim": 24, "caption_channels": 12},
        {"text": _normal(2, 3, 12)},
        lambda net, x, t, c: (
            net(
                x,
                encoder_hidden_states=c["text"],
                timestep=t,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            ).sample
        ),
    ),
}
"""By name: the configuration, conditions of two samples, and the call of diffusers' pipelines."""


def _flux(net: nn.Module, x: Tensor, t: Tensor, c: dict[str, Tensor]) -> Tensor:
    """With the packing and the positions of diffusers' own pipeline."""
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    batch, channels, height, width = x.shape
    ids = FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, x.device, x.dtype)
    out = net(
        hidden_states=FluxPipeline._pack_latents(x, batch, channels, height, width),
        timestep=t / 1000,
        guidance=c["guidance"][:, 0],
        pooled_projections=c["pooled"],
        encoder_hidden_states=c["text"],
        txt_ids=torch.zeros(c["text"].shape[1], 3),
        img_ids=ids,
    ).sample
    return FluxPipeline._unpack_latents(out, 8 * height, 8 * width, 8)
