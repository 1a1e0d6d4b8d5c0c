r"""How are the weights moved? Update k: gradient of the loss on batch k, clipped; AdamW; the averaged weights follow.

Nothing in a step waits for the device: losses are summed there and read now and then, and an update whose gradient is
not finite is skipped there. (fp16 alone waits, once per step, so that a step whose gradient overflowed is repeated.)
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from scoresde.data import Data
from scoresde.model import ScoreModel, event_size
from scoresde.training.batches import Batches
from scoresde.training.settings import Training

__all__ = ["Average", "Run", "Tally"]


@dataclass(frozen=True)
class Tally:
    """Updates since the last point of the history.

    Attributes:
        total: Sum of their losses per dimension.
        count: How many are in it.
        skipped: How many in a row were skipped, up to the last.
    """

    total: float = 0.0
    count: float = 0
    skipped: int = 0

    def after(self, loss: float, norm: float) -> Tally:
        """With one more update, which was skipped if its gradient's ``norm`` is not finite."""
        if not math.isfinite(norm):
            return replace(self, skipped=self.skipped + 1)
        return Tally(self.total + loss, self.count + 1)

    @property
    def mean(self) -> float:
        """Mean loss per dimension; NaN of none."""
        return self.total / self.count if self.count else math.nan


class Average:
    """Averaged weights: a copy of the network that follows it; frozen and tied weights are, buffers are copied.

    `AveragedModel.update_parameters` would wait for the device in each call, and take 20 times as long on small
    networks; here torch's averaging function runs over lists that are made once.

    Args:
        net: What to average. The copy is in evaluation mode.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net: nn.Module = AveragedModel(net).module.eval()
        self.follow(net)

    def follow(self, net: nn.Module) -> None:
        """Averages the weights of ``net`` from now on: to be called again when they were moved."""
        self._weights = [p.detach() for p in self.net.parameters()], [p.detach() for p in net.parameters()]
        self._buffers = list(zip(self.net.buffers(), net.buffers(), strict=True))

    def update(self, decay: float) -> None:
        """average = decay * average + (1 - decay) * weights."""
        get_ema_multi_avg_fn(decay)(*self._weights, 0)
        for own, new in self._buffers:
            own.copy_(new)


class Run:
    """A training run between two updates: all that changes while it goes on.

    Args:
        model: Moved to the accelerator's device.
        data: See `scoresde.training.train`.
        settings: Of the run.
        accelerator: Device, processes, precision.

    Attributes:
        step: Updates done.
        tally: What became of the updates, as of the last `look`.
        history: (step, mean loss per dimension since the point before).
        averaged: The model with the averaged weights, or the model itself where none are kept.

    Raises:
        ValueError: If the data do not fit, or no weight requires a gradient.
    """

    def __init__(self, model: ScoreModel, data: Data | Tensor, settings: Training, accelerator: Accelerator) -> None:
        self.weights = [p for p in model.parameters() if p.requires_grad]
        if not self.weights:
            raise ValueError("a model to train must have weights that require a gradient, got none; unfreeze some.")
        self.model, self.settings, self.accelerator = model, settings, accelerator
        self.shards = settings.accumulate * accelerator.num_processes
        self.batches = Batches(model, data, settings, accelerator.device, self.shards)
        model.to(accelerator.device)
        self.average = None if settings.ema is None else Average(model.net)
        self.averaged = model if self.average is None else _with_net(model, self.average.net)
        self.optimizer = torch.optim.AdamW(
            self.weights, settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True
        )
        self.step = 0
        self.tally = Tally()
        self._unread: list[Tensor] = []
        self.history: list[tuple[int, float]] = []
        self._working = model

    def start(self) -> None:
        """Training mode, no old gradients, and a network that exchanges gradients where there are several processes."""
        self.model.train()
        self.optimizer.zero_grad()
        if self.accelerator.num_processes > 1:
            self._working = _with_net(self.model, self.accelerator.prepare_model(self.model.net))
        if self.average is not None:
            self.average.follow(self.model.net)

    def stop(self) -> None:
        """Evaluation mode, and the network as it was given."""
        if self._working is not self.model:
            self.accelerator.unwrap_model(self._working.net, keep_fp32_wrapper=False)
        self.optimizer.zero_grad()
        self.model.eval()
        self.averaged.eval()

    def advance(self) -> None:
        """One update. With fp16, none if the gradient overflowed: the scale falls and the same step comes again."""
        settings, scaler = self.settings, self.accelerator.scaler
        loss = self._gradient()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = torch.as_tensor(self.accelerator.clip_grad_norm_(self.weights, settings.max_norm or math.inf))
        good = torch.isfinite(norm)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(self.step + 1)
        if scaler is not None:
            scaler.step(self.optimizer)
            scaler.update()
        else:  # GradScaler's protocol with optimisers: they skip what is not finite, without a word to the host
            self.optimizer.found_inf = (~good).float()  # pyright: ignore[reportAttributeAccessIssue]
            self.optimizer.step()
        self.optimizer.zero_grad()
        self._unread.append(torch.stack([loss, norm]))
        if scaler is None or bool(good):
            if self.average is not None:
                self.average.update(settings.ema_at(self.step))
            self.step += 1

    def _gradient(self) -> Tensor:
        """Accumulates the gradient of the mean loss over this process's shards of the step; returns that loss."""
        settings, accelerator = self.settings, self.accelerator
        losses = []
        for part in range(settings.accumulate):
            x0, cond = self.batches.draw(self.step, part * accelerator.num_processes + accelerator.process_index)
            last = part == settings.accumulate - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self._working.net):
                with contextlib.nullcontext() if settings.precision == "no" else accelerator.autocast():
                    each = settings.loss(self._working, x0, **cond)
                loss = each.mean() / (event_size(x0) * settings.accumulate)
                (loss if accelerator.scaler is None else accelerator.scaler.scale(loss)).backward()
            losses.append(loss.detach().float())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def look(self) -> Tally:
        """Reads losses and gradient norms of the updates since the last look: waits for the device."""
        if self._unread:
            for loss, norm in torch.stack(self._unread).tolist():
                self.tally = self.tally.after(loss, norm)
            self._unread.clear()
        return self.tally

    def check(self, kept: Path | None) -> None:
        """Looks whether the gradients of the last updates were finite.

        Args:
            kept: The newest checkpoint, for the message.

        Raises:
            RuntimeError: If the last ``patience`` of them were not.
        """
        skipped = self.look().skipped
        if skipped >= self.settings.patience:
            first = self.step + 1 if self.accelerator.scaler is not None else self.step - skipped + 1
            raise RuntimeError(
                f"gradients must be finite, got {skipped} in a row that are not, from update {first} on (lr "
                f"{self.settings.lr_at(first):.3g}); these updates were skipped; the newest checkpoint is {kept}. "
                "Lower lr, raise warmup, or look at the network and the loss's weighting."
            )

    def note(self) -> None:
        """Adds a point to the history, over all processes, which must all do so, and begins the next mean."""
        tally = self.look()
        if self.accelerator.num_processes > 1:
            sums = torch.tensor([tally.total, tally.count], dtype=torch.float32, device=self.accelerator.device)
            total, count = torch.as_tensor(self.accelerator.reduce(sums, "sum")).tolist()
            tally = Tally(total, count)
        self.history.append((self.step, tally.mean))
        self.tally = replace(self.tally, total=0.0, count=0)


def _with_net(model: ScoreModel, net: nn.Module) -> ScoreModel:
    return ScoreModel(net, model.sde, model.parameterization, model.event_shape, model.data, model.learned_variance)
