"""Groups of options: a command takes a frozen dataclass, whose fields are options that other commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

__all__ = ["with_groups"]


def with_groups(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with each field of its groups as an option of its own, in the place of the group.

    Args:
        command: A function. A parameter that is annotated with a dataclass is a group: its fields are annotated as
            ``Annotated[kind, typer.Option(…)]`` and have defaults. All other parameters are options or arguments.

    Raises:
        TypeError: If two options have one name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _options(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
    names = [parameter.name for parameter in parameters]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise TypeError(f"options need names of their own, {command.__name__} repeats {', '.join(sorted(repeated))}.")

    @functools.wraps(command)
    def flat(**given: Any) -> Any:
        built = {name: kind(**{f.name: given.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        return command(**given, **built)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(f.name, kind, default=_default(f), annotation=hints[f.name]) for f in fields(group)]


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
