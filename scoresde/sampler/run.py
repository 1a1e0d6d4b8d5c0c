"""How is one batch taken back? From its start to the end in one go, and once more with checks where that went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde._tensor import Noise, Scalar
from scoresde.model import Model
from scoresde.parameterization import Prediction
from scoresde.sampler.base import Observer, Path, Sampler, SolverError
from scoresde.sde import SDE

__all__ = ["Batch", "Walk", "has_values"]


@dataclass
class Walk:
    """What came out for one batch.

    Attributes:
        x: Last state, view's coordinates, ``(B, *D)``.
        tau: OU time at which it stands.
        nfe: Network calls.
        kept: Times and states along the way, view's coordinates; empty unless asked for.
    """

    x: Tensor
    tau: float
    nfe: int
    kept: list[tuple[float, Tensor]]


@dataclass(frozen=True)
class Batch:
    """One batch, ready to be walked back.

    Attributes:
        model: The network, in eval mode.
        sampler: The way back.
        like: Shape, type and device of the state, ``(B, *D)``; its values are not read.
        start: OU time to start from.
        init: State there, view's coordinates; None for a draw from the prior.
        cond: Passed to the network.
        denoise: Ends with a data estimate.
        keep: Keeps the trajectory.
        observers: Called after each step.
    """

    model: Model
    sampler: Sampler
    like: Tensor
    start: float
    init: Tensor | None = None
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    denoise: bool = False
    keep: bool = False
    observers: tuple[Observer, ...] = ()

    def walk(self, generator: torch.Generator | None, seeds: list[int] | None) -> Walk:
        """Walks back; a state that is not finite at the end is traced to its network call by a second walk.

        Raises:
            RuntimeError: If the network returned NaN or infinity, or a solver failed.
        """
        before = None if generator is None else generator.get_state()
        failure = None
        try:
            walk = self._walk(Noise(generator, seeds), _Counted(self.model, self.cond), self.keep, self.observers)
            if not has_values(walk.x) or bool(torch.isfinite(walk.x).all()):
                return walk
        except SolverError as error:
            failure = error
        if generator is not None and before is not None:
            generator.set_state(before)
        self._walk(Noise(generator, seeds), _Checked(self.model, self.cond), False, ())
        raise failure or RuntimeError(
            f"samples must be finite, but {self.sampler} diverged on finite network outputs; use more steps."
        )

    def _walk(self, noise: Noise, predict: _Counted, keep: bool, observers: tuple[Observer, ...]) -> Walk:
        sde, kept = self.model.sde, []
        if self.init is None:
            x = sde.prior(self.like, noise, self.start)
        else:
            x = self.init.to(self.like) / _scale(sde, self.start)

        def observe(done: int, steps: int, tau: float, state: Tensor) -> None:
            if keep:
                kept.append((tau, state * _scale(sde, tau)))
            for observer in observers:
                observer(done, steps, tau, state)

        if keep:
            kept.append((self.start, x * _scale(sde, self.start)))
        path = Path(predict, sde, noise, self.start, observe if keep or observers else None)
        x, tau = self.sampler.run(x, path)
        if self.denoise and tau > 0:
            x, tau = predict(x, tau).x0, 0.0
            if keep:
                kept.append((tau, x * _scale(sde, tau)))
        return Walk(x * _scale(sde, tau), tau, predict.nfe, kept)


class _Counted:
    """The network call, counted: the first one checked by the model, the others of the same kind not again."""

    def __init__(self, model: Model, cond: Mapping[str, Tensor]) -> None:
        self.nfe = 0
        self._call, self._next, self._cond = model, model.predict, cond

    def __call__(self, x: Tensor, tau: Scalar) -> Prediction:
        self.nfe += 1
        call, self._call = self._call, self._next
        return call(x, tau, **self._cond)


class _Checked(_Counted):
    """The same, refusing an output that is not finite."""

    def __call__(self, x: Tensor, tau: Scalar) -> Prediction:
        prediction = super().__call__(x, tau)
        bad = ~torch.isfinite(prediction.out)
        if bool(bad.any()):
            rows = bad.flatten(1).any(1) if bad.ndim > 1 else bad
            indices = rows.nonzero().flatten().tolist()
            shown = ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")
            raise RuntimeError(
                f"the network must return finite numbers, but call {self.nfe}, at tau = {float(tau):.6g}, gave NaN or "
                f"infinity for samples [{shown}] of a batch of {len(x)}; look at its inputs there, or train it then."
            )
        return prediction


def has_values(x: Tensor) -> bool:
    """Whether the tensor holds numbers: it is neither on the meta device nor a fake."""
    return x.device.type != "meta" and not isinstance(x, FakeTensor)


def _scale(sde: SDE, tau: float) -> float:
    """The view's factor; at the start of an infinite clock its limit."""
    return float(sde.scale(min(tau, 300.0)))
