"""What a run writes down besides its checkpoints: settings that repeat it, numbers, samples, losses by level."""

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
from scoresde.nn import MLP
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import DiscreteLossMomentTimesteps
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM
from scoresde.storage import checkpoint, spec
from scoresde.training import Callback, Monitor, Training, loss_by_log_snr, train

LEVELS = Description("levels", (3,), bins=5)
SETTINGS = Training(steps=40, batch_size=8, lr=1e-2, warmup=5, seed=3)


def small(**options) -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ScoreModel(MLP((3,), width=8, depth=1, embedding_width=8, **options), VPSDE())
        nn.init.normal_(model.net.leave.weight, std=0.3)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return model


def levels() -> Data:
    events = torch.randint(5, (30, 3), generator=torch.Generator().manual_seed(0))
    return Data(events[:20], events[20:], LEVELS, torch.arange(20) % 2, torch.arange(10) % 2)


def weights(model: ScoreModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_the_history_with_the_rate_and_the_gradients_length(tmp_path):
    trained = train(small(), levels(), SETTINGS, run_dir=tmp_path)
    found = rows(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in found] == trained.history
    assert [row["lr"] for row in found] == [SETTINGS.lr_at(20), SETTINGS.lr_at(40)]
    assert all(row["norm"] > 0 and row["seconds"] >= 0 for row in found)


def test_the_gradients_length_is_the_one_before_clipping(tmp_path):
    for limit, name in ((None, "free"), (1e-4, "clipped")):
        train(small(), levels(), replace(SETTINGS, steps=1, max_norm=limit), run_dir=tmp_path / name)
    one, two = (rows(tmp_path / name / "metrics.jsonl")[0]["norm"] for name in ("free", "clipped"))
    assert one == two > 1e-2


def test_the_config_says_all_that_the_run_was(tmp_path):
    settings = replace(
        SETTINGS, steps=1, loss=Loss(timesteps=DiscreteLossMomentTimesteps(), hybrid=0.001), lengths=(0.1,)
    )
    model = small(outputs=2)
    model = ScoreModel(model.net, model.sde, model.parameterization, learned_variance=True)
    train(model, levels(), settings, run_dir=tmp_path, about={"data": "levels"})
    config = json.loads((tmp_path / "config.json").read_text())
    known = spec.known_classes(
        scoresde.training, scoresde.objective.loss, scoresde.objective.timesteps, scoresde.objective.weighting
    )
    assert spec.parse(config["training"], known) == settings
    assert config["about"] == {"data": "levels"}
    assert config["model"] == checkpoint.model_settings(model)
    assert config["versions"]["torch"] == torch.__version__


def test_the_config_of_a_run_that_went_on_says_what_it_became_and_keeps_what_is_not_said_anew(tmp_path):
    known = spec.known_classes(
        scoresde.training, scoresde.objective.loss, scoresde.objective.timesteps, scoresde.objective.weighting
    )
    settings = replace(SETTINGS, steps=2, lr_end=1.0)
    train(small(), levels(), settings, run_dir=tmp_path, about={"data": "levels"})
    for about, kept in (({}, "levels"), ({"data": "others"}, "others")):
        settings = replace(settings, steps=settings.steps + 2)
        train(small(), levels(), settings, run_dir=tmp_path, resume=True, about=about)
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["about"] == {"data": kept}
        assert spec.parse(config["training"], known) == settings
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="resumed with the settings and data it was begun with"):
        train(small(), levels(), replace(settings, lr=1.0), run_dir=tmp_path, resume=True)
    assert (tmp_path / "config.json").read_text() == before
    (tmp_path / "config.json").unlink()
    train(small(), levels(), settings, run_dir=tmp_path, resume=True)
    assert json.loads((tmp_path / "config.json").read_text())["about"] == {}
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text(before)
    train(small(), levels(), settings, run_dir=tmp_path / "begun")
    assert json.loads((tmp_path / "begun" / "config.json").read_text())["about"] == {}


def command(*words: object) -> None:
    result = CliRunner().invoke(app, ["train", *map(str, words), "-q"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_run_goes_on_from_its_directory_alone_and_is_repeated_as_long_as_it_became(tmp_path):
    net = ("--network", "MLP(width=8, depth=1)", "--batch-size", 8, "--lr-end", 1, "--watch-every", 0)
    command("--data", "ring", "--out", tmp_path / "one", "--steps", 2, *net)
    command("--resume", "--out", tmp_path / "one", "--steps", 4)
    command("--config", tmp_path / "one", "--out", tmp_path / "two")
    one, two = (checkpoint.read_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert one.meta["step"] == two.meta["step"] == 4
    assert all(torch.equal(v, two.tensors["model"][k]) for k, v in one.tensors["model"].items())
    words = ["train", "--resume", "--out", str(tmp_path / "one"), "--network", "MLP()"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "--resume without --data, says what the model is, got --network too" in " ".join(result.output.split())


def test_a_run_is_repeated_from_its_config_to_the_last_bit(tmp_path):
    net = "MLP(width=16, depth=1, outputs=2, dropout=0.1)"
    command("--data", "digits", "--out", tmp_path / "one", "--network", net, "--steps", 25, "--batch-size", 16,
            "--hybrid", 0.001, "--timesteps", "DiscreteLossMomentTimesteps()", "--weighting", "Simple()", "--lengths", "0.05,0.1",
            "--seed", 5, "--test-fraction", 0.3, "--watch-every", 0)  # fmt: skip
    command("--config", tmp_path / "one", "--out", tmp_path / "two", "--watch-every", 10)
    one, two = (checkpoint.read_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert one.tensors.keys() == two.tensors.keys() >= {"average_1", "times"}
    assert all(torch.equal(v, two.tensors[g][k]) for g, named in one.tensors.items() for k, v in named.items())
    assert one.meta["model"]["learned_variance"] == "True"
    assert len(list((tmp_path / "two" / "samples").glob("*.png"))) == 3
    assert [row["step"] for row in rows(tmp_path / "two" / "levels.jsonl")] == [10, 20, 25]
    command("--config", tmp_path / "one" / "config.json", "--out", tmp_path / "three", "--steps", 3)
    assert checkpoint.read_checkpoint(tmp_path / "three").meta["step"] == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--config", "nowhere"], "is no file"),
        (["--config", "README.md"], "the config.json of a run begun by scoresde train"),
        ([], "got neither --data nor --config"),
        (["--data", "digits", "--lengths", "a"], "numbers with commas between"),
        (["--data", "digits", "--lengths", "0.5"], "a relative length must lie in"),
        (["--data", "digits", "--hybrid", "0.001"], "draw times by DiscreteTimesteps"),
        (["--data", "digits", "--track", "tensorbord"], "did you mean tensorboard"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_sentence(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    if "--track" in words:
        pytest.importorskip("tensorboard")
    result = CliRunner().invoke(app, ["train", *words, "--out", str(tmp_path / "x"), "--steps", "1"])
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())
    assert not (tmp_path / "x" / "checkpoint-000001").exists()


def test_tensorboard_gets_the_numbers_of_the_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small(), levels(), SETTINGS, run_dir=tmp_path, trackers=["tensorboard"])
    (events,) = (path for path in tmp_path.rglob("events.out.tfevents*") if path.parent.name == "scoresde")
    found = EventAccumulator(str(events)).Reload()
    for row, name in ((row, name) for row in rows(tmp_path / "metrics.jsonl") for name in ("loss", "norm", "lr")):
        values = {scalar.step: scalar.value for scalar in found.Scalars(name)}
        assert values[row["step"]] == pytest.approx(row[name], rel=1e-6)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="no tracker 'neptun' is installed here"):
        train(small(), levels(), SETTINGS, run_dir=tmp_path / "run", trackers=["neptun"])
    assert not (tmp_path / "run").exists()


def test_watching_writes_levels_and_samples_with_the_same_noise_and_leaves_the_run_alone(tmp_path):
    (tmp_path / "seen").mkdir()
    watch = Monitor(tmp_path / "seen", levels(), count=4, sampler=DDIM(steps=3))
    model = small(num_classes=2, null_class=True, dropout=0.3)
    plain = train(small(num_classes=2, null_class=True, dropout=0.3), levels(), SETTINGS)
    trained = train(model, levels(), SETTINGS, callbacks=[Callback(16, watch)])
    assert torch.equal(weights(plain.raw), weights(trained.raw))
    found = rows(tmp_path / "seen" / "levels.jsonl")
    assert [row["step"] for row in found] == [16, 32, 40]
    samples = [np.load(tmp_path / "seen" / "samples" / f"step-{step:09d}.npz")["x"] for step in (16, 32, 40)]
    assert all(x.shape == (4, 3) for x in samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x0 = LEVELS.to_model(LEVELS.dequantize(levels().test))
    again = loss_by_log_snr(
        trained.model, x0, 16, generator=torch.Generator().manual_seed(0), cond=torch.arange(10) % 2
    )
    assert found[-1]["loss"] == pytest.approx(again.loss.tolist(), rel=1e-6)
    watch(scoresde.training.CallbackState(20, 0.0, trained.model, trained.raw))  # of a run that went on from step 16
    assert [row["step"] for row in rows(tmp_path / "seen" / "levels.jsonl")] == [16, 20]


def test_pictures_are_shown_by_whoever_can(tmp_path):
    shown = []
    watch = Monitor(tmp_path, levels(), count=2, sampler=DDIM(steps=2), show=lambda *seen: shown.append(seen))
    train(small(), levels(), replace(SETTINGS, steps=1), callbacks=[Callback(1, watch)])
    (path, values, about), *_ = shown
    assert (path, values.shape, about) == (tmp_path / "samples" / "step-000000001", (2, 3), LEVELS)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory in which nobody may write")
def test_a_place_where_nobody_may_write_is_an_error_before_the_first_update(tmp_path):
    called = []
    with pytest.raises(OSError, match="a run directory must be writable"):
        train(small(), levels(), SETTINGS, run_dir="/proc/run", callbacks=[Callback(1, called.append)])
    assert not called


def test_a_disk_that_fills_up_stops_the_run_with_the_last_good_checkpoint_kept(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(moment) -> None:
        if moment.step == 12:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))

    try:
        with pytest.raises(OSError, match="a checkpoint must be writable below .*Earlier checkpoints are as they were"):
            train(small(), levels(), SETTINGS, run_dir=tmp_path, save_every=10, callbacks=[Callback(1, fill)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.read_checkpoint(tmp_path).meta["step"] == 10
    rest = train(small(), levels(), SETTINGS, run_dir=tmp_path, resume=True)
    assert torch.equal(weights(rest.model), weights(train(small(), levels(), SETTINGS).model))
    assert math.isfinite(rest.history[-1][1])
