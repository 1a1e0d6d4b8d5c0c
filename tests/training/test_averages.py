"""EMAs of several lengths during training, and of any length afterwards from stored snapshots."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process.sde import VPSDE
from scoresde.storage import checkpoint
from scoresde.storage.checkpoint.posthoc_ema import LONGEST, PowerProfile, coefficients
from scoresde.training import Callback, Training, train
from scoresde.training.ema import EMA

D = torch.float64


def density(profile: PowerProfile, last: int) -> Tensor:
    """Weights of the updates 1 … last: the integral of the profile over each unit interval."""
    k = torch.arange(1, last + 1, dtype=D)
    power = profile.power + 1
    weights = (k**power - (k - 1) ** power) / profile.step**power
    return torch.where(k <= profile.step, weights, 0.0)


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.25, LONGEST])
def test_the_length_is_the_standard_deviation_of_the_weights_over_the_past(length):
    power = checkpoint.power_of(length)
    assert checkpoint.length_of(power) == pytest.approx(length, rel=1e-9)
    weights, last = density(PowerProfile(power, 20_000), 20_000), 20_000
    positions = (torch.arange(last, dtype=D) + 0.5) / last
    mean = (weights * positions).sum()
    assert (weights * (positions - mean) ** 2).sum().sqrt().item() == pytest.approx(length, rel=1e-4)
    assert weights.sum().item() == pytest.approx(1.0)


def test_powers_of_the_papers_lengths_and_of_the_mean():
    assert checkpoint.power_of(0.05) == pytest.approx(16.97, abs=0.005)  # Karras et al. 2024, section 3
    assert checkpoint.power_of(0.10) == pytest.approx(6.94, abs=0.005)
    assert checkpoint.power_of(LONGEST) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.3, math.nan, True])
def test_a_length_out_of_range_is_refused(length):
    with pytest.raises(ValueError, match=r"a relative length must lie in \(0, 0.2887\], got"):
        checkpoint.power_of(length)
    with pytest.raises(ValueError, match="a relative length must lie in"):
        Training(lengths=(0.1, length))


def test_the_recursion_weights_past_updates_by_its_profile():
    net, power, last = nn.Linear(1, 1, bias=False, dtype=D), checkpoint.power_of(0.1), 50
    average = EMA(net)
    past = torch.randn(last, dtype=D)
    for n, value in enumerate(past.tolist()):
        net.weight.data.fill_(value)
        average.update(checkpoint.power_decay(power, n))
    expected = (density(PowerProfile(power, last), last) * past).sum()
    averaged: Tensor = average.net.weight  # pyright: ignore[reportAssignmentType]
    assert averaged.item() == pytest.approx(expected.item(), rel=1e-12)


def test_inner_products_of_profiles_are_their_integrals():
    x = (torch.arange(400_000, dtype=D) + 0.5) / 400_000 * 9
    for p, q in (
        (PowerProfile(6.94, 5), PowerProfile(16.97, 9)),
        (PowerProfile(3.0, 9), PowerProfile(0.0, 4)),
        (PowerProfile(2.0, 7),) * 2,
    ):
        a, b = ((r.power + 1) * x**r.power / r.step ** (r.power + 1) * (x <= r.step) for r in (p, q))
        assert p.inner(q) == q.inner(p) == pytest.approx((a * b).mean().item() * 9, rel=1e-4)


def stored_profiles(last: int, count: int) -> list[PowerProfile]:
    powers = [checkpoint.power_of(length) for length in (0.05, 0.1)]
    return [PowerProfile(power, last * (i + 1) // count) for i in range(count) for power in powers]


@pytest.mark.parametrize(("length", "gap"), [(0.05, 0.0), (0.06, 0.01), (0.08, 0.02), (0.12, 0.02), (0.2, 0.05)])
def test_a_reconstructed_average_is_near_the_one_computed_during_training(length, gap):
    last, wanted = 8000, PowerProfile(checkpoint.power_of(length), 8000)
    profiles = stored_profiles(last, 16)
    factors = coefficients(profiles, wanted)
    combined = sum(f * density(p, last) for f, p in zip(factors, profiles, strict=True))
    true = density(wanted, last)
    generator = torch.Generator().manual_seed(0)
    trajectory = torch.randn(last, 64, generator=generator, dtype=D).cumsum(0)  # a random walk of the weights
    exact, reconstructed = (weights @ trajectory for weights in (true, torch.as_tensor(combined)))
    distance = (exact - trajectory[-1]).norm()
    assert (reconstructed - exact).norm() <= gap * distance + 1e-9
    assert sum(factors) == pytest.approx(1.0, abs=1e-9)


def test_no_other_combination_of_snapshots_is_nearer():
    profiles, wanted = stored_profiles(4000, 5), PowerProfile(checkpoint.power_of(0.15), 4000)
    factors = torch.tensor(coefficients(profiles, wanted), dtype=D)
    own = torch.tensor([[p.inner(q) for q in profiles] for p in profiles], dtype=D)
    other = torch.tensor([p.inner(wanted) for p in profiles], dtype=D)

    def distance(x: Tensor) -> Tensor:
        return x @ own @ x - 2 * x @ other

    for i, j in itertools.permutations(range(len(profiles)), 2):
        changed = factors.clone()
        changed[i] += 0.01  # the sum stays
        changed[j] -= 0.01
        assert distance(changed) > distance(factors)


def small() -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ScoreModel(MLP((3,), width=8, depth=1, embedding_width=8), VPSDE())
        nn.init.normal_(model.net.linear_out.weight, std=0.3)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return model


SETTINGS = Training(steps=96, batch_size=8, lr=3e-3, warmup=0, lengths=(0.05, 0.1), seed=3)
EVENTS = torch.randn(40, 3, generator=torch.Generator().manual_seed(2))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_run_gives_averages_of_any_length_and_its_own_exactly(tmp_path):
    weights: list[Tensor] = []
    train(
        small(),
        EVENTS,
        SETTINGS,
        run_dir=tmp_path,
        callbacks=[Callback(1, lambda state: weights.append(flat(state.raw).double()))],
    )
    assert len(list((tmp_path / "averages").glob("step-*"))) == 16
    for length, gap in ((0.05, 1e-5), (0.1, 1e-5), (0.07, 0.02), (0.14, 0.03)):
        expected = density(PowerProfile(checkpoint.power_of(length), 96), 96) @ torch.stack(weights)
        loaded = flat(checkpoint.load(tmp_path, average=length)).double()
        assert (loaded - expected).norm() <= gap * (expected - weights[-1]).norm(), length
    assert not torch.equal(flat(checkpoint.load(tmp_path, average=0.05)), flat(checkpoint.load(tmp_path)))


def test_an_earlier_checkpoint_gives_the_averages_of_its_step(tmp_path):
    weights: list[Tensor] = []
    train(small(), EVENTS, SETTINGS, run_dir=tmp_path, save_every=48, keep=3,
          callbacks=[Callback(1, lambda state: weights.append(flat(state.raw).double()))])  # fmt: skip
    middle = tmp_path / "checkpoint-000002"
    assert checkpoint.read_checkpoint(middle).meta["step"] == 48
    expected = density(PowerProfile(checkpoint.power_of(0.07), 48), 48) @ torch.stack(weights[:48])
    loaded = flat(checkpoint.load(middle, average=0.07)).double()
    assert (loaded - expected).norm() <= 0.05 * (expected - weights[47]).norm()
    first = checkpoint.load(tmp_path / "checkpoint-000001", average=0.07)
    assert torch.equal(flat(first), flat(small()))


def test_tied_and_frozen_weights_and_buffers_are_averaged_too(tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight
            self.one.bias.requires_grad_(False)
            self.register_buffer("scale", torch.tensor(2.0))

        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return self.two(self.one(x)) * self.scale

    torch.manual_seed(0)
    model = ScoreModel(Net(), VPSDE())
    bias = model.net.one.bias.clone()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    train(model, EVENTS, SETTINGS, run_dir=tmp_path)
    loaded = checkpoint.load(tmp_path, average=0.08, net=Net()).net
    assert loaded.one.weight is loaded.two.weight  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.allclose(loaded.one.bias, bias, rtol=1e-5)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    assert loaded.scale == 2.0


def test_damaged_or_missing_snapshots_are_refused(tmp_path):
    train(small(), EVENTS, replace(SETTINGS, steps=8), run_dir=tmp_path / "run", snapshot_every=2)
    folder = tmp_path / "run" / "averages" / "step-000000004"
    assert json.loads((folder / "state.json").read_text())["meta"] == {"step": 4, "lengths": [0.05, 0.1]}
    (folder / "average_1.safetensors").write_bytes(b"")
    with pytest.raises(RuntimeError, match="a checkpoint must be as it was saved, .*average_1.safetensors"):
        checkpoint.load(tmp_path / "run", average=0.07)
    train(small(), EVENTS, replace(SETTINGS, steps=2, lengths=()), run_dir=tmp_path / "none")
    with pytest.raises(ValueError, match=r"a run with EMAs of two lengths, .*train with e\.g\. Training\(lengths="):
        checkpoint.load(tmp_path / "none", average=0.07)
    with pytest.raises(ValueError, match="weights are raw or averaged, got raw=True and average=0.07"):
        checkpoint.load(tmp_path / "run", average=0.07, raw=True)


def test_without_an_update_every_average_is_the_initial_weights(tmp_path):
    train(small(), EVENTS, replace(SETTINGS, steps=0), run_dir=tmp_path)
    assert torch.equal(flat(checkpoint.load(tmp_path, average=0.2)), flat(small()))
    assert not (Path(tmp_path) / "averages").exists()
