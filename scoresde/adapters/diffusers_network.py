"""`DiffusersNetwork`: a network of diffusers, built from its configuration and called as `net(x, t, **cond)`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_kind
from scoresde._core.foreign_networks import inner_network
from scoresde._core.suggest import nearest
from scoresde.adapters._diffusers_config import Config, built, event_shape_of, parsed
from scoresde.nn.conditions import Classes, Condition, Tokens, Vector

__all__ = ["DiffusersNetwork"]


@dataclass(eq=False, repr=False)
class DiffusersNetwork(nn.Module):
    """A network of diffusers with the conditions ``label``, ``text``, ``pooled``, ``size`` and ``guidance``.

    It is stored as the name of its class and its configuration, so a model around it is rebuilt by `sd.load` where
    diffusers is installed. Only the classes that this module names are ever built.

    | condition | is | of |
    |---|---|---|
    | ``label`` | ``class_labels``, ``(B,)`` integers | UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel |
    | ``text`` | ``encoder_hidden_states``, ``(B, n, size)`` | UNet2DConditionModel, SD3, Flux and PixArt transformers |
    | ``pooled`` | pooled embedding of the prompt, ``(B, size)`` | SDXL's UNet2DConditionModel, SD3, Flux |
    | ``size`` | SDXL's ``time_ids``, ``(B, 6)`` | SDXL's UNet2DConditionModel |
    | ``guidance`` | distilled guidance scale, ``(B, 1)`` | Flux with ``guidance_embeds``, LCM's UNet2DConditionModel |
    | ``resolution``, ``aspect_ratio`` | ``(B, 2)`` and ``(B, 1)`` | PixArt for 1024 pixels |

    Flux's latents enter unpacked, ``(B, 16, h, w)``. There is no attention mask: pass prompts without padding where the
    pipeline masks it.

    Args:
        class_name: Name of the class, e.g. ``"UNet2DModel"``.
        config: Text of its ``config.json``.
        module: The network, if it is already built.

    Attributes:
        event_shape: ``(channels, height, width)`` that the configuration states; None if it states no size.
        conditions: The conditions that the network reads; each must be given.

    Raises:
        ImportError: If diffusers is not installed and ``module`` is not given.
        ValueError: If the class is not one of these, or the configuration is not a JSON object.

    Source: diffusers' ``forward`` of each class (version 0.42).
    """

    class_name: str
    config: str
    module: InitVar[nn.Module | None] = None

    def __post_init__(self, module: nn.Module | None) -> None:
        super().__init__()
        if self.class_name not in _CLASSES:
            raise ValueError(
                f"no network of diffusers is known as {self.class_name!r}; {nearest(str(self.class_name), _CLASSES)}"
            )
        config = parsed(self.config)
        if module is not None:
            check_kind("module", module, nn.Module)
        self.net = built(self.class_name, config) if module is None else module
        conditions, call = _CLASSES[self.class_name]
        self.conditions: Mapping[str, Condition] = conditions(config)
        self._call, self.event_shape = call, event_shape_of(config)

    @classmethod
    def around(cls, module: nn.Module) -> DiffusersNetwork:
        """A network that is already built, e.g. ``pipeline.unet``.

        Args:
            module: Of one of the known classes of diffusers, or compiled; its ``config`` is read.

        Raises:
            ValueError: If its class is not known.
        """
        inner = inner_network(module)
        config = {name: value for name, value in dict(getattr(inner, "config", {})).items() if name[0] != "_"}
        return cls(type(inner).__name__, json.dumps(config, sort_keys=True), module)

    @staticmethod
    def knows(module: object) -> bool:
        """Whether ``module`` is a network of a known class of diffusers."""
        inner = inner_network(module)
        return type(inner).__name__ in _CLASSES and hasattr(inner, "config")

    @property
    def time_is_integer(self) -> bool:
        """Whether the timestep is an index of a table, so that it must be an integer."""
        return parsed(self.config).get("time_embedding_type") == "learned"

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """The output of the network.

        Args:
            x: State as the network takes it, ``(B, C, h, w)``.
            t: Timestep, or noise level, as the network takes it, ``(B,)``.
            **cond: Its conditions, one entry per sample.

        Returns:
            ``(B, C, h, w)``, or twice the channels with a learned variance.

        Raises:
            ValueError: If a condition is missing, or has another shape.
        """
        for name, condition in self.conditions.items():
            if name not in cond:
                raise ValueError(f"{self.class_name} needs the condition {name}: {condition}; pass {name}=….")
            condition.check(name, cond[name], len(x), tuple(x.shape[1:]))
        cond = {k: v.to(x.dtype) if v.is_floating_point() else v for k, v in cond.items()}
        return self._call(self.net, x, t, **cond)


# --- the classes: their conditions, and their call --------------------------------------------------------------------


def _label(config: Config) -> dict[str, Condition]:
    count = config.get("num_class_embeds")
    if kind := config.get("class_embed_type"):
        raise ValueError(
            f"classes must enter through an embedding of num_class_embeds, got class_embed_type = {kind!r}, which is "
            "not supported; use the network through its own package."
        )
    return {} if count is None else {"label": Classes(count, null=False)}


def _unet_inputs(config: Config) -> dict[str, Condition]:
    width = config.get("cross_attention_dim", 1280)
    if not isinstance(width, int) or config.get("encoder_hid_dim_type"):
        raise ValueError("a UNet2DConditionModel must attend to the tokens of one text encoder, without projections.")
    added, conditions = config.get("addition_embed_type"), {"text": Tokens(width, null=False), **_label(config)}
    if config.get("time_cond_proj_dim"):
        conditions["guidance"] = Vector(1, null=False)
    if added is None:
        return conditions
    if added != "text_time":
        raise ValueError(f"of addition_embed_type only 'text_time' (SDXL) is supported, got {added!r}.")
    pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    return {**conditions, "pooled": Vector(pooled, null=False), "size": Vector(6, null=False)}


def _dit_inputs(config: Config) -> dict[str, Condition]:
    return {"label": Classes(config.get("num_embeds_ada_norm") or 1000, null=True)}


def _sd3_inputs(config: Config) -> dict[str, Condition]:
    text, pooled = config.get("joint_attention_dim", 4096), config.get("pooled_projection_dim", 2048)
    return {"text": Tokens(text, null=False), "pooled": Vector(pooled, null=False)}


def _flux_inputs(config: Config) -> dict[str, Condition]:
    text, pooled = config.get("joint_attention_dim", 4096), config.get("pooled_projection_dim", 768)
    scale = {"guidance": Vector(1, null=False)} if config.get("guidance_embeds") else {}
    return {"text": Tokens(text, null=False), "pooled": Vector(pooled, null=False), **scale}


def _pixart_inputs(config: Config) -> dict[str, Condition]:
    text: dict[str, Condition] = {"text": Tokens(config.get("caption_channels") or 4096, null=False)}
    added = config.get("use_additional_conditions")
    if not (config.get("sample_size") == 128 if added is None else added):
        return text
    return {**text, "resolution": Vector(2, null=False), "aspect_ratio": Vector(1, null=False)}


def _unet(net: nn.Module, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    return net(x, t, class_labels=label, return_dict=False)[0]


def _unet_with_text(net: nn.Module, x: Tensor, t: Tensor, text: Tensor, **cond: Tensor) -> Tensor:
    added = {"text_embeds": cond["pooled"], "time_ids": cond["size"]} if "pooled" in cond else None
    scale = _guidance(net, cond["guidance"]) if "guidance" in cond else None
    return net(
        x,
        t,
        text,
        class_labels=cond.get("label"),
        timestep_cond=scale,
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


def _guidance(net: nn.Module, scale: Tensor) -> Tensor:
    """Sines and cosines of the guidance scale w less 1, in thousandths, as LCM's networks take it."""
    size = int(net.config.time_cond_proj_dim)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    places = torch.arange(size // 2, device=scale.device, dtype=torch.float32)
    rates = torch.exp(places * (-math.log(10000.0) / (size // 2 - 1)))  # float32, as their networks were trained
    angles = 1000 * (scale.float() - 1) * rates
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, size % 2)).to(scale.dtype)


def _sd3(net: nn.Module, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
    return net(x, text, pooled, t, return_dict=False)[0]


def _flux(net: nn.Module, x: Tensor, t: Tensor, text: Tensor, pooled: Tensor, guidance: Tensor | None = None) -> Tensor:
    """Packs patches of 2×2 latents into tokens, as Flux's pipeline does, and unpacks the output."""
    batch, channels, height, width = x.shape
    rows, columns = height // 2, width // 2
    tokens = (
        x.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
    )
    positions = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
    image_ids = torch.nn.functional.pad(positions.reshape(-1, 2), (1, 0)).to(x)
    out = net(
        tokens,
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=t / 1000,
        img_ids=image_ids,
        txt_ids=x.new_zeros(text.shape[1], 3),
        guidance=None if guidance is None else guidance.squeeze(1),
        return_dict=False,
    )[0]
    return out.reshape(batch, rows, columns, -1, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, height, width)


def _pixart(net: nn.Module, x: Tensor, t: Tensor, text: Tensor, **size: Tensor) -> Tensor:
    added = {name: size.get(name) for name in ("resolution", "aspect_ratio")}
    return net(x, encoder_hidden_states=text, timestep=t, added_cond_kwargs=added, return_dict=False)[0]


_CLASSES: dict[str, tuple[Callable[[Config], dict[str, Condition]], Callable[..., Tensor]]] = {
    "UNet2DModel": (_label, _unet),
    "UNet2DConditionModel": (_unet_inputs, _unet_with_text),
    "DiTTransformer2DModel": (_dit_inputs, _unet),
    "SD3Transformer2DModel": (_sd3_inputs, _sd3),
    "FluxTransformer2DModel": (_flux_inputs, _flux),
    "PixArtTransformer2DModel": (_pixart_inputs, _pixart),
}
