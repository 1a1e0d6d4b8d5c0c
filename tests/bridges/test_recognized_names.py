"""Names of weights state the origin of a file, and no file has two origins."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoresde.bridges import edm, guided_diffusion, k_diffusion, lucidrains, score_sde
from scoresde.bridges.weights import read_weight_file

MODELS = Path(__file__).parent / "models"
NAMES = {
    "lucidrains": ["ema.ema_model.betas", "ema.ema_model.alphas_cumprod", "ema.ema_model.model.init_conv.weight"],
    "score_sde": ["model.module.all_modules.0.weight", "ema.shadow_params.0"],
    "guided_diffusion": ["time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"],
    "edm": ["model.map_layer0.weight", "model.map_layer1.weight"],
    "k_diffusion": ["model_ema.mapping.0.weight"],
    "none": ["conv_in.weight"],
}


def origins(names: list[str], values: dict[str, object]) -> list[str]:
    modules = {"lucidrains": lucidrains, "score_sde": score_sde, "guided_diffusion": guided_diffusion, "edm": edm}
    found = [name for name, module in modules.items() if module.recognize(names)]
    return [*found, *(["k_diffusion"] if k_diffusion.recognize(names, values) else [])]


@pytest.mark.parametrize("origin", NAMES)
def test_names_state_one_origin(origin: str) -> None:
    values: dict[str, object] = {"config.model.sigma_data": 0.5} if origin == "k_diffusion" else {}
    assert origins(NAMES[origin], values) == ([] if origin == "none" else [origin])


@pytest.mark.parametrize("path", ["lucidrains/own", "lucidrains/unet", "k_diffusion/own", "k_diffusion/image_v1"])
def test_stored_files_of_the_peers_have_one_origin(path: str) -> None:
    file = read_weight_file(MODELS / f"{path}.safetensors")
    assert origins(list(file.tensors), dict(file.values)) == [path.split("/")[0]]
