r"""How are the weights moved? Update k: gradient of the loss on batch k, clipped; AdamW; the averaged weights follow.

Nothing in a step waits for the device: losses are summed there and read now and then, and an update whose gradient is
not finite is skipped there. (fp16 alone waits, once per step, so that a step whose gradient overflowed is repeated.)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from scoresde._core.tensors import widest_dtype
from scoresde.data import Data
from scoresde.model import ScoreModel, event_size
from scoresde.storage.checkpoint import power_decay, power_of
from scoresde.training.adaptive_timesteps import AdaptiveTimestepState
from scoresde.training.batches import Batches
from scoresde.training.ema import EMA
from scoresde.training.muon import Muon, matrices
from scoresde.training.processes import gathered, in_pieces
from scoresde.training.running_mean import RunningMeans
from scoresde.training.settings import Training

if TYPE_CHECKING:
    from scoresde.training.sharding import ShardedParameters

__all__ = ["TrainingState"]


class TrainingState:
    """A training run between two updates: all that changes while it goes on.

    Args:
        model: Moved to the accelerator's device; a network that is trained in pieces stays on the CPU as a whole.
        data: See `scoresde.training.train`.
        settings: Of the run.
        accelerator: Device, processes, precision.

    Attributes:
        step: Updates done.
        tally: What became of the updates, as of the last `look`.
        history: (step, mean loss per dimension since the point before).
        averaged: The model with the averaged weights, or the model itself where none are kept.
        lengths: The averages of ``settings.lengths``.
        learning: The loss, and what its times have learned.

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
        self._in_pieces = in_pieces(accelerator)
        model.to("cpu" if self._in_pieces else accelerator.device)
        self.average = None if settings.ema is None else EMA(model.net)
        self.averaged = model if self.average is None else _with_net(model, self.average.net)
        self.lengths = [EMA(model.net) for _ in settings.lengths]
        self._powers = [power_of(length) for length in settings.lengths]
        self.learning = AdaptiveTimestepState(settings.loss, model.sde, accelerator)
        self.optimizer = _optimizer(self.weights, model.net, settings, self._in_pieces)
        self.step = 0
        self.tally = RunningMeans()
        self._unread: list[Tensor] = []
        self.history: list[tuple[int, float]] = []
        self._working = model
        self._pieces: ShardedParameters | None = None
        self._moving = self.optimizer

    def start(self) -> None:
        """Training mode, no old gradients, and a network that exchanges gradients where there are several processes."""
        self.model.train()
        self.optimizer.zero_grad()
        if self._in_pieces:
            from scoresde.training.sharding import ShardedParameters  # half a second, for few runs

            self._pieces = ShardedParameters(self.model.net, self.accelerator)
            self._working = _with_net(self.model, self._pieces.net)
            self._moving = _adamw(self._pieces.moved, self.settings)
            self._pieces.cut_optimizer(self.optimizer, self._moving)
        elif self.accelerator.num_processes > 1:
            self._working = _with_net(self.model, self.accelerator.prepare_model(self.model.net))
        for average in self.averages:
            if self._pieces is None:
                average.follow(self.model.net)
            else:
                average.follow_pieces(self._pieces)
            if self.step == 0:  # processes that began with other weights have those of the main one now
                average.copy()

    def gather(self) -> None:
        """Makes model, averages and optimizer whole where they are in pieces; every process must."""
        if self._pieces is not None:
            self._pieces.gather([share.detach() for share in self._pieces.shares], self.model.net)
            self._pieces.gather_optimizer(self._moving, self.optimizer)
            for average in self.averages:
                average.gather(self._pieces)

    @property
    def averages(self) -> list[EMA]:
        """All that are kept, the one of ``settings.ema`` first."""
        return [*([] if self.average is None else [self.average]), *self.lengths]

    def stop(self) -> None:
        """Evaluation mode, the network as it was given, and no more data read ahead."""
        self.batches.close()
        if self._working is not self.model and self._pieces is None:
            self.accelerator.unwrap_model(self._working.net, keep_fp32_wrapper=False)
        self.optimizer.zero_grad()
        self.model.eval()
        self.averaged.eval()

    def advance(self) -> None:
        """One update. With fp16, none if the gradient overflowed: the scale falls and the same step comes again."""
        settings, scaler = self.settings, self.accelerator.scaler
        loss = self._gradient()
        if scaler is not None:
            scaler.unscale_(self._moving)
        norm = self._clip()
        good = torch.isfinite(norm)
        for group in self._moving.param_groups:
            group["lr"] = settings.lr_at(self.step + 1)
        if scaler is not None:
            scaler.step(self._moving)
            scaler.update()
        else:  # GradScaler's protocol with optimizers: they skip what is not finite, without a word to the host
            self._moving.found_inf = (~good).float()  # pyright: ignore[reportAttributeAccessIssue]
            self._moving.step()
        self._moving.zero_grad()
        if self._pieces is not None:
            self._pieces.net.zero_grad()
        self._unread.append(torch.stack([loss, norm.to(loss)]))
        self.learning.move(good)
        if scaler is None or bool(good):
            self._follow()
            self.step += 1

    def _clip(self) -> Tensor:
        """Shortens a gradient that is too long; returns its length before."""
        limit = self.settings.max_norm or math.inf
        if self._pieces is None:
            return torch.nn.utils.clip_grad_norm_(self.weights, limit)
        norm = torch.nn.utils.clip_grad_norm_(self._pieces.trained, limit)
        self._pieces.pass_gradients()
        return norm.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]

    def _follow(self) -> None:
        if self.average is not None:
            self.average.update(self.settings.ema_at(self.step))
        for average, power in zip(self.lengths, self._powers, strict=True):
            average.update(power_decay(power, self.step))

    def _gradient(self) -> Tensor:
        """Accumulates the gradient of the mean loss over this process's shards of the step; returns that loss."""
        settings, accelerator = self.settings, self.accelerator
        losses = []
        for part in range(settings.accumulate):
            x0, cond = self.batches.draw(self.step, part * accelerator.num_processes + accelerator.process_index)
            last = part == settings.accumulate - 1
            with self._alone(last):
                with contextlib.nullcontext() if settings.precision == "no" else accelerator.autocast():
                    each = self.learning.each(self._working, x0, **cond)
                loss = each.mean() / (event_size(x0) * settings.accumulate)
                (loss if accelerator.scaler is None else accelerator.scaler.scale(loss)).backward()
            losses.append(loss.detach().to(widest_dtype(x0.device)))
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _alone(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """In which gradients are exchanged only if the part is the ``last``."""
        if self._pieces is not None:
            self._pieces.net.set_requires_gradient_sync(last)  # pyright: ignore[reportCallIssue]
        elif not last:
            return self.accelerator.no_sync(self._working.net)
        return contextlib.nullcontext()

    def look(self) -> RunningMeans:
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

    def tallies(self) -> list[RunningMeans]:
        """The tally of every process; all must ask."""
        return [RunningMeans.read(numbers) for numbers in gathered(self.accelerator, self.look().numbers)]

    def note(self) -> RunningMeans:
        """Adds a point to the history, over all processes, which must all do so, and begins the next mean."""
        tally = RunningMeans.joined(self.tallies())
        self.history.append((self.step, tally.mean))
        self.tally = RunningMeans(skipped=self.tally.skipped)
        return tally


def _optimizer(weights: Sequence[nn.Parameter], net: nn.Module, settings: Training, pieces: bool) -> torch.optim.AdamW:
    if settings.optimizer == "adamw":
        return _adamw(weights, settings)
    if pieces:
        raise ValueError(
            "Muon needs whole matrices, got a network in pieces (FSDP); train it whole in each process, or with "
            'Training(optimizer="adamw").'
        )
    return Muon(weights, matrices(net), settings.lr, settings.betas, settings.weight_decay)


def _adamw(weights: Sequence[nn.Parameter], settings: Training) -> torch.optim.AdamW:
    return torch.optim.AdamW(weights, settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True)


def _with_net(model: ScoreModel, net: nn.Module) -> ScoreModel:
    return ScoreModel(net, model.sde, model.parameterization, model.event_shape, model.data, model.learned_variance)
