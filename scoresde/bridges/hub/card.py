"""Model cards: what a model was trained on, how good it is and how to sample it, as Markdown for the Hub."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

import scoresde.sampling
from scoresde._core.annotations import check_arguments
from scoresde.adapters import Adapter
from scoresde.model import ScoreModel, check_model
from scoresde.sampling import Adams, Sampler
from scoresde.storage import spec

__all__ = ["model_card"]


def model_card(
    model: ScoreModel,
    name: str,
    *,
    bits_per_dim: float | None = None,
    bits_error: float | None = None,
    sampler: Sampler = Adams(20),
    license: str | None = None,
    tags: Sequence[str] = (),
    about: str = "",
    repo: str | None = None,
    calibrated: Sequence[str] = (),
) -> str:
    """The model card of a model.

    Args:
        model: The model; its description of the data is stated.
        name: Its name.
        bits_per_dim: Bits per dimension on test data; None if it was not measured.
        bits_error: Its standard error; None if unknown, which the card says.
        sampler: The recommended sampler.
        license: Identifier of the Hub, e.g. ``"mit"``; None states none.
        tags: Further tags.
        about: A paragraph of your own.
        repo: What `from_pretrained` takes; default ``name``.
        calibrated: Samplers whose fitted versions are stored with the model, as text.

    Returns:
        Markdown with a YAML header, as the Hub reads it.

    Raises:
        TypeError: If ``model`` is not a `ScoreModel`, or the sampler has no text form.
        ValueError: If ``bits_error`` is given without ``bits_per_dim`` or is negative, or a number is not finite.
    """
    check_model(model)
    if not isinstance(model, ScoreModel):
        raise TypeError(f"model must be a ScoreModel, got a {type(model).__name__}; pass the one inside it.")
    check_arguments(model_card, locals())
    if bits_error is not None and bits_per_dim is None:
        raise ValueError("bits_error is the error of bits_per_dim, which is missing; pass both.")
    for key, value in {"bits_per_dim": bits_per_dim, "bits_error": bits_error}.items():
        if value is not None and (not math.isfinite(value) or (key == "bits_error" and value < 0)):
            raise ValueError(
                f"{key} must be finite{' and not negative' if key == 'bits_error' else ''}, got {value!r}."
            )
    spec.to_text(sampler)  # raises for a sampler that cannot be written as text
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, autoescape=False
    )
    return environment.get_template("model_card.md.j2").render(
        name=_line(name),
        repo=_line(repo or name),
        data=_data(model),
        network=_network(model),
        parameters=f"{sum(p.numel() for p in model.net.parameters()):,}",
        process=spec.to_text(model.sde) if len(spec.to_text(model.sde)) < 200 else repr(model.sde),
        parameterization=spec.to_text(model.parameterization),
        bits_per_dim=bits_per_dim,
        bits_error=bits_error,
        call=_code(sampler),
        license=license,
        tags=[_line(tag) for tag in tags],
        about=about.strip(),
        calibrated=[f"`{entry}`" for entry in calibrated],
    )


def _network(model: ScoreModel) -> str:
    """The class of the network, within its adapter if it has one; of a stored network of diffusers its own class."""
    net = model.net
    if not isinstance(net, Adapter):
        return type(net).__name__
    return f"{type(net).__name__} around {getattr(net.net, 'class_name', type(net.net).__name__)}"


def _data(model: ScoreModel) -> dict[str, Any]:
    description = model.data
    if description is None:
        return {"stated": False, "name": "unnamed data", "shape": model.event_shape, "conditions": []}
    numbers = f"integers in [0, {description.bins})" if description.bins else "real numbers"
    return {
        "stated": True,
        "name": _line(description.name),
        "shape": description.shape,
        "numbers": numbers,
        "offset": _short(description.offset),
        "scale": _short(description.scale),
        "conditions": [f"{name}: `{kind}`" for name, kind in description.conditions.items()],
    }


def _code(value: object) -> str:
    """A setting as Python code after ``import scoresde as sd``, without what equals its default."""
    if isinstance(value, (list, tuple)):
        return f"({''.join(f'{_code(entry)}, ' for entry in value)})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    name = type(value).__name__
    package = "sd" if name in scoresde.__all__ else f"sd.{type(value).__module__.split('.')[1]}"
    changed = [
        f"{field.name}={_code(entry)}"
        for field in dataclasses.fields(value)
        if field.init and ((entry := getattr(value, field.name)) != _default(field) or field.name == "steps")
    ]
    return f"{package}.{name}({', '.join(changed)})"


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default_factory() if callable(field.default_factory) else field.default


def _short(number: object) -> str:
    """A number; of a table's columns only that there is one for each."""
    return f"{number:g}" if isinstance(number, (int, float)) else "(one number for each column or channel)"


def _line(text: str) -> str:
    """Text without line breaks and table separators."""
    return re.sub(r"[\s|`]+", " ", text).strip()
