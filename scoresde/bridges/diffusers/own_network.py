r"""A network of this package as a model of diffusers: called with DDPM's step, $t = K u - 1$, instead of log-SNR."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

import scoresde.nn
import scoresde.process
from scoresde.process import X0, Eps, Parameterization, Schedule, V, ou
from scoresde.process.parameterization import Prediction
from scoresde.storage import spec

__all__ = ["MODULE_NAME", "NETWORK_CLASS", "PREDICTION_TYPES", "network_class"]

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
                out = Prediction(sample, tau, out, self.target).v
            out = torch.cat([out, *rest], 1)
            return UNet2DOutput(sample=out) if return_dict else (out,)

    return ScoresdeNetwork
