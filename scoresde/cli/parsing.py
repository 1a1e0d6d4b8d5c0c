"""Text to objects: classes of the package, and of the user's own modules, by name; parsed and never evaluated.

`scoresde.storage.spec` reads the text. A class is known if one of the package's modules, or a module named by
``--import``, exports it as a concrete dataclass.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from scoresde.storage import spec

__all__ = ["check_names", "families", "import_modules", "known", "network_classes", "parse", "parse_network"]

_T = TypeVar("_T")
Modules = Sequence[types.ModuleType]


def families() -> dict[str, type]:
    """Option, or field of an option's object, to the base class of what may be written there."""
    from torch import nn

    from scoresde import data, guidance, inverse, likelihood, sampling
    from scoresde.nn.conditions import Condition
    from scoresde.objective import base as objective
    from scoresde.objective import timesteps, weighting
    from scoresde.process import base as process
    from scoresde.process import parameterization, schedule

    return {
        "--sampler": sampling.Sampler,
        "  grid=": sampling.Grid,
        "--loss": objective.Objective,
        "--weighting": weighting.Weighting,
        "--timesteps": timesteps.Timesteps,
        "--schedule": schedule.Schedule,
        "--process": process.Process,
        "--parameterization": parameterization.NetworkOutput,
        "--network": nn.Module,
        "  conditions=": Condition,
        "--augment": data.Augment,
        "--trace": likelihood.Trace,
        "--dequantization": likelihood.Dequantization,
        "--method": guidance.PosteriorMethod,
        "  or": inverse.PosteriorSampler,
        "  twist=": inverse.Twist,
    }


def import_modules(names: Sequence[str], networks: bool = False) -> tuple[types.ModuleType, ...]:
    """The user's own modules, named by ``--import``; importing a module runs its code.

    Args:
        names: Dotted names of the modules.
        networks: Whether a module may also have networks that are no dataclasses.

    Raises:
        ValueError: If a name is not a dotted module name, the module fails while it is imported, or it exports no
            class that an option takes.
        ModuleNotFoundError: If Python does not find a module.
    """
    return tuple(_import(name, networks) for name in dict.fromkeys(names))


def _import(name: str, networks: bool) -> types.ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"--import takes a dotted module name, such as mypackage.samplers, got {name!r}.")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"--import {name} failed: {error}; install what the module needs.") from error
        raise ModuleNotFoundError(
            f"--import {name}: Python finds no module {error.name!r}; install its package, or add its folder to "
            "PYTHONPATH."
        ) from error
    except Exception as error:
        raise ValueError(f"--import {name} failed with {type(error).__name__}: {error}; repair the module.") from error
    if not _own_classes(module) and not (networks and network_classes(module)):
        bases = ", ".join(sorted(base.__name__ for base in families().values()))
        raise ValueError(
            f"--import {name}: the module has no class that an option takes; make it a public @dataclass that inherits "
            f"from one of {bases}."
        )
    return module


def network_classes(*modules: types.ModuleType) -> dict[str, type]:
    """Name to class of the public networks of modules, dataclasses or not, that are not torch's or the package's own.

    Args:
        *modules: The user's.
    """
    from torch import nn

    found: dict[str, type] = {}
    for module in modules:
        for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
            cls = getattr(module, name)
            if isinstance(cls, type) and issubclass(cls, nn.Module) and cls.__module__.partition(".")[0] != "torch":
                found |= {} if cls.__module__.startswith("scoresde.") else {name: cls}
    return found


def _own_classes(module: types.ModuleType) -> list[type]:
    """The classes of a module that an option takes, and that are not the package's own."""
    classes = [cls for cls in spec.known_classes(module).values() if isinstance(cls, type)]
    bases = tuple(families().values())
    return [cls for cls in classes if issubclass(cls, bases) and not cls.__module__.startswith("scoresde.")]


def _package_modules(kind: type | None) -> tuple[types.ModuleType, ...]:
    from scoresde import adapters, data, nn, objective, process, sampling

    modules = sampling, objective, process, nn, adapters, data
    others = ("scoresde.likelihood.", "scoresde.guidance.", "scoresde.inverse.")
    if kind is not None and not kind.__module__.startswith(others):
        return modules  # these objects occur in options of their own only, and importing them takes time
    from scoresde import guidance, inverse, likelihood

    return *modules, likelihood, guidance, inverse


def known(kind: type | None = None, modules: Modules = ()) -> spec.Known:
    """Classes by name.

    Args:
        kind: Base class; None takes every class. `torch.nn.Module` takes complete networks only, not their layers.
        modules: The user's own modules, in addition to the package's.
    """
    from torch import nn

    classes = spec.known_classes(*_package_modules(kind), *modules, kind=kind)
    if kind is not nn.Module:
        return classes
    return {name: entry for name, entry in classes.items() if isinstance(entry, type) and _is_network(entry)}


def _is_network(cls: type) -> bool:
    return hasattr(cls, "event_shape") or "event_shape" in {f.name for f in dataclasses.fields(cls)}


def parse(text: str, kind: type[_T], modules: Modules = ()) -> _T:
    """The object that ``text`` writes.

    Args:
        text: As in Python, e.g. ``MinSNR(gamma=5)``; a bare name takes the defaults.
        kind: Its base class.
        modules: The user's own modules, whose classes may be named.

    Raises:
        ValueError, TypeError: If the text is not a call of a class of that kind; the error names the nearest class.
    """
    return spec.parse(text, spec.known_classes(*_package_modules(kind), *modules), kind=kind)


def check_names(text: str | None, kind: type, modules: Modules = ()) -> None:
    """Refuses the text of an object whose outermost class is unknown, before data are loaded to build it.

    Raises:
        ValueError: If no such class is known; the error names the nearest one.
    """
    match = None if text is None else re.match(r"\s*([^\W\d]\w*)\s*(?:\(|$)", text)
    if match and match[1] not in known(kind, modules):
        parse(match[1], kind, modules)


def parse_network(
    text: str,
    shape: tuple[int, ...],
    modules: Modules = (),
    conditions: Mapping[str, Any] | None = None,
    classes: int | None = None,
    mask: bool = False,
    codes: tuple[int, ...] = (),
) -> Any:
    """A network; an ``event_shape`` that is left out, also in a network inside it, is the data's.

    For categories a network of this package, such as ``DiT(patch=1)``, is put into a `CategoricalNet` unless it is one;
    for a table with codes into a `MixedNet`.

    Args:
        text: As in Python, e.g. ``MLP(width=128)``, ``QuantizedSkip(UNet())``.
        shape: Of the data's events.
        modules: The user's own modules, whose classes may be named.
        conditions: What a network reads whose text states no ``conditions``; None or empty leaves its default.
        classes: Number of classes of categories, or None.
        mask: Whether their process has a mask.
        codes: Number of classes of each code of a table, whose last entries they are.
    """
    from torch import nn

    from scoresde.nn import CategoricalNet, MixedNet

    missing: dict[str, Any] = {"event_shape": shape, **({"conditions": conditions} if conditions else {})}
    if classes is None and not codes:
        return spec.parse(text, known(modules=modules), kind=nn.Module, missing=missing)
    wrapper: Any = MixedNet if codes else CategoricalNet
    events = (
        {"numbers": shape[0] - len(codes), "classes": codes} if codes else {"event_shape": shape, "classes": classes}
    )
    settings = {**events, "mask": mask}
    missing["event_shape"] = wrapper.inner_shape(**settings)
    missing |= {f"{wrapper.__name__}.{name}": value for name, value in settings.items()}
    network = spec.parse(text, known(modules=modules), kind=nn.Module, missing=missing)
    own = type(network).__module__.startswith("scoresde.") and not isinstance(network, wrapper)
    return wrapper(network, **settings) if own else network
