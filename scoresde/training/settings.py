"""Settings of a training run: numbers and objects with a text form, so that a run can be repeated from its JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer, check_kind
from scoresde._core.suggest import unknown_name
from scoresde.data import Augment
from scoresde.objective.base import Objective
from scoresde.objective.loss import Loss
from scoresde.storage.checkpoint import power_of

__all__ = ["Training"]

_LEAST = {"steps": 0, "batch_size": 1, "warmup": 0, "accumulate": 1, "patience": 1, "seed": 0}
_MOST_MINUTES = 60 * 24 * 366.0
_CHOICES = {"precision": ("no", "bf16", "fp16"), "optimizer": ("adamw", "muon")}


@dataclass(frozen=True)
class Training:
    """Everything that determines a run besides the model, its initial weights and the data.

    Args:
        steps: Updates of the weights; 0 leaves the weights unchanged.
        batch_size: Events per update, the sum over all processes and accumulated parts.
        loss: Its mean over the batch, divided by the event's size, is minimized.
        optimizer: "adamw", or "muon": orthogonal steps for the weight matrices of linear layers and convolutions, AdamW
            for the other weights (`scoresde.training.Muon`).
        lr, betas, weight_decay: Of AdamW; Muon's steps have the same scale.
        warmup: Updates over which the learning rate rises linearly from 0.
        lr_end: Learning rate of the last update as a fraction of ``lr``, reached along half a cosine; 1 keeps ``lr``.
        max_norm: Largest gradient norm (Euclidean, over all weights) after clipping. None: no clipping.
        ema: Largest decay of the EMA of the weights, see `ema_at`; None keeps no EMA.
        lengths: Relative lengths, in (0, 0.2887], of further EMAs: the standard deviation of an EMA's weights over
            past updates, as a fraction of their number (power functions of the step; 0.05 and 0.1 are usual). Two of
            them and their snapshots give an EMA of any length after training, ``load(run, average=0.07)``.
        precision: "no" (the weights' type), "bf16" or "fp16" (autocast; fp16 needs a GPU). Schedule, loss and averages
            have at least float32. Weights keep their type, float32, float64 or bfloat16; float16 is refused.
        accumulate: Parts into which each process divides its share of a batch, to save memory.
        dequantize: Add uniform noise within each bin to integer data in each update, as a density needs. False trains
            on the bins' centers, as a bound with a discretized decoder needs: then the model learns the position of a
            value in its bin.
        augment: Augments images ``(C, H, W)`` in each update, after ``dequantize``. The network takes the parameters of
            the augmentation as input, which needs ``augment=9``, as in ``UNet(..., augment=9)``. Without this input it
            samples images that are not augmented.
        condition_dropout: Probability that a condition of an event is replaced by its null, for each condition with a
            learned null and independently; or such a probability per name, ``{"text": 0.1, "label": 0.0}``, where those
            that are not named are never dropped.
        patience: Training stops after so many updates in a row with a gradient that is not finite. Each is skipped;
            they are counted every 20 updates.
        seed: Determines the order of the data and all random numbers, but not the model's initial weights.
        minutes: Wall-clock time of the run, or None. The pace is measured on updates that are undone; then the run has
            as many updates as fit, in place of ``steps``, with the warmup and EMA of `fitted`. The number is stored,
            so a resumed run keeps it.

    Raises:
        ValueError: If a setting is out of its range.

    Example:
        >>> from scoresde import ELBO, Loss, Training
        >>> settings = Training(steps=1000, loss=Loss(ELBO()), lr=2e-3, lr_end=0.0)
        >>> settings.lr_at(1000)
        0.0

    Source: AdamW by Loshchilov & Hutter 2019; EMAs of a relative length by Karras et al. 2024.
    """

    former_fields: ClassVar[tuple[str, ...]] = ("label_dropout",)
    """Fields that a stored text of an earlier version may have, see `scoresde.storage.spec.parse`."""

    steps: int = 10_000
    batch_size: int = 128
    loss: Objective = Loss()
    optimizer: str = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: int = 100
    lr_end: float = 1.0
    max_norm: float | None = 1.0
    ema: float | None = 0.999
    lengths: tuple[float, ...] = ()
    precision: str = "no"
    accumulate: int = 1
    dequantize: bool = True
    augment: Augment | None = None
    condition_dropout: float | Mapping[str, float] = field(default=0.1, hash=False)
    patience: int = 20
    seed: int = 0
    minutes: float | None = field(default=None, metadata={"write": "if set"})

    @classmethod
    def upgraded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of this version that mean the same as stored ones."""
        return {"condition_dropout" if name == "label_dropout" else name: value for name, value in settings.items()}

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            check_integer(name, getattr(self, name), least)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                raise ValueError(unknown_name(name, str(value), choices))
        check_kind("loss", self.loss, Objective)
        if not isinstance(self.dequantize, bool):
            raise TypeError(f"dequantize must be True or False, got {self.dequantize!r}.")
        if not isinstance(self.augment, Augment | None):
            raise TypeError(f"augment must be an Augment or None, got {self.augment!r}; write e.g. Augment(p=0.12).")
        check_arguments(Training, vars(self))
        for name in ("betas", "lengths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for length in self.lengths:
            power_of(length)
        self._check("lr must be positive and finite", "lr", 0 < self.lr < math.inf)
        self._check("betas must be two numbers in [0, 1)", "betas", _are_decays(self.betas))
        self._check("weight_decay must be finite and not negative", "weight_decay", 0 <= self.weight_decay < math.inf)
        self._check("lr_end must lie in [0, 1]", "lr_end", 0 <= self.lr_end <= 1)
        self._check("max_norm must be positive or None", "max_norm", self.max_norm is None or self.max_norm > 0)
        self._check("ema must lie in [0, 1) or be None", "ema", self.ema is None or 0 <= self.ema < 1)
        dropout = self.condition_dropout
        shares = dropout.values() if isinstance(dropout, Mapping) else (dropout,)
        self._check(
            "condition_dropout must lie in [0, 1)", "condition_dropout", all(0 <= share < 1 for share in shares)
        )
        if isinstance(dropout, Mapping):
            object.__setattr__(self, "condition_dropout", dict(dropout))
        if self.minutes is not None:
            object.__setattr__(self, "minutes", _checked_minutes(self.minutes))

    def _check(self, rule: str, name: str, valid: bool) -> None:
        if not valid:
            default = next(f.default for f in fields(self) if f.name == name)
            raise ValueError(f"{rule}, got {getattr(self, name)!r}; {default!r} is the default.")

    def fitted(self, steps: int) -> Training:
        """These settings for a run of another length.

        The learning rate falls over the new number of updates. The warmup takes at most a tenth of them. In a shorter
        run the EMA keeps its share: its length 1/(1 - ema) shrinks in proportion to ``steps``.

        Args:
            steps: Updates of the new run.
        """
        ema = self.ema
        if ema is not None and 0 < steps < self.steps:
            ema = max(0.0, 1.0 - (1.0 - ema) * self.steps / steps)
        return replace(self, steps=steps, warmup=min(self.warmup, steps // 10), ema=ema)

    def lr_at(self, step: int) -> float:
        """Learning rate of update ``step`` (1 is the first): linear warmup times half a cosine from 1 to ``lr_end``."""
        rise = min(1.0, step / self.warmup) if self.warmup else 1.0
        progress = min(max((step - self.warmup) / max(self.steps - self.warmup, 1), 0.0), 1.0)
        return self.lr * rise * (self.lr_end + (1.0 - self.lr_end) * 0.5 * (1.0 + math.cos(math.pi * progress)))

    def ema_at(self, updates: int) -> float:
        """Decay of the EMA after ``updates`` = n earlier ones, min(ema, (1 + n)/(10 + n)); it starts as a copy."""
        assert self.ema is not None
        return min(self.ema, (1.0 + updates) / (10.0 + updates))


def _checked_minutes(minutes: float) -> float:
    if not 0 < minutes <= _MOST_MINUTES:
        raise ValueError(
            f"minutes must lie between 0 and {_MOST_MINUTES:.0f}, a year, got {minutes!r}; write e.g. minutes=10, or "
            "give steps."
        )
    return float(minutes)


def _are_decays(betas: tuple[float, ...]) -> bool:
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
