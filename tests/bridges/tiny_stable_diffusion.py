"""A tiny Stable Diffusion with random weights, built from configurations, and its guided network as a module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["GuidedUNet", "components"]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def components(folder: Path, scheduler: Any) -> dict[str, Any]:
    """Arguments of `StableDiffusionPipeline`; latents of 4 × 8 × 8. The vocabulary is written to ``folder``."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    names = ("<|startoftext|>", "<|pad|>", "<|endoftext|>", *(f"{c}</w>" for c in _LETTERS), *_LETTERS)
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    blocks: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            **blocks,
        )
        kinds: dict[str, Any] = {
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
        }
        vae = AutoencoderKL(latent_channels=4, **kinds, **blocks)
        size: dict[str, Any] = {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
        }
        ids: dict[str, Any] = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        text = CLIPTextModel(CLIPTextConfig(vocab_size=len(names), max_position_embeddings=16, **size, **ids))
    return {
        "unet": unet.eval(),
        "vae": vae.eval(),
        "text_encoder": text.eval(),
        "tokenizer": CLIPTokenizer.from_pretrained(str(folder), model_max_length=16, pad_token="<|pad|>"),
        "scheduler": scheduler,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


class GuidedUNet(nn.Module):
    """The UNet with classifier-free guidance as the pipeline computes it, called as ``net(x, t)``.

    Args:
        unet: The UNet.
        null, prompt: Embeddings, ``(1, tokens, width)``.
        weight: Guidance scale.
    """

    def __init__(self, unet: nn.Module, null: Tensor, prompt: Tensor, weight: float) -> None:
        super().__init__()
        self.unet, self.embeddings, self.weight = unet, torch.cat([null, prompt]), weight

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out = self.unet(torch.cat([x, x]), t[0], encoder_hidden_states=self.embeddings).sample
        plain, prompted = out.chunk(2)
        return plain + self.weight * (prompted - plain)
