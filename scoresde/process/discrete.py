r"""Processes of categories on the OU clock: each entry keeps its class with probability $\bar\alpha = e^{-2\tau}$.

$q(x_\tau \mid x_0) = \bar\alpha\,\delta_{x_0} + (1 - \bar\alpha)\,\pi$: entries are redrawn from the noise distribution
$\pi$ at rate 2 per unit of $\tau$. $\pi$ is uniform over the C classes, or a mask state ("absorbing"). For two classes
and uniform $\pi$ it is the binomial kernel: a spin ±1 flips at rate 1, so $E[s_\tau \mid s_0] = \bar\alpha\,s_0$.

A state holds codes: whole numbers 0 … C - 1, and C for the mask, in a floating tensor. So one tensor can hold numbers
and categories (`scoresde.process.mixed`).

What a network's logits say of $x_0$ and of the reverse process is in `scoresde.process.discrete_prediction`.
"""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_event_shape
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import as_time, constant, expand, has_values, sum_event, widest_dtype
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.codes import at_codes, check_states, one_hot, over_states
from scoresde.process.sde import check_step

__all__ = ["DiscreteProcess"]


class DiscreteProcess(Process, ABC):
    """A process that redraws each entry independently; see the module docstring. Subclasses name its classes."""

    classes: int | tuple[int, ...]
    """Number of classes, of all entries or of each entry along the last axis."""
    kernel: str
    """``"uniform"`` or ``"absorbing"``."""

    @property
    def most_classes(self) -> int:
        """The largest number of classes of an entry, C: the last axis of logits."""
        return self.classes if isinstance(self.classes, int) else max(self.classes)

    @property
    def states(self) -> int:
        """Number of states, S: C, and one more with a mask, whose code is C."""
        return self.most_classes + (self.kernel == "absorbing")

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of classes of each entry along the last axis, or one number for all."""
        return (self.classes,) if isinstance(self.classes, int) else self.classes

    def scale(self, tau: Scalar) -> Scalar:
        return 0.0 * tau + 1.0 if isinstance(tau, Tensor) else 1.0

    def checked_state(self, x: Tensor) -> Tensor:
        """Codes in a floating tensor.

        Raises:
            TypeError: If ``x`` is complex or bool.
            ValueError: If an entry is not the code of a state. The values are checked on the CPU only.
        """
        if x.is_complex():
            raise TypeError(f"x must hold codes of states, got {x.dtype}.")
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        self.check_codes(x, "x", self.states)
        return x

    def network_input(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Codes in the type of a network's weights, but at least float32, where whole numbers stay exact."""
        return x.to(torch.promote_types(dtype, torch.float32))

    def check_codes(self, x: Tensor, name: str, states: int) -> None:
        """Refuses entries that are not whole numbers in 0 … ``states`` - 1; of tensors on the CPU only.

        Args:
            x: ``(B, *D)``.
            name: Name of ``x`` in the error.
            states: Number of classes C, or of states S.

        Raises:
            ValueError: Names the first such entry.
        """
        if x.device.type != "cpu" or not has_values(x) or torch.compiler.is_compiling():
            return
        most = self.most_classes if isinstance(self.classes, int) else constant(tuple(map(float, self.classes)), x)
        low = (x >= 0) & (x == x.round())
        bad = ~(low & (x < most)) if states == self.most_classes else ~(low & ((x < most) | (x == states - 1)))
        if bool(bad.any()):
            index = tuple(bad.nonzero()[0].tolist())
            what = f"0 … {states - 1}" if isinstance(self.classes, int) else f"0 … C - 1 with C = {self.classes}"
            raise ValueError(
                f"{name} must hold codes of classes, whole numbers {what}, got {x[index].item():g} at {index}; map "
                "classes to 0, 1, … first."
            )

    def noise_probs(self, like: Tensor) -> Tensor:
        r"""The noise distribution $\pi$ in the type of ``like``: ``(S,)``, or ``(L, S)`` for several ``counts``."""
        rows = tuple(value for count in self.counts for value in self._noise_row(count))
        probs = constant(rows, like).to(like.dtype)
        return probs if isinstance(self.classes, int) else probs.reshape(len(self.counts), self.states)

    def _noise_row(self, count: int) -> list[float]:
        if self.kernel == "absorbing":
            return [0.0] * self.most_classes + [1.0]
        return [1.0 / count] * count + [0.0] * (self.most_classes - count)

    def valid_classes(self, like: Tensor) -> Tensor | None:
        """Which of the C logits an entry has, bool, ``(L, C)``; None if all entries have as many."""
        if isinstance(self.classes, int):
            return None
        rows = [float(c < count) for count in self.counts for c in range(self.most_classes)]
        return constant(tuple(rows), like).reshape(len(self.counts), -1) > 0

    def draw_noise(self, like: Tensor, noise: Noise) -> Tensor:
        """Uniform numbers in [0, 1), ``(B, *D)``, of the widest type of the device."""
        return noise.uniform(torch.empty_like(like, dtype=widest_dtype(like.device)))

    def perturb(self, x0: Tensor, tau: Scalar, noise: Tensor) -> Tensor:
        """Codes at ``tau``: an entry is kept where its number lies below ᾱ, else it is redrawn.

        Args:
            x0: Codes of classes, floating, ``(B, *D)``.
            tau: OU time, a number or ``(B,)``.
            noise: Uniform numbers in [0, 1), shape of ``x0``.

        Raises:
            ValueError: If the shapes differ, or ``tau`` is negative, NaN or past the end of the clock.
        """
        check_states(x0, "x0")
        check_states(noise, "noise", x0)
        if x0.shape != noise.shape:
            raise ValueError(f"noise must have the shape of x0, {tuple(x0.shape)}, got {tuple(noise.shape)}.")
        tau = as_time(tau, high=self.tau_max * (1 + 1e-6))
        keep = expand(ou.alpha_bar(tau), noise)
        if self.kernel == "absorbing":
            return torch.where(noise < keep, x0, float(self.most_classes))
        count = self.counts[0] if isinstance(self.classes, int) else constant(tuple(map(float, self.counts)), noise)
        drawn = ((noise - keep) / expand(ou.beta(tau, 0.0), noise) * count).floor()
        last = count - 1.0  # a number below 1 may round to 1 in the division
        drawn = torch.minimum(drawn, last) if isinstance(last, Tensor) else drawn.clamp(max=last)
        return torch.where(noise < keep, x0, drawn.to(x0.dtype))

    def prior(self, like: Tensor, noise: Noise, tau: float | None = None) -> Tensor:
        """Draws from the noise distribution, at any start. ``(B, *D)``."""
        if self.kernel == "absorbing":
            return torch.full_like(like, float(self.most_classes))
        count = self.counts[0] if isinstance(self.classes, int) else constant(tuple(map(float, self.counts)), like)
        return (self.draw_noise(like, noise) * count).floor().to(like.dtype)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Log-probability of the noise distribution, nats. ``(B, *D)`` -> ``(B,)`` float64."""
        check_event_shape(z, None, "z")
        check_states(z, "z")
        self.check_codes(z, "z", self.states)
        probs = self.noise_probs(z.to(widest_dtype(z.device)))
        return sum_event(at_codes(probs.expand(*z.shape, self.states), z).log())

    def transition(self, x: Tensor, tau: Scalar, s: Scalar = 0.0) -> Tensor:
        r"""$q(x_\tau \mid x_s = x)$, ``(B, *D, S)``.

        Args:
            x: Codes of states at ``s``, floating, ``(B, *D)``.
            tau, s: Numbers or ``(B,)`` with ``0 <= s < tau``.

        Raises:
            ValueError: If ``s`` is not below ``tau``, or ``tau`` is past the end of the clock.
        """
        check_states(x, "x")
        self.check_codes(x, "x", self.states)
        tau, s = check_step(as_time(tau, high=self.tau_max * (1 + 1e-6)), s)
        keep, redraw = over_states(ou.alpha_bar(tau - s), x), over_states(ou.beta(tau, s), x)
        return keep * one_hot(x, self.states) + redraw * self.noise_probs(x)

    def posterior(self, x: Tensor, x0: Tensor, tau: Scalar, s: Scalar) -> Tensor:
        r"""$q(x_s \mid x_\tau, x_0)$, ``(B, *D, S)``, by Bayes' rule.

        Args:
            x, x0: Codes at ``tau`` and of the data, floating, ``(B, *D)``; x must be possible given x0.
            tau, s: Numbers or ``(B,)`` with ``0 <= s < tau``.

        Raises:
            ValueError: If the shapes differ, ``s`` is not below ``tau``, or ``tau`` is past the end of the clock.

        Source: Sohl-Dickstein et al. 2015, appendix B; Austin et al. 2021 (D3PM), eq. 3.
        """
        check_states(x, "x")
        check_states(x0, "x0", x)
        if x.shape != x0.shape:
            raise ValueError(f"x0 must have the shape of x, {tuple(x.shape)}, got {tuple(x0.shape)}.")
        self.check_codes(x, "x", self.states)
        self.check_codes(x0, "x0", self.most_classes)
        tau, s = check_step(as_time(tau, high=self.tau_max * (1 + 1e-6)), s)
        return self._posterior(x, x0, tau, s)

    def _posterior(self, x: Tensor, x0: Tensor, tau: Scalar, s: Scalar) -> Tensor:
        at_s = over_states(ou.alpha_bar(s), x) * one_hot(x0, self.states)
        at_s = at_s + over_states(ou.beta(s, 0.0), x) * self.noise_probs(x)
        joint = self._to_state(x, tau, s) * at_s
        return joint / joint.sum(-1, keepdim=True)

    def _to_state(self, x: Tensor, tau: Scalar, s: Scalar) -> Tensor:
        """Probability of the state ``x`` at ``tau`` given each state at ``s``, ``(B, *D, S)``."""
        redraw = over_states(ou.beta(tau, s), x) * self.noise_at(x)
        return over_states(ou.alpha_bar(tau - s), x) * one_hot(x, self.states) + redraw

    def noise_at(self, x: Tensor) -> Tensor:
        r"""$\pi_x$ of each entry's state, ``(B, *D, 1)``."""
        return at_codes(self.noise_probs(x).expand(*x.shape, self.states), x).unsqueeze(-1)

    def forward_rates(self, x: Tensor, hot: Tensor | None = None) -> Tensor:
        r"""Rates from ``x`` to each state, $2\pi_j$, per unit of $\tau$; 0 to itself. ``(B, *D, S)``.

        Args:
            x: Codes, ``(B, *D)``.
            hot: Their indicators, ``(B, *D, S)``, if they were computed before.
        """
        leave = 1.0 - (one_hot(x, self.states) if hot is None else hot)
        if self.kernel == "uniform" and isinstance(self.classes, int):
            return leave * (2.0 / self.classes)
        return 2.0 * self.noise_probs(x) * leave

    def conditional_rates(self, x: Tensor, x0: Tensor, tau: Scalar) -> Tensor:
        r"""Reverse rates given $x_0$, $2\pi_x\,q(j \mid x_0)/q(x \mid x_0)$, per unit of $\tau$.

        Args:
            x, x0: Codes at ``tau`` and of the data, floating, ``(B, *D)``; x must be possible given x0.
            tau: OU time > 0, a number or ``(B,)``.

        Returns:
            ``(B, *D, S)``; 0 to ``x`` itself.
        """
        noise, keep = over_states(ou.beta(tau, 0.0), x), over_states(ou.alpha_bar(tau), x)
        each = keep * one_hot(x0, self.states) + noise * self.noise_probs(x)
        redraw = self.noise_at(x)
        own = keep * (x == x0).to(x.dtype).unsqueeze(-1) + noise * redraw
        rates = 2.0 * redraw * each / torch.where(redraw > 0, own, 1.0)
        return rates * (1.0 - one_hot(x, self.states))

    def log_likelihood(self, x: Tensor, tau: Scalar, hot: Tensor | None = None) -> Tensor:
        r"""$\log q(x_\tau = x \mid x_0 = c)$ for each class c, nats, ``(B, *D, C)``; -inf where x is impossible.

        Args:
            x: Codes, ``(B, *D)``.
            tau: OU time, a number or ``(B,)``.
            hot: Indicators of ``x``, ``(B, *D, S)``, if they were computed before.
        """
        hot = one_hot(x, self.states) if hot is None else hot
        if self.kernel == "uniform" and isinstance(self.classes, int) and not isinstance(tau, Tensor):
            other = ou.beta(tau, 0.0) / self.classes  # three operations instead of nine
            low = ew.log(other)
            return hot.mul(ew.log(ou.alpha_bar(tau) + other) - low).add(low)
        noise, keep = over_states(ou.beta(tau, 0.0), x), over_states(ou.alpha_bar(tau), x)
        other = noise * self.noise_at(x)
        return (keep * hot[..., : self.most_classes] + other).log()
