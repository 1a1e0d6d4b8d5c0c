"""Trained networks for the sampler benchmark: unlike data, networks, clocks and parameterizations.

The default sampler was chosen on the networks of `CHOSEN_ON` and on the exact models. Those of `JUDGED_ON` had no part
in the choice: the last two were trained after it, and fashion-v was only looked at.

| name | network | estimates | process | data | updates |
|---|---|---|---|---|---:|
| digits-v | default recipe (`Pointwise` MLP) | v | VP, linear | digits, 8 x 8 | 3000 |
| digits-eps | `UNet` | eps | VP, DDPM's betas | digits | 4000 |
| digits-eps-poor | the same | eps | VP, DDPM's betas | digits | 400 |
| cancer-v | default recipe for tables | v | VP, cosine | breast cancer, 30 columns | 364 |
| digits-eps-short | diffusers' `UNet2DModel`, by its tutorial's loop | eps | VP, DDPM's betas | digits | 837 |
| fashion-v | the shipped weights of examples/fashion_mnist.py | v | VP, cosine | Fashion-MNIST, 28 x 28 | |
| digits-edm | `UNet` with EDM's preconditioning | EDM's target | VE | digits | 3000 |
| digits-x0 | `DiT` | x0 | VP, cosine | digits | 2000 |
| moons-eps | `MLP` | eps | VP, linear | two moons, 2 values | 4000 |
| wine-v | default recipe for tables | v | VP, cosine | wine, 13 columns | 200 |
| circles-x0 | `MLP` | x0 | VP, linear | two circles, 2 values | 4000 |

Each is trained once, on one thread, and kept in runs/benchmarks/networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from race.peer import released
from race.problems import CACHE
from scoresde.data import Data, load_data
from scoresde.model import Model, ScoreModel
from scoresde.nn import MLP, DiT, UNet
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import DiscreteTimesteps, LogNormalTimesteps, StratifiedTimesteps
from scoresde.objective.weighting import EDM
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, V
from scoresde.process.schedule import Cosine, GeometricSigma, LinearBetas, LinearVP
from scoresde.process.sde import VE, VPSDE
from scoresde.storage.checkpoint import load
from scoresde.training import Training, train
from scoresde.training.defaults import default_recipe

__all__ = ["CHOSEN_ON", "JUDGED_ON", "Trained", "trained"]

CHOSEN_ON = (
    "digits-v",
    "digits-eps",
    "digits-eps-poor",
    "digits-eps-short",
    "digits-edm",
    "digits-x0",
    "cancer-v",
    "moons-eps",
)
JUDGED_ON = ("fashion-v", "wine-v", "circles-x0")
FASHION_WEIGHTS = Path(__file__).parents[3] / "examples" / "fashion-mnist"


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network.

    Attributes:
        name: In the table above.
        model: In evaluation mode, with averaged weights if it has any.
        held_out: Events it was not trained on, in model units, ``(n, *D)``.
    """

    name: str
    model: Model
    held_out: Tensor


class Preconditioned(nn.Module):
    """EDM's input scaling around a network: x is divided by its standard deviation; the target is `V`'s."""

    def __init__(self, net: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.net, self.sigma_data = net, sigma_data

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """The network at ``x`` / sqrt(sigma² + sigma_data² alpha²)."""
        variance = torch.sigmoid(-log_snr) + self.sigma_data**2 * torch.sigmoid(log_snr)
        return self.net(x / variance.sqrt().reshape(-1, *(1 for _ in x.shape[1:])), log_snr)


class IntegerSteps(nn.Module):
    """diffusers' UNet as a network of log-SNR: it gets k - 1 for the knot k of 1000 betas, with fractions between."""

    def __init__(self, unet: nn.Module, clock: LinearBetas) -> None:
        super().__init__()
        self.unet, self.clock = unet, clock

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """The noise estimate."""
        k = self.clock.u(ou.tau_from_log_snr(log_snr.double())) * self.clock.steps
        return self.unet(x, (torch.as_tensor(k) - 1).to(x.dtype)).sample


def trained(name: str, folder: Path = CACHE / "networks") -> Trained:
    """The network ``name``, trained now if it is not in ``folder``."""
    data = _data(name)
    description, held_out = data.description, data.test
    if name == "fashion-v":
        return Trained(name, load(FASHION_WEIGHTS).eval(), description.to_model(description.center(held_out)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, fit = _BUILDERS[name](data)
        path = folder / f"{name}.safetensors"
        if path.exists():
            model.load_state_dict(load_file(path))
        else:
            model = fit(model, data)
            folder.mkdir(parents=True, exist_ok=True)
            save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    generator = torch.Generator().manual_seed(1)
    values = description.dequantize(held_out, generator) if description.bins else held_out
    return Trained(name, model.eval(), description.to_model(values))


def _data(name: str) -> Data:
    """The data of a network; the bundled table as a frame, so that its columns are described as a user's are."""
    kind = name.partition("-")[0]
    if kind not in ("cancer", "wine"):
        return load_data({"fashion": "fashion-mnist"}.get(kind, kind))
    from sklearn.datasets import load_breast_cancer, load_wine

    bundle: Any = {"cancer": load_breast_cancer, "wine": load_wine}[kind](as_frame=True)
    return load_data(bundle["data"])


Fit = Callable[[ScoreModel, Data], ScoreModel]


def _by_recipe(data: Data) -> tuple[ScoreModel, Fit]:
    recipe = default_recipe(data.description, len(data.train))
    return recipe.build(data), _by_our_loop(recipe.training)


def _by_our_loop(training: Training) -> Fit:
    def fit(model: ScoreModel, data: Data) -> ScoreModel:
        return train(model, data, training, progress=False).model

    return fit


def _digits_eps(data: Data, updates: int = 4000) -> tuple[ScoreModel, Fit]:
    clock = LinearBetas()
    model = ScoreModel(UNet((1, 8, 8), 32, (1, 2)), _chain(clock), Eps(), data=data.description)
    return model, _by_our_loop(Training(updates, 64, Loss(timesteps=DiscreteTimesteps(1000)), lr=1e-3, lr_end=0.0))


def _chain(clock: LinearBetas) -> VPSDE:
    """DDPM's process, which ends at its first knot."""
    return VPSDE(clock, tau_min=clock.knots(clock.steps)[1])


def _digits_eps_short(data: Data) -> tuple[ScoreModel, Fit]:
    clock = LinearBetas()
    unet = released("diffusers").UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    return ScoreModel(IntegerSteps(unet, clock), _chain(clock), Eps(), data=data.description), _by_diffusers_loop


def _by_diffusers_loop(model: ScoreModel, data: Data, updates: int = 837, batch: int = 64) -> ScoreModel:
    """AdamW at 1e-3 with a short warmup, random integer steps and DDPMScheduler.add_noise; no average."""
    scheduler = released("diffusers").DDPMScheduler(num_train_timesteps=1000, clip_sample=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    unet: Any = model.net.unet
    generator = torch.Generator().manual_seed(0)
    events = data.description.to_model(data.description.center(data.train))
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (update + 1) / 100)
        x0 = events[torch.randint(len(events), (batch,), generator=generator)]
        eps, step = torch.randn(x0.shape, generator=generator), torch.randint(1000, (batch,), generator=generator)
        loss = (unet(scheduler.add_noise(x0, eps, step), step).sample - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def _digits_edm(data: Data) -> tuple[ScoreModel, Fit]:
    sde = VE(GeometricSigma(0.002, 80.0), tau_min=2e-6)
    net = Preconditioned(UNet((1, 8, 8), 32, (1, 2)), 0.5)
    timesteps = LogNormalTimesteps(p_mean=-1.2, p_std=1.2)
    training = Training(3000, 64, Loss(EDM(), timesteps), lr=1e-3, lr_end=0.0)
    return ScoreModel(net, sde, V(0.5), data=data.description), _by_our_loop(training)


def _digits_x0(data: Data) -> tuple[ScoreModel, Fit]:
    net = DiT((1, 8, 8), width=96, depth=4, heads=3)
    training = Training(2000, 64, Loss(timesteps=StratifiedTimesteps()), lr=1e-3, lr_end=0.0)
    return ScoreModel(net, VPSDE(Cosine()), X0(), data=data.description), _by_our_loop(training)


def _circles_x0(data: Data) -> tuple[ScoreModel, Fit]:
    model = ScoreModel(MLP((2,), 128, 3), VPSDE(LinearVP(), tau_min=1e-4), X0(), data=data.description)
    return model, _by_our_loop(Training(4000, 256, Loss(timesteps=StratifiedTimesteps()), lr=1e-3, lr_end=0.0))


def _moons_eps(data: Data) -> tuple[ScoreModel, Fit]:
    model = ScoreModel(MLP((2,), 128, 3), VPSDE(LinearVP(), tau_min=1e-4), Eps(), data=data.description)
    return model, _by_our_loop(Training(4000, 256, Loss(timesteps=StratifiedTimesteps()), lr=1e-3, lr_end=0.0))


_BUILDERS: dict[str, Callable[[Data], tuple[ScoreModel, Fit]]] = {
    "digits-v": _by_recipe,
    "digits-eps": _digits_eps,
    "digits-eps-poor": partial(_digits_eps, updates=400),
    "cancer-v": _by_recipe,
    "digits-eps-short": _digits_eps_short,
    "digits-edm": _digits_edm,
    "digits-x0": _digits_x0,
    "moons-eps": _moons_eps,
    "wine-v": _by_recipe,
    "circles-x0": _circles_x0,
}
