"""Trains networks on digits by denoising-diffusion-pytorch's own trainer and stores them; not run in CI.

``PYTHONPATH=. python tests/bridges/train_lucidrains.py``, with denoising-diffusion-pytorch and ema-pytorch installed.
Two networks: its `Unet` (objective pred_v, sigmoid betas) and our `DigitNetwork` (pred_noise, cosine betas).
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent.parent))
from digit_network import SHAPE, UNUSED_BY_LUCIDRAINS, DigitNetwork, digits, stand_ins

from scoresde.bridges.weights import read_weight_file

OUT = Path(__file__).parent / "models" / "lucidrains"
STEPS = 2000
UNET = {"dim": 8, "dim_mults": (1, 2), "channels": 1, "attn_heads": 2, "attn_dim_head": 8}


def transforms() -> ModuleType:
    """The few transforms that the trainer's data set composes, where torchvision is absent."""

    def compose(parts: list[Callable[..., Any]]) -> Callable[..., Any]:
        def apply(image: Any) -> Any:
            for part in parts:
                image = part(image)
            return image

        return apply

    def same(*_: Any) -> Callable[..., Any]:
        return lambda image: image

    def to_tensor() -> Callable[..., Any]:
        return lambda image: torch.from_numpy(np.array(image))[None].float() / 255

    module: Any = ModuleType("torchvision")
    module.transforms = SimpleNamespace(
        Compose=compose,
        Lambda=lambda function: function,
        Resize=same,
        CenterCrop=same,
        RandomHorizontalFlip=same,
        ToTensor=to_tensor,
    )
    module.utils = SimpleNamespace(save_image=lambda *_, **__: None)
    return module


if "torchvision" not in sys.modules:
    sys.modules["torchvision"] = transforms()
with stand_ins(*UNUSED_BY_LUCIDRAINS):
    ddp: Any = importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch")


def trained(net: torch.nn.Module, folder: Path, **settings: Any) -> Any:
    """The trainer after `STEPS` steps; it has written ``model-1.pt``."""
    torch.manual_seed(0)
    ddp.cpu_count = lambda: 0
    diffusion = ddp.GaussianDiffusion(net, image_size=8, timesteps=1000, sampling_timesteps=50, **settings)
    trainer = ddp.Trainer(
        diffusion,
        str(folder / "images"),
        train_batch_size=64,
        train_lr=2e-3,
        train_num_steps=STEPS,
        ema_decay=0.99,
        augment_horizontal_flip=False,
        save_and_sample_every=STEPS,
        num_samples=1,
        results_folder=str(folder / "results"),
        calculate_fid=False,
    )
    trainer.train()
    return trainer


@torch.no_grad()
def outputs(diffusion: Any) -> dict[str, torch.Tensor]:
    """Estimates at four steps, and ends of both samplers; all randomness of a chain is that of seed 5."""
    generator = torch.Generator().manual_seed(3)
    x, t = torch.randn(4, *SHAPE, generator=generator), torch.tensor([0, 10, 500, 999])
    prediction = diffusion.model_predictions(x, t)
    stored = {"x": x, "t": t, "out": diffusion.model(x, t), "x0": prediction.pred_x_start, "eps": prediction.pred_noise}
    torch.manual_seed(5)
    stored["ddim"] = diffusion.ddim_sample((2, *SHAPE))
    torch.manual_seed(5)
    stored["ddpm"] = diffusion.p_sample_loop((2, *SHAPE))
    return {name: value.contiguous() for name, value in stored.items()}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    settings = {
        "unet": (lambda: ddp.Unet(**UNET), {"objective": "pred_v", "beta_schedule": "sigmoid"}),
        "own": (lambda: DigitNetwork(scale=0.003), {"objective": "pred_noise", "beta_schedule": "cosine"}),
    }
    for name, (make, options) in settings.items():
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder) / "images"
            images.mkdir()
            for index, image in enumerate(digits()):
                Image.fromarray(image[0].numpy()).save(images / f"{index}.png")
            torch.manual_seed(0)
            trainer = trained(make(), Path(folder), **options)
            file = read_weight_file(Path(folder) / "results" / "model-1.pt")
            groups = ("ema.ema_model.", "model.") if name == "own" else ("ema.ema_model.",)
            kept = {k: v for k, v in file.tensors.items() if k.startswith(groups)}
            save_file(kept, OUT / f"{name}.safetensors", metadata={"step": str(file.values["step"])})
            save_file(outputs(trainer.ema.ema_model.eval()), OUT / f"{name}_outputs.safetensors")


if __name__ == "__main__":
    main()
