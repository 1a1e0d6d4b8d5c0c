"""Training: updates of the weights, what an update depends on, interrupted runs and failures."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import scoresde.objective.loss
import scoresde.objective.timesteps
import scoresde.objective.weighting
import scoresde.training
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.cli import app
from scoresde.data import Data, Description, load_data
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes, UNet
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import ImportanceTimesteps, LossMomentTimesteps, StratifiedTimesteps
from scoresde.objective.weighting import (
    ELBO,
    P2,
    SNR,
    CustomWeighting,
    LikelihoodWeighting,
    MinSNR,
    Simple,
    Weighting,
)
from scoresde.process.parameterization import X0
from scoresde.process.sde import VPSDE
from scoresde.storage import checkpoint, spec
from scoresde.training import Callback, CallbackState, Monitor, Training, loss_by_log_snr, train
from scoresde.training.batches import Batches
from scoresde.training.ema import EMA
from scoresde.training.multi_process import accelerated, preserved_random_state
from scoresde.training.state import TrainingState

CPU = torch.device("cpu")
INTEGERS = Description("integers", (3,), bins=5)
SHORT = Training(steps=24, batch_size=8, lr=1e-2, warmup=5, accumulate=2, seed=3)


def small(dropout: float = 0.0, shape: tuple[int, ...] = (3,), **options) -> ScoreModel:
    """A model with a nonzero output layer, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ScoreModel(MLP(shape, width=8, depth=1, embedding_width=8, dropout=dropout, **options), VPSDE())
        nn.init.normal_(model.net.linear_out.weight, std=0.3)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return model


def integer_data(n: int = 20) -> Data:
    events = torch.randint(5, (n, 3), generator=torch.Generator().manual_seed(0))
    return Data(events, events[:0], INTEGERS, {"label": torch.arange(n) % 2})


def weights(model: ScoreModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stop_at(step: int) -> Callback:
    def call(state) -> None:
        if state.step == step:
            raise KeyboardInterrupt

    return Callback(1, call)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    with accelerated("no", CPU) as accelerator, preserved_random_state(CPU):
        yield accelerator


def test_training_on_a_ring_closes_most_of_the_gap_to_the_exact_score(generator):
    exact = GaussianMixture.ring(std=0.25)
    model = ScoreModel(MLP((2,), width=64, depth=2), VPSDE())
    train_part, test_part = (exact.sample(n, generator=generator).float() for n in (4000, 20_000))

    def gap() -> tuple[float, float]:
        """E|eps_hat - eps|^2 on new data minus its minimum, the exact score's, at the same timesteps and noise."""
        own, minimum = (Loss()(m, test_part, torch.Generator().manual_seed(5)).detach() for m in (model, exact))
        return (own - minimum).mean().item(), (own - minimum).std().item() / math.sqrt(len(test_part))

    before, _ = gap()
    trained = train(model, train_part, Training(steps=400, batch_size=256, lr=5e-3, lr_end=0.0, warmup=50, ema=0.98))
    assert trained.raw is model
    model = trained.model
    after, stderr = gap()
    assert after > -4 * stderr
    assert after + 4 * stderr < 0.3 * before
    assert [step for step, _ in trained.history] == list(range(20, 401, 20))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("stop", [1, 6, 13, 23])
def test_an_interrupted_and_resumed_run_ends_bit_for_bit_as_one_that_was_not(tmp_path, stop, optimizer):
    settings = replace(SHORT, optimizer=optimizer)
    model, whole = small(dropout=0.3), train(small(dropout=0.3), integer_data(), settings, run_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(
            model, integer_data(), settings, run_dir=tmp_path / "interrupted", save_every=5, callbacks=[stop_at(stop)]
        )
    resumed = train(small(dropout=0.3), integer_data(), settings, run_dir=tmp_path / "interrupted", resume=True)
    one, two = (checkpoint.read_checkpoint(tmp_path / name) for name in ("whole", "interrupted"))
    assert one.tensors.keys() == two.tensors.keys() == {"model", "ema", "optimizer"}
    for group, named in one.tensors.items():
        for name, tensor in named.items():
            assert torch.equal(tensor, two.tensors[group][name]), f"{group} {name}"
    assert torch.equal(weights(whole.model), weights(resumed.model))
    assert whole.history == resumed.history
    assert not torch.equal(weights(whole.model), weights(whole.raw))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_network_in_channels_last_format_keeps_each_moment_with_its_weight(tmp_path, optimizer):
    def build() -> ScoreModel:
        torch.manual_seed(1)
        return ScoreModel(UNet((2, 4, 4), 8, (1,), blocks=1, attention=(), groups=2), VPSDE())

    x, settings = torch.randn(8, 2, 4, 4), Training(steps=6, batch_size=4, optimizer=optimizer, warmup=2)
    whole = train(build(), x, settings)
    with pytest.raises(KeyboardInterrupt):
        train(build(), x, settings, run_dir=tmp_path, save_every=3, callbacks=[stop_at(5)])
    resumed = train(build(), x, settings, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(whole.model), weights(resumed.model))


KILLED = """
import sys, torch
sys.path[:0] = {path!r}
torch.set_num_threads({threads})
from test_training import SHORT, Callback, integer_data, small, train
import os, signal
train(small(dropout=0.3), integer_data(), SHORT, run_dir=sys.argv[1], save_every=1,
      callbacks=[Callback(1, lambda m: m.step == 11 and os.kill(os.getpid(), signal.SIGKILL))])
"""


def test_a_killed_run_is_resumed_from_its_last_checkpoint(tmp_path):
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    program = KILLED.format(path=paths, threads=torch.get_num_threads())
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert checkpoint.read_checkpoint(tmp_path).meta["step"] == 10
    resumed = train(small(dropout=0.3), integer_data(), SHORT, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(resumed.model), weights(train(small(dropout=0.3), integer_data(), SHORT).model))


def test_load_returns_the_models_that_training_saved(tmp_path):
    trained = train(small(), integer_data(), SHORT, run_dir=tmp_path)
    averaged, raw = checkpoint.load(tmp_path), checkpoint.load(tmp_path, raw=True)
    assert torch.equal(weights(averaged), weights(trained.model))
    assert torch.equal(weights(raw), weights(trained.raw))
    assert averaged.data == trained.model.data == integer_data().description
    assert not any(m.training for m in [*averaged.modules(), *trained.model.modules(), *trained.raw.modules()])
    text = json.loads((Path(str(trained.checkpoint)) / "state.json").read_text())["meta"]["training"]
    known = spec.known_classes(
        scoresde.training, scoresde.objective.loss, scoresde.objective.timesteps, scoresde.objective.weighting
    )
    assert spec.parse(text, known) == SHORT


def test_a_longer_run_at_a_constant_rate_continues_a_shorter_one(tmp_path):
    short = Training(steps=8, batch_size=4, warmup=2)
    longer = Training(steps=12, batch_size=4, warmup=2)
    train(small(), integer_data(), short, run_dir=tmp_path)
    resumed = train(small(), integer_data(), longer, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(resumed.raw), weights(train(small(), integer_data(), longer).raw))
    with pytest.raises(ValueError, match="steps must be at least the 12 done, got 8"):
        train(small(), integer_data(), short, run_dir=tmp_path, resume=True)


def test_the_global_random_state_does_not_change_even_after_an_exception():
    def state() -> list:
        return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]  # noqa: NPY002

    before = state()
    train(small(dropout=0.3), integer_data(), SHORT, callbacks=[Callback(3, lambda m: torch.rand(3))])
    assert state() == before
    with pytest.raises(KeyboardInterrupt):
        train(small(), integer_data(), SHORT, callbacks=[stop_at(2)])
    assert state() == before


def test_weights_depend_on_the_seed_and_not_on_the_callers_random_state():
    one = train(small(dropout=0.3), integer_data(), SHORT)
    torch.rand(7)
    two = train(small(dropout=0.3), integer_data(), SHORT)
    other = train(small(dropout=0.3), integer_data(), Training(**{**vars(SHORT), "seed": 4}))
    assert torch.equal(weights(one.model), weights(two.model))
    assert not torch.allclose(weights(one.model), weights(other.model))


def test_without_an_update_weights_and_average_are_the_initial_ones():
    model = small()
    before = weights(model)
    trained = train(model, integer_data(), Training(steps=0))
    assert torch.equal(weights(trained.model), before)
    assert torch.equal(weights(trained.raw), before)
    assert trained.step == 0
    assert trained.history == []


def test_the_average_follows_its_recursion_with_frozen_and_tied_weights_and_buffers():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
            self.two.weight = self.one.weight
            self.one.bias.requires_grad_(False)
            self.register_buffer("count", torch.zeros(1))

    net = Net()
    average, expected = EMA(net), net.one.weight.detach().clone()
    bias = net.one.bias.clone()
    for n in range(4):
        decay = Training(ema=0.3).ema_at(n)
        assert decay == min(0.3, (1 + n) / (10 + n))
        net.one.weight.data += 1.0
        net.count += 1  # pyright: ignore[reportOperatorIssue]
        average.update(decay)
        expected = decay * expected + (1 - decay) * net.one.weight.detach()
    own: Net = average.net  # pyright: ignore[reportAssignmentType]
    assert torch.allclose(own.one.weight, expected, atol=1e-6)
    assert own.two.weight is own.one.weight
    assert torch.equal(own.one.bias, bias)
    assert not own.one.bias.requires_grad
    assert torch.equal(own.count, net.count)  # pyright: ignore[reportArgumentType]


def test_the_average_tracks_parameters_that_were_replaced_before_the_start(accelerator):
    run = TrainingState(small(), integer_data(), SHORT, accelerator)
    for p in run.model.parameters():
        p.data = p.data.clone()  # as by moving a module to cpu:0 in several processes
    before = weights(run.ema_model)
    run.start()
    run.advance()
    decay = SHORT.ema_at(0)
    assert torch.allclose(weights(run.ema_model), decay * before + (1 - decay) * weights(run.model), atol=1e-6)


class Poisoned(nn.Module):
    """A network whose output is NaN in calls ``first`` ... ``last``, counted from 1."""

    def __init__(self, first: int, last: float) -> None:
        super().__init__()
        self.inner, self.range, self.calls = nn.Linear(3, 3), (first, last), 0

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x) * (math.nan if self.range[0] <= self.calls <= self.range[1] else 1.0)


def test_a_run_stops_after_patience_gradients_that_are_not_finite_and_keeps_the_checkpoint_before(tmp_path):
    settings = Training(steps=100, batch_size=4, patience=7)
    model = ScoreModel(Poisoned(12, math.inf), VPSDE())
    with pytest.raises(RuntimeError, match=r"9 in a row that are not, from update 12 on .*checkpoint-000003"):
        train(model, integer_data(), settings, run_dir=tmp_path, save_every=5)
    assert checkpoint.read_checkpoint(tmp_path).meta["step"] == 10
    assert torch.isfinite(weights(model)).all()


def test_an_update_whose_gradient_is_not_finite_is_skipped():
    settings = Training(steps=9, batch_size=4, patience=3, ema=None)
    model = ScoreModel(Poisoned(5, 6), VPSDE())
    by_step = {}
    trained = train(
        model,
        integer_data(),
        settings,
        callbacks=[Callback(1, lambda state: by_step.update({state.step: weights(state.raw)}))],
    )
    assert torch.equal(by_step[4], by_step[6])
    assert not torch.equal(by_step[6], by_step[7])
    assert trained.model is trained.raw
    assert math.isfinite(trained.history[-1][1])


def test_an_overflow_in_fp16_advances_neither_step_nor_average_nor_optimizer(accelerator):
    model = small()
    model.net.linear_out.weight.data *= 1e4  # pyright: ignore[reportAttributeAccessIssue, reportOperatorIssue]
    run = TrainingState(model, integer_data(), SHORT, accelerator)
    assert run.ema is not None
    run.start()
    run.advance()
    averaged, raw = ([p.clone() for p in net.parameters()] for net in (run.ema.net, run.model.net))
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1e38, backoff_factor=1e-36)
    run.advance()
    assert run.step == 1
    assert all(torch.equal(a, b) for a, b in zip(averaged, run.ema.net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(raw, run.model.net.parameters()))
    assert run.read_means().skipped == 1
    run.advance()
    assert run.step == 2
    assert run.read_means().skipped == 0
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        train(small(), integer_data(), Training(precision="fp16"), device="cpu")


def test_bf16_keeps_the_weights_in_full_precision_and_comes_near_to_it():
    settings = {**vars(SHORT), "ema": None}
    full = train(small(), integer_data(), Training(**settings)).raw
    half = train(small(), integer_data(), Training(**{**settings, "precision": "bf16"})).raw
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    distance = (weights(full) - weights(small())).norm()
    assert 0 < (weights(full) - weights(half)).norm() < 0.2 * distance


def pair(one: Weighting, two: Weighting) -> object:
    return pytest.param(one, two, id=f"{type(one).__name__}-{type(two).__name__}")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pair(Simple(), SNR(power=1)),
        pair(Simple(), MinSNR(gamma=math.inf)),
        pair(ELBO(), LikelihoodWeighting()),
        pair(P2(k=1, gamma=1), CustomWeighting(lambda m: m.sigma**2)),
    ],
)
def test_weightings_with_equal_values_train_the_same_weights(one, two):
    trained = [
        train(small().double(), integer_data(), Training(steps=5, batch_size=16, loss=Loss(w), max_norm=None))
        for w in (one, two)
    ]
    assert torch.allclose(weights(trained[0].raw), weights(trained[1].raw), rtol=0, atol=1e-9)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_is_that_of_the_mean_loss_per_dimension_over_the_batch(accumulate, accelerator):
    settings = Training(batch_size=12, accumulate=accumulate, max_norm=None, loss=Loss(ELBO(), ImportanceTimesteps()))
    run = TrainingState(small().double(), integer_data(), settings, accelerator)
    reported = run._accumulate_gradient()
    total = torch.zeros((), dtype=torch.float64)
    for shard in range(accumulate):
        x0, _ = run.batches.draw(0, shard)
        total = total + settings.loss(run.model, x0).sum() / (12 * 3)
    for p, grad in zip(run.weights, torch.autograd.grad(total, run.weights)):
        assert torch.allclose(p.grad, grad, rtol=1e-12)  # pyright: ignore[reportArgumentType]
    assert reported.item() == pytest.approx(total.item(), rel=1e-6)


def test_clipping_bounds_the_norm_of_the_optimizers_gradient(monkeypatch, accelerator):
    run = TrainingState(small(), integer_data(), Training(batch_size=8, max_norm=1e-3), accelerator)
    gradients = []
    monkeypatch.setattr(run.optimizer, "step", lambda: gradients.extend(p.grad for p in run.weights))
    run.advance()
    assert torch.cat([grad.flatten() for grad in gradients]).norm() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("batch", [4, 14, 60])
def test_each_epoch_holds_every_event_once_in_a_new_order_for_any_sharding(batch):
    one, two = (Batches(small(), integer_data(20), Training(batch_size=batch), CPU, shards) for shards in (1, 2))
    steps = 60 // math.gcd(batch, 60)
    stream = torch.cat([one.indices(step, 0) for step in range(steps)])
    assert torch.equal(stream, torch.cat([two.indices(k, shard) for k in range(steps) for shard in (0, 1)]))
    epochs = stream[: len(stream) // 20 * 20].reshape(-1, 20)
    assert all(torch.equal(epoch.sort().values, torch.arange(20)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_integer_values_are_dequantized_in_each_update_within_their_bin():
    data = integer_data(20)
    batches = Batches(small(), data, Training(batch_size=20), CPU, 1)
    with torch.random.fork_rng(devices=[]):
        draws = [batches.draw(step, 0)[0] for step in (0, 1, 1)]
    for step, x0 in zip((0, 1, 1), draws):
        assert torch.equal(INTEGERS.to_data(x0), data.train[batches.indices(step, 0)].to(torch.uint8))
    positions = [2.5 * x0 + 2.5 - INTEGERS.to_data(x0) for x0 in draws]
    assert not torch.allclose(positions[0], positions[1])
    assert torch.equal(draws[1], draws[2])


def test_a_network_with_classes_gets_labels_and_condition_dropout_has_its_probability():
    model = small(conditions={"label": Classes(2)})
    batches = Batches(model, integer_data(20), Training(batch_size=2000, condition_dropout=0.25), CPU, 1)
    with torch.random.fork_rng(devices=[]):
        cond = batches.draw(0, 0)[1]["label"]
    labeled = cond != 2
    assert torch.equal(cond[labeled], (batches.indices(0, 0) % 2)[labeled])
    assert abs((~labeled).float().mean().item() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000)
    train(model, integer_data(20), Training(steps=2, batch_size=4))
    assert Batches(small(), integer_data(20), Training(batch_size=4), CPU, 1).draw(0, 0)[1] == {}


def test_labels_outside_the_networks_classes_are_refused_before_the_model_changes():
    events, settings = integer_data(6).train, Training(steps=1, batch_size=3)
    for cond, text in (
        (
            {"label": torch.tensor([1, 2, 1, 2, 1, 1])},
            "condition 'label' has 3 classes in the data, the network Classes",
        ),
        ({}, "a network with the condition 'label' needs it in the data, they have none; .*condition=label"),
        ({"label": torch.ones(6, 1)}, "must be integers"),
    ):
        model = small(conditions={"label": Classes(2)})
        with pytest.raises(ValueError, match=text):
            train(model, Data(events, events[:0], INTEGERS, cond), settings)
        assert model.data is None


def test_labels_of_any_integer_type_are_accepted_and_others_are_refused():
    events = integer_data(6).train
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool):
        data = Data(events, events[:0], INTEGERS, {"label": (torch.arange(6) % 2).to(dtype)})
        assert (
            train(small(conditions={"label": Classes(2, null=False)}), data, Training(steps=1, batch_size=3)).step == 1
        )
    with pytest.raises(ValueError, match=r"train_cond\['label'\] must be integers, 0, 1, ..., got torch.float32"):
        Data(events, events[:0], INTEGERS, {"label": torch.zeros(6)})


def test_callbacks_are_called_at_their_steps_and_cannot_change_the_training():
    plain, steps = train(small(dropout=0.3), integer_data(), SHORT), []

    def call(state) -> None:
        steps.append(state.step)
        assert not any(m.training for m in state.model.modules())
        assert not torch.equal(weights(state.model), weights(state.raw))
        state.raw.eval()

    trained = train(small(dropout=0.3), integer_data(), SHORT, callbacks=[Callback(7, call)])
    assert steps == [7, 14, 21, 24]
    assert torch.equal(weights(trained.raw), weights(plain.raw))


def test_after_an_exception_in_a_callback_the_model_has_that_steps_raw_weights():
    by_step = {}
    train(
        small(),
        integer_data(),
        SHORT,
        callbacks=[Callback(1, lambda state: by_step.update({state.step: weights(state.raw)}))],
    )
    model = small()
    with pytest.raises(KeyboardInterrupt):
        train(model, integer_data(), SHORT, callbacks=[stop_at(5)])
    assert torch.equal(weights(model), by_step[5])


def test_resuming_with_other_settings_data_or_model_is_refused_with_a_list_of_differences(tmp_path):
    train(small(), integer_data(), SHORT, run_dir=tmp_path)
    other = Training(**{**vars(SHORT), "lr": 0.5, "loss": Loss(MinSNR())})
    with pytest.raises(ValueError, match=r"loss = .*Simple.*, asked for is .*MinSNR.*; lr = 0.01, asked for is 0.5"):
        train(small(), integer_data(), other, run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="events = "):
        train(small(), integer_data(19), SHORT, run_dir=tmp_path, resume=True)
    model = ScoreModel(small().net, VPSDE(), X0())
    with pytest.raises(ValueError, match="parameterization V"):
        train(model, integer_data(), SHORT, run_dir=tmp_path, resume=True)


def test_a_refused_run_does_not_change_the_model():
    model = small()
    before = model.event_shape
    with pytest.raises(ValueError, match="batch_size must be a multiple of"):
        train(model, integer_data(), Training(steps=1, batch_size=3, accumulate=2))
    assert model.data is None
    assert model.event_shape == before


def test_settings_compare_numbers_and_not_their_spelling(tmp_path):
    train(small(), integer_data(), Training(steps=2, batch_size=4, lr=1, lr_end=1), run_dir=tmp_path)
    longer = Training(steps=3, batch_size=4, lr=1.0, lr_end=1.0)
    assert train(small(), integer_data(), longer, run_dir=tmp_path, resume=True).step == 3
    with pytest.raises(ValueError, match=r"lr = 1.0, asked for is 1\.5"):
        train(small(), integer_data(), replace(longer, lr=1.5), run_dir=tmp_path, resume=True)


def test_a_new_run_refuses_a_directory_with_averages(tmp_path):
    settings = Training(steps=2, batch_size=4, lengths=(0.1,))
    train(small(), integer_data(), settings, run_dir=tmp_path, snapshot_every=1)
    for path in tmp_path.glob("checkpoint-*"):
        shutil.rmtree(path)
    with pytest.raises(FileExistsError, match="a new run needs a directory without checkpoints and averages"):
        train(small(), integer_data(), settings, run_dir=tmp_path)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_in_the_last_update_is_not_lost(tmp_path, number, error):
    def call(state) -> None:
        if state.step == SHORT.steps:
            os.kill(os.getpid(), number)

    with pytest.raises(error):
        train(small(), integer_data(), SHORT, run_dir=tmp_path, callbacks=[Callback(1, call)])
    assert checkpoint.read_checkpoint(tmp_path).meta["step"] == SHORT.steps


def test_the_average_copies_a_buffer_that_the_network_replaces():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)
            self.register_buffer("count", torch.zeros(1))

    net = Net()
    average = EMA(net)
    for step in range(3):
        net.count = net.count + 1  # pyright: ignore[reportOperatorIssue]
        average.update(0.5)
        assert average.net.count == step + 1


def test_a_run_is_never_started_or_resumed_in_a_wrong_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="there must be a checkpoint"):
        train(small(), integer_data(), SHORT, run_dir=tmp_path / "absent", resume=True)
    assert not (tmp_path / "absent").exists()
    with pytest.raises(ValueError, match="got run_dir=None"):
        train(small(), integer_data(), SHORT, resume=True)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="a run directory must be writable"):
            train(small(), integer_data(), SHORT, run_dir=folder)
    train(small(), integer_data(), Training(steps=1, batch_size=4), run_dir=tmp_path / "run")
    with pytest.raises(FileExistsError, match="pass resume=True"):
        train(small(), integer_data(), SHORT, run_dir=tmp_path / "run")
    (tmp_path / "locked").mkdir()
    with (
        checkpoint.only_writer(tmp_path / "locked"),
        pytest.raises(RuntimeError, match="one writer"),
    ):
        train(small(), integer_data(), SHORT, run_dir=tmp_path / "locked")


def test_a_setting_without_a_text_form_is_refused_before_training(tmp_path):
    settings = Training(steps=1, loss=Loss(CustomWeighting(lambda m: m.sigma)))
    with pytest.raises(TypeError, match="Training.loss.weighting.function is a"):
        train(small(), integer_data(), settings, run_dir=tmp_path)
    assert train(small(), integer_data(), settings).step == 1


def test_data_that_do_not_fit_the_model_are_refused():
    x = torch.zeros(6, 3)
    x[4, 1] = math.nan
    with pytest.raises(ValueError, match=r"data must be finite, got nan at index \(4, 1\)"):
        train(small(), x)
    with pytest.raises(ValueError, match="at least one event"):
        train(small(), x[:0])
    with pytest.raises(ValueError, match=r"the model's shape \(3,\), got \(4,\)"):
        train(ScoreModel(small().net, VPSDE(), event_shape=(3,)), torch.zeros(5, 4))
    with pytest.raises(TypeError, match="in model units, got torch.int64; pass a Data"):
        train(small(), torch.zeros(5, 3, dtype=torch.int64))
    made_for = ScoreModel(small().net, VPSDE(), data=Description("other", (3,), bins=9))
    with pytest.raises(ValueError, match="data must have the model's description"):
        train(made_for, integer_data())
    with pytest.raises(ValueError, match=r"data must lie in \[0, 9\), got 9"):
        train(made_for, torch.full((2, 3), 9))
    with pytest.raises(ValueError, match="multiple of accumulate x processes = 3, got 128"):
        train(small(), integer_data(), Training(accumulate=3))
    with pytest.raises(TypeError, match="model must be a ScoreModel, got a Gaussian; train the ScoreModel inside it"):
        train(Gaussian(torch.zeros(3), 1.0), integer_data())  # pyright: ignore[reportArgumentType]
    frozen = small().requires_grad_(False)
    with pytest.raises(ValueError, match="unfreeze some"):
        train(frozen, integer_data())


@pytest.mark.parametrize("dataset", ["tensors", "pairs"])
def test_a_data_loader_is_refused_with_the_call_that_works(dataset):
    x = torch.randn(6, 3)
    events = TensorDataset(x) if dataset == "tensors" else [(row, 0) for row in x]
    loader: Any = DataLoader(events, batch_size=2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="got a DataLoader") as refused:
        train(small(), loader)
    call = re.search(r"sd\.train\(model, (.*), sd\.Training\(batch_size=2\)\)", str(refused.value))
    assert call is not None
    assert torch.equal(eval(call[1], {"loader": loader, "torch": torch}), x)


def test_training_refuses_settings_out_of_range():
    for name, value, text in [
        ("steps", 1.5, "steps must be an integer of at least 0, got 1.5"),
        ("batch_size", 0, "batch_size must be a positive integer, got 0"),
        ("lr", math.nan, "lr must be positive and finite, got nan; 0.001 is the default"),
        ("ema", 1.0, "ema must lie in"),
        ("betas", (0.9, 1.0), "betas must be two numbers"),
        ("precision", "fp15", "unknown precision 'fp15'; did you mean fp16"),
        ("optimizer", "Moun", "unknown optimizer 'Moun'; did you mean muon"),
        ("max_norm", -1.0, "max_norm must be positive or None"),
    ]:
        with pytest.raises(ValueError, match=text):
            Training(**{name: value})
    with pytest.raises(TypeError, match="loss must be an? Objective"):
        Training(loss=MinSNR())  # pyright: ignore[reportArgumentType]


def test_the_learning_rate_rises_linearly_and_falls_along_half_a_cosine():
    settings = Training(steps=110, lr=2.0, warmup=10, lr_end=0.1)
    assert [settings.lr_at(k) for k in (1, 5, 10)] == pytest.approx([0.2, 1.0, 2.0])
    assert settings.lr_at(60) == pytest.approx(2.0 * 0.55)
    assert settings.lr_at(110) == pytest.approx(0.2)
    assert Training(steps=5, lr=2.0, warmup=0).lr_at(1) == 2.0


def test_a_gaussians_loss_by_log_snr_is_its_closed_form(generator):
    variance = 0.25
    model = Gaussian(torch.full((2,), 0.7, dtype=torch.float64), variance)
    result = loss_by_log_snr(model, model.sample(4000, generator=generator), 9, repeats=2, generator=generator)
    snr = result.log_snr.exp()
    expected = variance * snr / (variance * snr + 1)  # Var(eps | x) of jointly normal variables
    assert ((result.loss - expected).abs() < 4 * result.stderr).all()
    assert (result.log_snr.diff() < 0).all()
    weighted = loss_by_log_snr(model, model.sample(9), [0.0], loss=Loss(CustomWeighting(lambda m: 3.0 + 0.0 * m.tau)))
    assert weighted.loss.item() > 0
    with pytest.raises(ValueError, match="the number of events must be a positive integer, got 0"):
        loss_by_log_snr(model, torch.zeros(0, 2))
    for level in (60.0, -60.0, math.nan):
        with pytest.raises(ValueError, match=f"a level must lie within the process, .*, got {level}"):
            loss_by_log_snr(model, model.sample(9), [0.0, level])


def test_accelerates_state_is_restored_so_that_runs_may_differ_in_precision():
    before = Accelerator(mixed_precision="no")
    train(small(), integer_data(), Training(steps=1, precision="bf16"), device="cpu")
    assert before.mixed_precision == "no"
    assert os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "no"


class _ReadCounter(TorchDispatchMode):
    """Counts reads of values from the device; on a GPU each would be a wait."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def test_neither_averages_nor_adaptive_timesteps_read_a_value_in_an_update(accelerator):
    counts = {}
    for name, timesteps, lengths in (
        ("plain", StratifiedTimesteps(), ()),
        ("all", LossMomentTimesteps(bins=4, memory=1), (0.05, 0.1)),
    ):
        settings = Training(batch_size=8, loss=Loss(timesteps=timesteps), lengths=lengths)
        run = TrainingState(small(), integer_data(), settings, accelerator)
        run.start()
        for _ in range(3):
            run.advance()
        with _ReadCounter() as reads:
            run.advance()
        counts[name] = reads.count
    assert counts["all"] == counts["plain"]  # the remaining reads check times, on the CPU only


def test_integer_values_are_dequantized_in_each_update_or_at_bin_centers() -> None:
    data = integer_data(20)
    dequantized, centers = (
        Batches(small(), data, Training(batch_size=20, dequantize=d), CPU, 1) for d in (True, False)
    )
    description = data.description
    index = centers.indices(0, 0)
    exact = description.to_model(description.center(data.train[index]))
    assert torch.equal(centers.draw(0, 0)[0], exact)
    x0, later = dequantized.draw(0, 0)[0], dequantized.draw(1, 0)[0]
    assert not torch.equal(x0, exact)
    assert torch.equal(description.to_data(x0), data.train[index])
    assert not torch.equal(x0[0], later[0])
    with pytest.raises(TypeError, match="dequantize must be True or False, got 'center'"):
        Training(dequantize="center")  # type: ignore[arg-type]


def last_losses(folder: Path) -> list[float]:
    return json.loads((folder / "loss_by_log_snr.jsonl").read_text().splitlines()[-1])["loss"]


@pytest.mark.parametrize("dequantize", [True, False])
def test_a_monitor_dequantizes_as_its_setting_says(tmp_path, dequantize) -> None:
    model, data = small(), integer_data()
    Monitor(tmp_path, data, samples=0, dequantize=dequantize)(CallbackState(1, 0.0, model, model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dequantized, centers = INTEGERS.dequantize(data.train), INTEGERS.center(data.train)
    losses = [
        loss_by_log_snr(model, INTEGERS.to_model(y), 16, generator=torch.Generator().manual_seed(0)).loss.tolist()
        for y in (dequantized, centers)
    ]
    assert last_losses(tmp_path) == losses[0 if dequantize else 1] != losses[1 if dequantize else 0]


def test_the_command_monitors_integer_values_as_its_run_is_trained_on_them(tmp_path) -> None:
    def command(*arguments: object) -> None:
        arguments = ("train", *arguments, "--device", "cpu", "-q")
        result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    command("--data", "digits", "--out", tmp_path / "one", "--network", "MLP(width=8, depth=1)", "--steps", 1,
            "--batch-size", 4, "--monitor-every", 0)  # fmt: skip
    config = tmp_path / "one" / "config.json"
    text = config.read_text()
    assert text.count("dequantize=True") == 1
    config.write_text(text.replace("dequantize=True", "dequantize=False"))
    command("--config", config, "--out", tmp_path / "two", "--monitor-every", 1)
    model = checkpoint.load(tmp_path / "two")
    (tmp_path / "repeated").mkdir()
    Monitor(tmp_path / "repeated", load_data("digits"), samples=0, dequantize=False)(
        CallbackState(1, 0.0, model, model)
    )
    assert last_losses(tmp_path / "two") == last_losses(tmp_path / "repeated")


def test_mixed_precision_inside_a_callers_autocast_trains_on_the_current_weights(generator: torch.Generator) -> None:
    data, weights = torch.randn(64, 2, generator=generator), []
    for outer in (False, True):
        torch.manual_seed(0)
        model = ScoreModel(MLP((2,), width=16, depth=1), VPSDE(), event_shape=(2,))
        with torch.autocast("cpu", torch.bfloat16, enabled=False) if outer else contextlib.nullcontext():
            settings = Training(steps=10, batch_size=16, warmup=0, lr=1e-2, ema=None, precision="bf16")
            trained = train(model, data, settings).model
        weights.append(torch.cat([weight.flatten() for weight in trained.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=0)
