"""Settings that networks of earlier versions have in stored texts: `num_classes` and `null_class`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scoresde.nn.conditions import Classes

__all__ = ["FormerClasses"]


class FormerClasses:
    """Base of networks whose former settings `num_classes` and `null_class` are now the condition ``label``."""

    former_fields: ClassVar[tuple[str, ...]] = ("num_classes", "null_class")
    """Fields that a stored text may have, see `scoresde.storage.spec.parse`."""

    @classmethod
    def upgraded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of this version that mean the same as stored ones."""
        rest = {name: value for name, value in settings.items() if name not in cls.former_fields}
        count = settings.get("num_classes")
        if count is None:
            return rest
        return {**rest, "conditions": {"label": Classes(count, bool(settings.get("null_class", False)))}}
