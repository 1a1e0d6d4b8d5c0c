"""What is a training run? Numbers and objects that have a text form, so that a run can be repeated from its JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from scoresde.data import Augment
from scoresde.objective.loss import Loss
from scoresde.storage import spec
from scoresde.storage.checkpoint import power_of

__all__ = ["Training"]

_WHOLE = {"steps": 0, "batch_size": 1, "warmup": 0, "accumulate": 1, "patience": 1, "seed": 0}
_CHOICES = {"precision": ("no", "bf16", "fp16"), "optimizer": ("adamw", "muon")}


@dataclass(frozen=True)
class Training:
    """All that determines a run beside the model, its initial weights and the data.

    Args:
        steps: Updates of the weights; 0 only prepares.
        batch_size: Events per update, over all processes and accumulated parts together.
        loss: What is minimized: its mean over the batch, divided by the event's size.
        optimizer: "adamw", or "muon": that for all but matrices, the weights of linear layers and convolutions, whose
            steps are orthogonal (`scoresde.training.Muon`).
        lr, betas, weight_decay: AdamW's; Muon's steps are as long.
        warmup: Updates over which the learning rate rises linearly from 0.
        lr_end: What it falls to by the last step along half a cosine, as a fraction of ``lr``; 1 keeps it constant.
        max_norm: Longest gradient (Euclidean norm over all weights); longer ones are shortened to it. None: no limit.
        ema: Largest decay of the averaged weights, see `ema_at`; None keeps no average.
        lengths: Relative lengths, in (0, 0.2887], of more averages that are kept at once: the standard deviation of
            how they weigh the past, as a fraction of it (power functions of the step; 0.05 and 0.1 are usual). From
            two of them and their snapshots an average of any length is had afterwards, ``load(run, average=0.07)``.
        precision: "no" (the weights' own), "bf16" or "fp16" (autocast; fp16 needs a GPU). Weights, schedule and loss
            stay in full precision.
        accumulate: Parts into which each process cuts its share of a batch, to save memory.
        dequantize: Spread levels uniformly over their cells, anew in each update, as a density of them needs. False
            trains on the cells' centers, as a bound with a discretized decoder does: only then does the model learn
            where in its cell a level lies.
        augment: Change pictures ``(C, H, W)``, anew in each update and after ``dequantize``, and tell the network how,
            which needs ``augment=9``, as in ``UNet(..., augment=9)``. Told nothing, it samples pictures as they are.
        label_dropout: Probability that a label is replaced by the network's null label, where it has one.
        patience: Updates in a row with a gradient that is not finite (each is skipped) at which training stops; looked
            at every 20 updates.
        seed: Fixes data order and every random number; the initial weights are the model's.

    Raises:
        ValueError: If a setting is out of its range.

    Source: AdamW by Loshchilov & Hutter 2019; averages by their length by Karras et al. 2024.
    """

    steps: int = 10_000
    batch_size: int = 128
    loss: Loss = Loss()
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
    label_dropout: float = 0.1
    patience: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in _WHOLE.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} must be a whole number >= {low}, got {value!r}.")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"no {name} is named {value!r}; {spec.nearest(str(value), known)}")
        if not isinstance(self.loss, Loss):
            raise TypeError(f"loss must be a Loss, got {self.loss!r}; write Loss(weighting=MinSNR()), say.")
        if not isinstance(self.dequantize, bool):
            raise TypeError(f"dequantize must be True or False, got {self.dequantize!r}.")
        if not isinstance(self.augment, Augment | None):
            raise TypeError(f"augment must be an Augment or None, got {self.augment!r}; write Augment(p=0.12), say.")
        for name in ("betas", "lengths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for length in self.lengths:
            power_of(length)
        self._check("lr must be positive and finite", "lr", 0 < self.lr < math.inf)
        self._check("betas must be two numbers in [0, 1)", "betas", _two(self.betas))
        self._check("weight_decay must be finite and not negative", "weight_decay", 0 <= self.weight_decay < math.inf)
        self._check("lr_end must lie in [0, 1]", "lr_end", 0 <= self.lr_end <= 1)
        self._check("max_norm must be positive or None", "max_norm", self.max_norm is None or self.max_norm > 0)
        self._check("ema must lie in [0, 1) or be None", "ema", self.ema is None or 0 <= self.ema < 1)
        self._check("label_dropout must lie in [0, 1)", "label_dropout", 0 <= self.label_dropout < 1)

    def _check(self, rule: str, name: str, holds: bool) -> None:
        if not holds:
            default = next(f.default for f in fields(self) if f.name == name)
            raise ValueError(f"{rule}, got {getattr(self, name)!r}; {default!r} is the default.")

    def lr_at(self, step: int) -> float:
        """Learning rate of update ``step`` (1 is the first): the rise, times half a cosine from 1 to ``lr_end``."""
        rise = min(1.0, step / self.warmup) if self.warmup else 1.0
        done = min(max((step - self.warmup) / max(self.steps - self.warmup, 1), 0.0), 1.0)
        return self.lr * rise * (self.lr_end + (1.0 - self.lr_end) * 0.5 * (1.0 + math.cos(math.pi * done)))

    def ema_at(self, updates: int) -> float:
        """Decay of the average after ``updates`` = n earlier ones, min(ema, (1 + n)/(10 + n)); it begins as a copy."""
        assert self.ema is not None
        return min(self.ema, (1.0 + updates) / (10.0 + updates))


def _two(betas: tuple[float, ...]) -> bool:
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
