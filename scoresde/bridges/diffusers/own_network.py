r"""A network of this package as a model of diffusers: called with DDPM's step, $t = K u - 1$, instead of log-SNR."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

import scoresde.nn
import scoresde.process
from scoresde.bridges.diffusers.layout import Layout, folder_weights, weights_file
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.weights import fit
from scoresde.model import ScoreModel
from scoresde.process import SDE, VPSDE, X0, Eps, Parameterization, Schedule, V, ou
from scoresde.process.prediction import GaussianPrediction
from scoresde.storage import spec

__all__ = ["MODULE_NAME", "NETWORK_CLASS", "PREDICTION_TYPES", "network_class", "open_own"]

MODULE_NAME = "scoresde_network"
"""Module of the class in a folder of diffusers, which its pipelines import with ``trust_remote_code=True``."""

NETWORK_CLASS = "ScoresdeNetwork"
"""Name of the class there."""

PREDICTION_TYPES: dict[Parameterization, str] = {Eps(): "epsilon", X0(): "sample", V(): "v_prediction"}
"""diffusers' names of parameterizations."""


@functools.lru_cache(maxsize=1)
def network_class() -> Any:
    """The class of diffusers' models that hold a network of this package. It needs this package to be installed.

    Raises:
        ImportError: If diffusers is not installed.
    """
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.models.modeling_utils import ModelMixin
    from diffusers.models.unets.unet_2d import UNet2DOutput

    class ScoresdeNetwork(ModelMixin, ConfigMixin):
        """A network of scoresde, called with the step of a chain: ``net(x, t).sample``.

        Its target is that of the network where diffusers has a name for it, else v. A learned variance is the second
        half of the channels.
        """

        @register_to_config
        def __init__(
            self,
            net: str,
            clock: str,
            parameterization: str,
            steps: int,
            in_channels: int,
            sample_size: list[int],
            learned_variance: bool = False,
            process: str = "",
        ) -> None:
            super().__init__()
            known = spec.known_classes(scoresde.nn, scoresde.process)
            self.network = spec.parse(net, known, kind=nn.Module, stored=True)
            self.times = spec.parse(clock, known, kind=Schedule, stored=True)
            self.target = spec.parse(parameterization, known, kind=Parameterization, stored=True)

        def forward(self, sample: Tensor, timestep: Any, return_dict: bool = True, **cond: Tensor) -> Any:
            """The output at ``(x, t)``; ``t`` is a number, ``()`` or ``(B,)``."""
            t = torch.as_tensor(timestep, device=sample.device).double().expand(len(sample))
            tau = self.times.tau((t + 1.0) / self.config["steps"])
            out = self.network(sample, ou.log_snr(tau).float(), **cond)
            rest: list[Tensor] = []
            if self.config["learned_variance"]:
                out, *rest = out.unbind(-1) if out.ndim > sample.ndim else out.chunk(2, 1)
            if self.target not in PREDICTION_TYPES:
                out = GaussianPrediction(sample, tau, out, self.target).v
            out = torch.cat([out, *rest], 1)
            return UNet2DOutput(sample=out) if return_dict else (out,)

    return ScoresdeNetwork


def open_own(layout: Layout, net: nn.Module | None = None, variant: str | None = None) -> Opened:
    """The model of a folder that `scoresde.bridges.diffusers.save` wrote for a network of this package.

    Its settings are text, which is parsed, never evaluated. diffusers is not needed.

    Args:
        layout: The folder, whose network is a `ScoresdeNetwork`.
        net: The network, which gets the weights; None builds it.
        variant: Variant of the weights.

    Raises:
        FileNotFoundError: If the weights are missing.
        ValueError: If the settings or the weights do not fit.
    """
    config, known = layout.config, spec.known_classes(scoresde.nn, scoresde.process)

    def parsed(name: str, kind: type) -> Any:
        return spec.parse(str(config.get(name)), known, kind=kind, stored=True)

    network = parsed("net", nn.Module) if net is None else net
    sde = parsed("process", SDE) if config.get("process") else VPSDE(parsed("clock", Schedule))
    file, findings = weights_file(layout.network, variant)
    tensors = {name.removeprefix("network."): value for name, value in folder_weights(file).items()}
    fit(network, tensors)
    shape = (int(config["in_channels"]), *(int(size) for size in config["sample_size"]))
    target = parsed("parameterization", Parameterization)
    model = ScoreModel(network, sde, target, shape, learned_variance=bool(config.get("learned_variance"))).eval()
    found = Finding("network", type(network).__name__, "stated", "net in config.json, written by this package")
    return Opened(model, "diffusers", (found, *layout.findings, *findings))
