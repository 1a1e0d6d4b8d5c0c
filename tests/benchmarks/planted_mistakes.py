"""Twelve mistakes planted in the use of trained networks of RGB images, each with the right use beside it.

The networks are those of `emoji_networks`, in the forms that other code bases give them: of a step, of a noise level,
of a flow time. `MISTAKES` maps a name to a function that returns a `Case`; a check in ``finds`` names the mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from emoji_networks import SIGMA_DATA, held_out, trained
from torch import Tensor, nn

from scoresde import VPSDE, X0, Cosine, Data, Description, Flow, LinearBetas, ScoreModel, V, Velocity
from scoresde.adapters import FromSigma, FromStep, FromTime
from scoresde.process import StraightPath, ou

__all__ = ["MISTAKES", "Case"]

LATENT_FACTOR = 0.18215


@dataclass(frozen=True, eq=False)
class Case:
    """A mistake.

    Attributes:
        wrong, right: The model with the mistake and without.
        data: What the wrong model is verified on.
        finds: Names of checks, one of which must fail.
        right_data: What the right model is verified on, if not ``data``.
        options: Further arguments of `verify` for the wrong model.
        right_options: Those for the right one.
    """

    wrong: ScoreModel
    right: ScoreModel
    data: Data
    finds: tuple[str, ...]
    right_data: Data | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    right_options: Mapping[str, Any] = field(default_factory=dict)


def _at(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype).reshape(-1, *(1 for _ in x.shape[1:]))


class Changed(nn.Module):
    """A network of (x, log_snr) with its input, its time and its output changed by functions."""

    def __init__(
        self,
        net: nn.Module,
        x: Callable[[Tensor, Tensor], Tensor] = lambda x, s: x,
        time: Callable[[Tensor], Tensor] = lambda s: s,
        out: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda out, x, s: out,
    ) -> None:
        super().__init__()
        self.net, self.x, self.time, self.out = net, x, time, out

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.out(self.net(self.x(x, log_snr), self.time(log_snr)), x, log_snr)


class OfStep(nn.Module):
    """A network that takes the step k - 1 of its chain, as diffusers' do."""

    def __init__(self, net: nn.Module, clock: Any, steps: int = 1000) -> None:
        super().__init__()
        self.net, self.clock, self.steps = net, clock, steps

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        u = ((t.double() + 1) / self.steps).clamp(1e-9, 1.0)
        return self.net(x, ou.log_snr(self.clock.tau(u)).float())


class OfFlowTime(nn.Module):
    """A flow-matching network of (1 - t) x_0 + t eps and t that returns eps - x_0, from a network of v."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.double().clamp(1e-4, 1 - 1e-4)
        norm = ((1 - t) ** 2 + t**2).sqrt()
        alpha, sigma = (1 - t) / norm, t / norm
        state = x / _at(norm, x)
        v = self.net(state, 2 * (alpha / sigma).log().float())
        eps, x0 = _at(sigma, x) * state + _at(alpha, x) * v, _at(alpha, x) * state - _at(sigma, x) * v
        return eps - x0


class OfSigma(nn.Module):
    """EDM's raw network of c_in x̃ and a quarter of log σ̃."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return -self.net(x, -8 * level)


def _like(model: ScoreModel, net: nn.Module | None = None, **changes: Any) -> ScoreModel:
    parts = {"sde": model.sde, "parameterization": model.parameterization, "data": model.data, **changes}
    return ScoreModel(model.net if net is None else net, **parts).eval()


def _null(model: ScoreModel) -> nn.Module:
    """The class-conditional network without its condition, as a network of (x, log_snr)."""

    class Unconditional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model.net

        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return self.net(x, log_snr, label=torch.full((len(x),), 9))

    return Unconditional()


def sign() -> Case:
    right = trained("eps")
    return Case(_like(right, Changed(right.net, out=lambda out, x, s: -out)), right, held_out(), ("output",))


def swapped(name: str, stated: Any) -> Callable[[], Case]:
    def case() -> Case:
        right = trained(name)
        right = right if name == "eps" else _like(right, _null(right))
        return Case(_like(right, parameterization=stated), right, held_out(), ("output",))

    return case


def off_by_one() -> Case:
    right = trained("eps")
    clock = LinearBetas()
    net = OfStep(right.net, clock)
    make = [_like(right, FromStep(net, clock, 1000, offset=offset)) for offset in (0.0, -1.0)]
    return Case(make[0], make[1], held_out(), ("step",))


def off_by_one_earlier() -> Case:
    case = off_by_one()
    net = case.right.net.net
    assert isinstance(net, nn.Module)
    return replace(case, wrong=_like(case.right, FromStep(net, LinearBetas(), 1000, offset=-2.0)))


def linear_for_cosine() -> Case:
    trained_on_cosine = trained("class")
    net, model = OfStep(_null(trained_on_cosine), Cosine()), _like(trained_on_cosine)
    wrong = _like(model, FromStep(net, LinearBetas()), sde=VPSDE(LinearBetas(), tau_min=1e-4))
    return Case(wrong, _like(model, FromStep(net, Cosine())), held_out(), ("time",))


def cosine_for_linear() -> Case:
    right = trained("eps")
    net = OfStep(right.net, LinearBetas())
    wrong = _like(right, FromStep(net, Cosine()), sde=VPSDE(Cosine(), tau_min=1e-4))
    return Case(wrong, _like(right, FromStep(net, LinearBetas())), held_out(), ("time",))


def unit_range() -> Case:
    """Trained on [-1, 1], used with [0, 1]."""
    right = trained("eps")
    assert right.data is not None
    wrong = _like(right, data=replace(right.data, offset=0.0, scale=256.0))
    return Case(wrong, right, held_out(), ("data scale",))


def symmetric_range() -> Case:
    """Trained on [0, 1], used with [-1, 1]."""
    symmetric = trained("eps")
    assert symmetric.data is not None

    net = Changed(symmetric.net, x=_to_symmetric, time=lambda s: s - 2 * _LOG2)
    right = _like(symmetric, net, data=replace(symmetric.data, offset=0.0, scale=256.0))
    return Case(_like(symmetric, net), right, held_out(), ("data scale",))


_LOG2 = 0.6931471805599453


def _to_symmetric(x: Tensor, log_snr: Tensor) -> Tensor:
    """alpha y + sigma eps with y in [0, 1] as the state of 2 y - 1, whose noise level is twice as large."""
    wide = log_snr.double()
    alpha, other = torch.sigmoid(wide).sqrt(), torch.sigmoid(wide - 2 * _LOG2).sqrt()
    return _at(other, x) * (2 * x / _at(alpha, x) - 1)


def wrong_sigma_data(stated: float = 1.0) -> Case:
    edm = trained("edm")
    net = OfSigma(edm.net.net)  # pyright: ignore[reportArgumentType]
    make = [
        _like(edm, FromSigma(net, value, "quarter log", "negative"), parameterization=V(value))
        for value in (stated, SIGMA_DATA)
    ]
    return Case(make[0], make[1], held_out(), ("sigma_data", "output", "state"))


def raw_weights() -> Case:
    averaged, raw = trained("eps"), trained("eps", raw=True)
    options = {"others": {"averaged weights": averaged}}
    right = {"others": {"raw weights": raw}}
    return Case(raw, averaged, held_out(), ("weights",), options=options, right_options=right)


def channel_order() -> Case:
    right, data = trained("eps"), held_out()
    flipped = replace(data, test=data.test.flip(1))
    return Case(right, right, flipped, ("channel order",), right_data=data)


def vp_for_ve() -> Case:
    """A network of x̃ = x / alpha that gets x."""
    edm = trained("edm")

    def expects_exploding(x: Tensor, log_snr: Tensor) -> Tensor:
        return x * _at(torch.sigmoid(log_snr).sqrt(), x)

    net = Changed(edm.net, x=expects_exploding)
    right = _like(edm, Changed(net, x=lambda x, s: x / _at(torch.sigmoid(s).sqrt(), x)))
    return Case(_like(edm, net), right, held_out(), ("state",))


def ve_for_vp() -> Case:
    """A network of x that gets x̃ = x / alpha."""
    right = trained("eps")

    class Of(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = right.net

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return self.net(x, -2 * sigma.log())

    return Case(_like(right, FromSigma(Of())), right, held_out(), ("state",))


def transposed_images() -> Case:
    right, data = trained("eps"), held_out()
    turned = replace(data, test=data.test.transpose(2, 3).contiguous())
    return Case(right, right, turned, ("orientation",), right_data=data)


def transposed_labels() -> Case:
    """Two pairs of classes swapped, as another order of their names does."""
    right, data = trained("class"), held_out()
    codes = torch.tensor([3, 4, 2, 0, 1, 5, 6, 8, 7])
    wrong = replace(data, test_cond={"label": codes[data.test_cond["label"]]})
    return Case(right, right, wrong, ("condition label",), right_data=data)


def missing_scaling_factor() -> Case:
    model, images = trained("eps"), held_out()
    assert model.data is not None
    latents = model.data.to_model(model.data.center(images.test)) / LATENT_FACTOR
    about = [Description("latents", (3, 16, 16), scale=scale) for scale in (1.0, 1 / LATENT_FACTOR)]
    data = [Data(latents[:0], latents, description) for description in about]
    models = [_like(model, data=description) for description in about]
    return Case(models[0], models[1], data[0], ("data scale",), right_data=data[1])


def shifted_flow_time(shift: float = 3.0) -> Case:
    v = trained("class")
    net = OfFlowTime(_null(v))

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.net(x, shift * t / (1 + (shift - 1) * t))

    flow = Flow(StraightPath(), tau_min=1e-4)
    make = [_like(v, FromTime(n, flow), sde=flow, parameterization=Velocity()) for n in (Shifted(), net)]
    return Case(make[0], make[1], held_out(), ("time",))


MISTAKES: dict[str, Callable[[], Case]] = {
    "sign flipped": sign,
    "eps read as v": swapped("eps", V()),
    "eps read as x_0": swapped("eps", X0()),
    "v read as x_0": swapped("class", X0()),
    "step too late by one": off_by_one,
    "step too early by one": off_by_one_earlier,
    "linear for cosine betas": linear_for_cosine,
    "cosine for linear betas": cosine_for_linear,
    "[0, 1] for [-1, 1]": unit_range,
    "[-1, 1] for [0, 1]": symmetric_range,
    "wrong sigma_data": wrong_sigma_data,
    "averaged weights not applied": raw_weights,
    "channel order": channel_order,
    "VE for VP": ve_for_vp,
    "VP for VE": vp_for_ve,
    "transposed images": transposed_images,
    "transposed labels": transposed_labels,
    "missing scaling_factor": missing_scaling_factor,
    "shifted flow time": shifted_flow_time,
}
