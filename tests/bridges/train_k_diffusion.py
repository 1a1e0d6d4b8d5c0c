"""Trains networks on digits by k-diffusion's own code and stores them with its own outputs; not run in CI.

``PYTHONPATH=. python tests/bridges/train_k_diffusion.py``, with k-diffusion installed. Four networks:
its `ImageDenoiserModelV1` and our `DigitNetwork` in ``layers.Denoiser``, and ours in ``VDenoiser`` and
``DiscreteEpsDDPMDenoiser``.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent.parent))
from digit_network import SHAPE, UNUSED_BY_K_DIFFUSION, DigitNetwork, digits, stand_ins

with stand_ins(*UNUSED_BY_K_DIFFUSION):
    K: Any = importlib.import_module("k_diffusion")

OUT = Path(__file__).parent / "models" / "k_diffusion"
STEPS = 1500
CONFIG: dict[str, Any] = {
    "model": {
        "type": "image_v1",
        "input_channels": 1,
        "input_size": [8, 8],
        "patch_size": 1,
        "mapping_out": 32,
        "depths": [1, 1],
        "channels": [16, 24],
        "self_attn_depths": [False, False],
        "augment_wrapper": False,
        "sigma_data": 0.8,
        "sigma_min": 0.02,
        "sigma_max": 40.0,
        "sigma_sample_density": {"type": "lognormal", "mean": -0.8, "std": 1.4},
    },
    "dataset": {"type": "imagefolder", "location": "digits"},
}


def trained(denoiser: torch.nn.Module, density: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The denoiser and its exponential moving average, by k-diffusion's loss, averages and noise levels."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    images = digits().float() / 127.5 - 1
    average = copy.deepcopy(denoiser)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=2e-3, betas=(0.95, 0.99), weight_decay=1e-4)
    for step in range(STEPS):
        x = images[torch.randint(len(images), (64,), generator=generator)]
        loss = denoiser.loss(x, torch.randn_like(x), density([len(x)])).mean()  # pyright: ignore[reportCallIssue]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / STEPS)
        K.utils.ema_update(denoiser, average, min(0.99, (1 + step) / (10 + step)))
        if step % 250 == 0:
            print(step, float(loss))
    return denoiser.eval(), average.eval()


@torch.no_grad()
def outputs(denoiser: torch.nn.Module, low: float, high: float, chains: bool) -> dict[str, torch.Tensor]:
    """One call at four levels, and ends of chains on stored first states; noise in steps is that of seed 5."""
    generator = torch.Generator().manual_seed(3)
    sigma = torch.tensor([low * 1.5, 0.3, 2.0, high * 0.9])
    noisy = torch.randn(4, *SHAPE, generator=generator) * (0.64 + sigma.reshape(-1, 1, 1, 1) ** 2).sqrt()
    first = torch.randn(2, *SHAPE, generator=generator) * high
    sigmas = K.sampling.get_sigmas_karras(20, low, high)
    stored = {"sigma": sigma, "noisy": noisy, "denoised": denoiser(noisy, sigma), "first": first, "sigmas": sigmas}
    stored["euler"] = K.sampling.sample_euler(denoiser, first, sigmas, disable=True)
    if chains:
        stored["heun"] = K.sampling.sample_heun(denoiser, first, sigmas, disable=True)
        stored["dpmpp_2m"] = K.sampling.sample_dpmpp_2m(denoiser, first, sigmas, disable=True)
        torch.manual_seed(5)
        stored["ancestral"] = K.sampling.sample_euler_ancestral(denoiser, first, sigmas, disable=True)
    return {name: value.contiguous() for name, value in stored.items()}


def store(name: str, average: torch.nn.Module, config: dict[str, Any], values: dict[str, Any]) -> None:
    """A file for inference as ``convert_for_inference.py`` writes it, and the outputs beside it."""
    inner: torch.nn.Module = average.inner_model  # pyright: ignore[reportAssignmentType]
    save_file(inner.state_dict(), OUT / f"{name}.safetensors", metadata={"config": json.dumps(config)})
    save_file(values, OUT / f"{name}_outputs.safetensors")


def merged(base: Any, head: Any) -> Any:
    """What jsonmerge does by default: objects are merged, anything else is replaced."""
    if not (isinstance(base, dict) and isinstance(head, dict)):
        return head
    return base | {name: merged(base.get(name), value) for name, value in head.items()}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    K.config.merge = merged  # jsonmerge may be absent
    config = K.config.load_config(CONFIG)
    density = K.config.make_sample_density(config["model"])
    levels = config["model"]["sigma_min"], config["model"]["sigma_max"]
    torch.manual_seed(0)
    for name, net in (("image_v1", K.config.make_model(config)), ("own", DigitNetwork(scale=0.25))):
        _, average = trained(K.config.make_denoiser_wrapper(config)(net), density)
        store(name, average, config, outputs(average, *levels, chains=True))

    _, average = trained(K.external.VDenoiser(DigitNetwork(scale=3.0)), density)
    store("v", average, {"model": {}}, outputs(average, *levels, chains=False))

    bars = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0).float()
    eps = K.external.DiscreteEpsDDPMDenoiser(DigitNetwork(scale=0.003), bars, quantize=False)

    def places(shape: list[int]) -> torch.Tensor:
        return eps.t_to_sigma(torch.rand(shape) * 999)

    _, average = trained(eps, places)
    table = {"table": average.sigmas}
    store("eps", average, {"model": {}}, outputs(average, 0.02, 100.0, chains=False) | table)


if __name__ == "__main__":
    main()
