r"""The state of a training run and one update of it: gradient of the loss on batch k, clipping, AdamW or Muon, EMA.

No update waits for the device: losses are summed there and read every few updates, and an update whose gradient is not
finite is skipped there. Only fp16 waits, once per update, so that an update whose gradient overflowed is repeated.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from scoresde._core.tensors import event_size, widest_dtype
from scoresde.data import Data
from scoresde.model import ScoreModel
from scoresde.storage.checkpoint import power_decay, power_of
from scoresde.training.adapters import has_adapters
from scoresde.training.adaptive_timesteps import AdaptiveTimestepState
from scoresde.training.batches import Batches
from scoresde.training.data_checks import check_weight_types
from scoresde.training.ema import EMA
from scoresde.training.multi_process import gather_numbers, uses_fsdp
from scoresde.training.optimizers import adamw, build_optimizer
from scoresde.training.running_mean import RunningMeans
from scoresde.training.settings import Training
from scoresde.training.source import BatchSource, TrainingSource

if TYPE_CHECKING:
    from scoresde.training.sharding import ShardedParameters

__all__ = ["TrainingState"]


class TrainingState:
    """Everything that changes during a training run, between two updates.

    Args:
        model: Moved to the accelerator's device; the whole network of a sharded one stays on the CPU.
        data: See `scoresde.training.train`.
        settings: Of the run.
        accelerator: Device, processes, precision.

    Attributes:
        step: Updates done.
        means: Running means of loss and gradient norm, as of the last `read_means`.
        history: (step, mean loss per dimension since the entry before).
        ema: The EMA of ``settings.ema``, or None.
        ema_model: The model with the averaged weights, or the model if there is no EMA.
        power_emas: The EMAs of ``settings.lengths``.
        loss: The objective: that of the settings, or of a `TrainingSource`.
        timesteps: The loss with the state of its adaptive timesteps.

    Raises:
        TypeError: If weights are float16 and the gradient is not scaled.
        ValueError: If the data do not fit, or no weight requires a gradient.
    """

    def __init__(
        self, model: ScoreModel, data: Data | Tensor | TrainingSource, settings: Training, accelerator: Accelerator
    ) -> None:
        self.weights = [p for p in model.parameters() if p.requires_grad]
        if not self.weights:
            raise ValueError("a model to train must have weights that require a gradient, got none; unfreeze some.")
        check_weight_types(model, scaled=accelerator.scaler is not None)
        self.model, self.settings, self.accelerator = model, settings, accelerator
        self.shards = settings.accumulate * accelerator.num_processes
        self.batches, self.loss = _batches_and_loss(model, data, settings, accelerator.device, self.shards)
        self._fsdp = uses_fsdp(accelerator)
        if has_adapters(model.net) and (self._fsdp or settings.lengths):
            what = "a sharded network" if self._fsdp else f"lengths={settings.lengths}"
            raise ValueError(f"adapters are trained in a whole network with one average, got {what}; leave it out.")
        model.to("cpu" if self._fsdp else accelerator.device)
        self.ema = None if settings.ema is None else EMA(model.net)
        self.ema_model = model if self.ema is None else _with_net(model, self.ema.net)
        self.power_emas = [EMA(model.net) for _ in settings.lengths]
        self._powers = [power_of(length) for length in settings.lengths]
        self.timesteps = AdaptiveTimestepState(self.loss, model.sde, accelerator)
        self.optimizer = build_optimizer(self.weights, model.net, settings, self._fsdp)
        self.step = 0
        self.means = RunningMeans()
        self._unread: list[Tensor] = []
        self.history: list[tuple[int, float]] = []
        self._wrapped_model = model
        self._sharded: ShardedParameters | None = None
        self._active_optimizer = self.optimizer

    def start(self) -> None:
        """Prepares for updates: training mode, no gradients, the wrapped or sharded network of several processes."""
        self.model.train()
        self.optimizer.zero_grad()
        if self._fsdp:
            from scoresde.training.sharding import ShardedParameters  # half a second, for few runs

            self._sharded = ShardedParameters(self.model.net, self.accelerator)
            self._wrapped_model = _with_net(self.model, self._sharded.net)
            self._active_optimizer = adamw(self._sharded.trained_shards, self.settings)
            self._sharded.shard_optimizer(self.optimizer, self._active_optimizer)
        elif self.accelerator.num_processes > 1:
            self._wrapped_model = _with_net(self.model, self.accelerator.prepare_model(self.model.net))
        for ema in self.emas:
            if self._sharded is None:
                ema.track(self.model.net)
            else:
                ema.track_shards(self._sharded)
            if self.step == 0:  # the weights of other processes have become the main one's
                ema.reset()

    def gather(self) -> None:
        """Fills model, EMAs and optimizer from their shards, if there are any; every process must call it."""
        if self._sharded is not None:
            self._sharded.gather([shard.detach() for shard in self._sharded.shards], self.model.net)
            self._sharded.gather_optimizer(self._active_optimizer, self.optimizer)
            for ema in self.emas:
                ema.gather(self._sharded)

    @property
    def emas(self) -> list[EMA]:
        """All EMAs, the one of ``settings.ema`` first."""
        return [*([] if self.ema is None else [self.ema]), *self.power_emas]

    def stop(self) -> None:
        """Ends the run: evaluation mode, the network without wrappers, no gradients, no prefetching."""
        self.batches.close()
        if self._wrapped_model is not self.model and self._sharded is None:
            self.accelerator.unwrap_model(self._wrapped_model.net, keep_fp32_wrapper=False)
        self.optimizer.zero_grad()
        self.model.eval()
        self.ema_model.eval()

    def advance(self) -> None:
        """One update. After an overflow in fp16 there is none: the scale falls and the same step is repeated."""
        scaler, optimizer = self.accelerator.scaler, self._active_optimizer
        loss = self._accumulate_gradient()
        if scaler is not None:
            scaler.unscale_(optimizer)
        norm = self._clip_gradient()
        finite = torch.isfinite(norm)
        for group in optimizer.param_groups:
            group["lr"] = self.settings.lr_at(self.step + 1)
        if scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        else:  # GradScaler's protocol: the optimizer skips what is not finite, and the host does not wait
            optimizer.found_inf = (~finite).float()  # pyright: ignore[reportAttributeAccessIssue]
            optimizer.step()
        torch.clear_autocast_cache()  # in a caller's autocast, copies of the old weights would be used again
        optimizer.zero_grad()
        if self._sharded is not None:
            self._sharded.net.zero_grad()
        self._unread.append(torch.stack([loss, norm.to(loss)]))
        self.timesteps.update(finite)
        if scaler is None or bool(finite):
            self._update_emas()
            self.step += 1

    def _clip_gradient(self) -> Tensor:
        """Clips the gradient to ``max_norm``; returns its norm before."""
        limit = self.settings.max_norm or math.inf
        if self._sharded is None:
            return torch.nn.utils.clip_grad_norm_(self.weights, limit)
        norm = torch.nn.utils.clip_grad_norm_(self._sharded.trained_weights, limit)
        self._sharded.copy_gradients()
        return norm.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]

    def _update_emas(self) -> None:
        if self.ema is not None:
            self.ema.update(self.settings.ema_at(self.step))
        for ema, power in zip(self.power_emas, self._powers, strict=True):
            ema.update(power_decay(power, self.step))

    def _accumulate_gradient(self) -> Tensor:
        """Accumulates the gradient of the mean loss over this process's shards of the batch; returns that loss."""
        settings, accelerator = self.settings, self.accelerator
        losses = []
        for part in range(settings.accumulate):
            x0, cond = self.batches.draw(self.step, part * accelerator.num_processes + accelerator.process_index)
            last = part == settings.accumulate - 1
            with self._synchronized_if(last):
                with contextlib.nullcontext() if settings.precision == "no" else accelerator.autocast():
                    sample_losses = self.timesteps.losses(self._wrapped_model, x0, **cond)
                observed_size = event_size(x0) * self.batches.observed_share
                loss = sample_losses.mean() / (observed_size * settings.accumulate)
                (loss if accelerator.scaler is None else accelerator.scaler.scale(loss)).backward()
            losses.append(loss.detach().to(widest_dtype(x0.device)))
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _synchronized_if(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """A context in which processes exchange gradients only for the ``last`` part."""
        if self._sharded is not None:
            self._sharded.net.set_requires_gradient_sync(last)  # pyright: ignore[reportCallIssue]
        elif not last:
            return self.accelerator.no_sync(self._wrapped_model.net)
        return contextlib.nullcontext()

    def read_means(self) -> RunningMeans:
        """Adds losses and gradient norms of the updates since the last call to `means`: waits for the device."""
        if self._unread:
            for loss, norm in torch.stack(self._unread).tolist():
                self.means = self.means.updated(loss, norm)
            self._unread.clear()
        return self.means

    def check_gradients(self, checkpoint: Path | None) -> None:
        """Checks that the gradients of the last updates were finite.

        Args:
            checkpoint: The newest one, for the message.

        Raises:
            RuntimeError: If the last ``patience`` or more gradients were not.
        """
        skipped = self.read_means().skipped
        if skipped >= self.settings.patience:
            first = self.step + 1 if self.accelerator.scaler is not None else self.step - skipped + 1
            raise RuntimeError(
                f"gradients must be finite, got {skipped} in a row that are not, from update {first} on (lr "
                f"{self.settings.lr_at(first):.3g}); these updates were skipped; the newest checkpoint is "
                f"{checkpoint}. Lower lr, raise warmup, or check the network and the loss's weighting."
            )

    def means_by_process(self) -> list[RunningMeans]:
        """The running means of every process; all must call it."""
        rows = gather_numbers(self.accelerator, self.read_means().numbers)
        return [RunningMeans.from_numbers(numbers) for numbers in rows]

    def record_history(self) -> RunningMeans:
        """Adds an entry to the history from all processes, which must all call it, and restarts the means."""
        means = RunningMeans.merged(self.means_by_process())
        self.history.append((self.step, means.loss))
        self.means = RunningMeans(skipped=self.means.skipped)
        return means


def _batches_and_loss(
    model: ScoreModel, data: Data | Tensor | TrainingSource, settings: Training, device: torch.device, shards: int
) -> tuple[BatchSource, Callable[..., Tensor]]:
    if isinstance(data, TrainingSource):
        return data.batches(settings, device, shards), data.loss
    return Batches(model, data, settings, device, shards), settings.loss


def _with_net(model: ScoreModel, net: nn.Module) -> ScoreModel:
    return ScoreModel(net, model.sde, model.parameterization, model.event_shape, model.data, model.learned_variance)
