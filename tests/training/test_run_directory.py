"""Files of a run besides its checkpoints: settings that repeat it, metrics, samples, losses by log-SNR."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import scoresde.objective.loss
import scoresde.objective.timesteps
import scoresde.objective.weighting
import scoresde.training
from scoresde.cli import app
from scoresde.data import Data, Description
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import DiscreteLossMomentTimesteps
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM
from scoresde.storage import checkpoint, spec
from scoresde.training import Callback, Monitor, Training, loss_by_log_snr, train

INTEGERS = Description("integers", (3,), bins=5)
SETTINGS = Training(steps=40, batch_size=8, lr=1e-2, warmup=5, seed=3)


def small(**options) -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ScoreModel(MLP((3,), width=8, depth=1, embedding_width=8, **options), VPSDE())
        nn.init.normal_(model.net.linear_out.weight, std=0.3)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return model


def integer_data() -> Data:
    events = torch.randint(5, (30, 3), generator=torch.Generator().manual_seed(0))
    train_cond, test_cond = ({"label": torch.arange(n) % 2} for n in (20, 10))
    return Data(events[:20], events[20:], INTEGERS, train_cond, test_cond)


def weights(model: ScoreModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_the_history_with_learning_rate_and_gradient_norm(tmp_path):
    trained = train(small(), integer_data(), SETTINGS, run_dir=tmp_path)
    entries = rows(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in entries] == trained.history
    assert [row["lr"] for row in entries] == [SETTINGS.lr_at(20), SETTINGS.lr_at(40)]
    assert all(row["norm"] > 0 and row["seconds"] >= 0 for row in entries)


def test_the_gradient_norm_is_the_one_before_clipping(tmp_path):
    for limit, name in ((None, "unclipped"), (1e-4, "clipped")):
        train(small(), integer_data(), replace(SETTINGS, steps=1, max_norm=limit), run_dir=tmp_path / name)
    one, two = (rows(tmp_path / name / "metrics.jsonl")[0]["norm"] for name in ("unclipped", "clipped"))
    assert one == two > 1e-2


def test_the_config_holds_all_settings_of_the_run(tmp_path):
    settings = replace(
        SETTINGS, steps=1, loss=Loss(timesteps=DiscreteLossMomentTimesteps(), hybrid=0.001), lengths=(0.1,)
    )
    model = small(outputs=2)
    model = ScoreModel(model.net, model.sde, model.parameterization, learned_variance=True)
    train(model, integer_data(), settings, run_dir=tmp_path, about={"data": "integers"})
    config = json.loads((tmp_path / "config.json").read_text())
    known = spec.known_classes(
        scoresde.training, scoresde.objective.loss, scoresde.objective.timesteps, scoresde.objective.weighting
    )
    assert spec.parse(config["training"], known) == settings
    assert config["about"] == {"data": "integers"}
    assert config["model"] == checkpoint.model_settings(model)
    assert config["versions"]["torch"] == torch.__version__


def test_the_config_of_a_resumed_run_has_its_new_settings_and_keeps_its_about(tmp_path):
    known = spec.known_classes(
        scoresde.training, scoresde.objective.loss, scoresde.objective.timesteps, scoresde.objective.weighting
    )
    settings = replace(SETTINGS, steps=2, lr_end=1.0)
    train(small(), integer_data(), settings, run_dir=tmp_path, about={"data": "integers"})
    for about, stored in (({}, "integers"), ({"data": "others"}, "others")):
        settings = replace(settings, steps=settings.steps + 2)
        train(small(), integer_data(), settings, run_dir=tmp_path, resume=True, about=about)
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["about"] == {"data": stored}
        assert spec.parse(config["training"], known) == settings
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="a run is resumed with its own settings and data"):
        train(small(), integer_data(), replace(settings, lr=1.0), run_dir=tmp_path, resume=True)
    assert (tmp_path / "config.json").read_text() == before
    (tmp_path / "config.json").unlink()
    train(small(), integer_data(), settings, run_dir=tmp_path, resume=True)
    assert json.loads((tmp_path / "config.json").read_text())["about"] == {}
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text(before)
    train(small(), integer_data(), settings, run_dir=tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["about"] == {}


def command(*arguments: object) -> None:
    result = CliRunner().invoke(app, ["train", *map(str, arguments), "-q"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_run_is_resumed_from_its_directory_alone_and_repeated_with_its_final_length(tmp_path):
    net = ("--network", "MLP(width=8, depth=1)", "--batch-size", 8, "--lr-end", 1, "--monitor-every", 0)
    command("--data", "ring", "--out", tmp_path / "one", "--steps", 2, *net)
    command("--resume", "--out", tmp_path / "one", "--steps", 4)
    command("--config", tmp_path / "one", "--out", tmp_path / "two")
    one, two = (checkpoint.read_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert one.meta["step"] == two.meta["step"] == 4
    assert all(torch.equal(v, two.tensors["model"][k]) for k, v in one.tensors["model"].items())
    words = ["train", "--resume", "--out", str(tmp_path / "one"), "--network", "MLP()"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "--resume without --data, takes the model of the earlier run, got --network too" in " ".join(
        result.output.split()
    )


def test_a_run_is_repeated_bit_for_bit_from_its_config(tmp_path):
    net = "MLP(width=16, depth=1, outputs=2, dropout=0.1)"
    command("--data", "digits", "--out", tmp_path / "one", "--network", net, "--steps", 25, "--batch-size", 16,
            "--hybrid", 0.001, "--timesteps", "DiscreteLossMomentTimesteps()", "--weighting", "Simple()",
            "--lengths", "0.05,0.1", "--seed", 5, "--test-fraction", 0.3, "--monitor-every", 0)  # fmt: skip
    command("--config", tmp_path / "one", "--out", tmp_path / "two", "--monitor-every", 10)
    one, two = (checkpoint.read_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert one.tensors.keys() == two.tensors.keys() >= {"average_1", "timesteps"}
    assert all(torch.equal(v, two.tensors[g][k]) for g, named in one.tensors.items() for k, v in named.items())
    assert one.meta["model"]["learned_variance"] == "True"
    assert len(list((tmp_path / "two" / "samples").glob("*.png"))) == 3
    assert [row["step"] for row in rows(tmp_path / "two" / "loss_by_log_snr.jsonl")] == [10, 20, 25]
    command("--config", tmp_path / "one" / "config.json", "--out", tmp_path / "three", "--steps", 3)
    assert checkpoint.read_checkpoint(tmp_path / "three").meta["step"] == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--config", "nowhere"], "is not a file"),
        (["--config", "README.md"], "the config.json of a run started by scoresde train"),
        ([], "got neither --data nor --config"),
        (["--data", "digits", "--lengths", "a"], "numbers separated by commas"),
        (["--data", "digits", "--lengths", "0.5"], "a relative length must lie in"),
        (["--data", "digits", "--hybrid", "0.001"], "draw timesteps by DiscreteTimesteps"),
        (["--data", "digits", "--track", "tensorbord"], "did you mean tensorboard"),
    ],
)
def test_the_command_refuses_what_cannot_be_trained_in_one_sentence(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    if "--track" in words:
        pytest.importorskip("tensorboard")
    result = CliRunner().invoke(app, ["train", *words, "--out", str(tmp_path / "x"), "--steps", "1"])
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())
    assert not (tmp_path / "x" / "checkpoint-000001").exists()


def test_tensorboard_gets_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small(), integer_data(), SETTINGS, run_dir=tmp_path, trackers=["tensorboard"])
    (events,) = (path for path in tmp_path.rglob("events.out.tfevents*") if path.parent.name == "scoresde")
    accumulator = EventAccumulator(str(events)).Reload()
    for row, name in ((row, name) for row in rows(tmp_path / "metrics.jsonl") for name in ("loss", "norm", "lr")):
        values = {scalar.step: scalar.value for scalar in accumulator.Scalars(name)}
        assert values[row["step"]] == pytest.approx(row[name], rel=1e-6)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="tracker 'neptun' is not installed"):
        train(small(), integer_data(), SETTINGS, run_dir=tmp_path / "run", trackers=["neptun"])
    assert not (tmp_path / "run").exists()


def test_a_monitor_writes_losses_and_samples_with_the_same_noise_and_does_not_change_the_run(tmp_path):
    (tmp_path / "monitored").mkdir()
    monitor = Monitor(tmp_path / "monitored", integer_data(), samples=4, sampler=DDIM(steps=3))
    model = small(conditions={"label": Classes(2)}, dropout=0.3)
    plain = train(small(conditions={"label": Classes(2)}, dropout=0.3), integer_data(), SETTINGS)
    trained = train(model, integer_data(), SETTINGS, callbacks=[Callback(16, monitor)])
    assert torch.equal(weights(plain.raw), weights(trained.raw))
    losses = rows(tmp_path / "monitored" / "loss_by_log_snr.jsonl")
    assert [row["step"] for row in losses] == [16, 32, 40]
    samples = [np.load(tmp_path / "monitored" / "samples" / f"step-{step:09d}.npz")["x"] for step in (16, 32, 40)]
    assert all(x.shape == (4, 3) for x in samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x0 = INTEGERS.to_model(INTEGERS.dequantize(integer_data().test))
    expected = loss_by_log_snr(
        trained.model, x0, 16, generator=torch.Generator().manual_seed(0), label=torch.arange(10) % 2
    )
    assert losses[-1]["loss"] == pytest.approx(expected.loss.tolist(), rel=1e-6)
    monitor(scoresde.training.CallbackState(20, 0.0, trained.model, trained.raw))  # of a run resumed from step 16
    assert [row["step"] for row in rows(tmp_path / "monitored" / "loss_by_log_snr.jsonl")] == [16, 20]


def test_a_monitor_saves_samples_by_the_callers_function(tmp_path):
    saved = []
    monitor = Monitor(
        tmp_path,
        integer_data(),
        samples=2,
        sampler=DDIM(steps=2),
        save_samples=lambda *arguments: saved.append(arguments),
    )
    train(small(), integer_data(), replace(SETTINGS, steps=1), callbacks=[Callback(1, monitor)])
    (path, values, description), *_ = saved
    assert (path, values.shape, description) == (
        tmp_path / "samples" / "step-000000001",
        (2, 3),
        integer_data().description,
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory in which nobody may write")
def test_a_directory_that_is_not_writable_is_an_error_before_the_first_update(tmp_path):
    calls = []
    with pytest.raises(OSError, match="a run directory must be writable"):
        train(small(), integer_data(), SETTINGS, run_dir="/proc/run", callbacks=[Callback(1, calls.append)])
    assert not calls


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (1000, "a checkpoint must be writable below .*Earlier checkpoints are unchanged"),
        (50, "the metrics of a run must be writable, .*Its checkpoints are unchanged"),
    ],
)
def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, size, message):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(state) -> None:
        if state.step == 12:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    try:
        with pytest.raises(OSError, match=message):
            train(small(), integer_data(), SETTINGS, run_dir=tmp_path, save_every=10, callbacks=[Callback(1, fill)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.read_checkpoint(tmp_path).meta["step"] == 10
    resumed = train(small(), integer_data(), SETTINGS, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(resumed.model), weights(train(small(), integer_data(), SETTINGS).model))
    assert math.isfinite(resumed.history[-1][1])
