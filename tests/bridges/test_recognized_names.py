"""Names of weights state the origin of a file, and no file has two origins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scoresde.bridges import edm, guided_diffusion, k_diffusion, lucidrains, score_sde
from scoresde.bridges.weights import WeightFile, read_weight_file
from scoresde.bridges.weights.torch_files import Value

MODELS = Path(__file__).parent / "models"
NAMES = {
    "lucidrains": ["ema.ema_model.betas", "ema.ema_model.alphas_cumprod", "ema.ema_model.model.init_conv.weight"],
    "score_sde": ["model.module.all_modules.0.weight", "ema.shadow_params.0"],
    "guided_diffusion": ["time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"],
    "edm": ["model.map_layer0.weight", "model.map_layer1.weight"],
    "k_diffusion": ["model_ema.mapping.0.weight"],
    "none": ["conv_in.weight"],
}


def origins(file: WeightFile) -> list[str]:
    modules = {
        "lucidrains": lucidrains,
        "score_sde": score_sde,
        "guided_diffusion": guided_diffusion,
        "edm": edm,
        "k_diffusion": k_diffusion,
    }
    return [name for name, module in modules.items() if module.recognize(file)]


@pytest.mark.parametrize("origin", NAMES)
def test_names_state_one_origin(origin: str) -> None:
    values: dict[str, Value] = {"config.model.sigma_data": 0.5} if origin == "k_diffusion" else {}
    file = WeightFile(Path(), dict.fromkeys(NAMES[origin], torch.zeros(1)), values)
    assert origins(file) == ([] if origin == "none" else [origin])


@pytest.mark.parametrize("path", ["lucidrains/own", "lucidrains/unet", "k_diffusion/own", "k_diffusion/image_v1"])
def test_stored_files_of_the_peers_have_one_origin(path: str) -> None:
    file = read_weight_file(MODELS / f"{path}.safetensors")
    assert origins(file) == [path.split("/")[0]]
