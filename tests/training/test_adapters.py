"""Low-rank adapters: the same start, only they change, merged checkpoints, exact resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as sd
from scoresde.nn import Classes
from scoresde.storage import checkpoint
from scoresde.training import Callback
from scoresde.training.adapters import adapter_tensors, add_adapters, has_adapters, load_adapters

pytest.importorskip("peft", reason="low-rank adaptation needs peft")


def model(**options: Any) -> sd.ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = sd.MLP((2,), width=16, depth=2, embedding_width=16, **options)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return sd.ScoreModel(net, sd.VPSDE(), event_shape=(2,))


def events() -> Tensor:
    return torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


X = torch.linspace(-1, 1, 10).reshape(5, 2)
SETTINGS = sd.Training(steps=6, batch_size=16, lr=1e-2)


def test_adapters_change_nothing_until_they_are_trained_and_are_drawn_from_their_seed():
    plain, adapted, again = model(), model(), model()
    state = torch.get_rng_state()
    layers = add_adapters(adapted.net, 4, seed=1)
    add_adapters(again.net, 4, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert "blocks.0.linear_in" in layers
    with torch.no_grad():
        torch.testing.assert_close(adapted(X, 0.3).eps, plain(X, 0.3).eps, rtol=0, atol=1e-6)
    for name, tensor in adapter_tensors(adapted.net).items():
        assert torch.equal(tensor, adapter_tensors(again.net)[name])


def test_only_the_adapters_change_and_the_saved_run_loads_without_them(tmp_path):
    trained = model()
    layers = add_adapters(trained.net, 4)
    base = {n: p.clone() for n, p in trained.net.named_parameters() if ".lora_" not in n}
    result = sd.train(trained, events(), SETTINGS, run_dir=tmp_path, progress=False)
    assert has_adapters(trained.net)
    for name, parameter in trained.net.named_parameters():
        if name in base:
            assert torch.equal(parameter, base[name]), name
    loaded = sd.load(tmp_path)
    assert not has_adapters(loaded.net)
    with torch.no_grad():
        torch.testing.assert_close(loaded(X, 0.3).eps, result.model(X, 0.3).eps, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(loaded(X, 0.3).eps, model()(X, 0.3).eps, atol=1e-3)
    raw, before = sd.load(tmp_path, raw=True).net.state_dict(), model().net.state_dict()
    for name in before:
        rank = 0 if raw[name].ndim < 2 else int(torch.linalg.matrix_rank(raw[name] - before[name], atol=1e-5))
        assert rank <= 4, name
        assert (rank > 0) == (name.removesuffix(".weight") in layers), name


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    def adapted() -> sd.ScoreModel:
        new = model()
        add_adapters(new.net, 2)
        return new

    def fail(_: object) -> None:
        raise RuntimeError("enough")

    whole = sd.train(adapted(), events(), SETTINGS, progress=False)
    with pytest.raises(RuntimeError, match="enough"):
        sd.train(
            adapted(), events(), SETTINGS, run_dir=tmp_path, save_every=2, callbacks=[Callback(5, fail)], progress=False
        )
    resumed = sd.train(adapted(), events(), SETTINGS, run_dir=tmp_path, resume=True, progress=False)
    for a, b in zip(whole.raw.parameters(), resumed.raw.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="resumed with its own adapters"):
        sd.train(model(), events(), SETTINGS, run_dir=tmp_path, resume=True, progress=False)


def test_weights_of_a_new_condition_are_trained_as_a_whole(tmp_path):
    checkpoint.save(model(), tmp_path)
    new = model(conditions={"label": Classes(3)})
    copied = sd.start_from(new, tmp_path)
    add_adapters(new.net, 2, trained=copied.new)
    labels = torch.arange(64) % 3
    before = new.net.get_submodule("conditioning.label_embedding.table").weight.clone()  # pyright: ignore
    data = sd.Data(events(), events()[:0], sd.Description("x", (2,)), {"label": labels})
    sd.train(new, data, SETTINGS, progress=False)
    assert not torch.equal(before, new.net.get_submodule("conditioning.label_embedding.table").weight)  # pyright: ignore


def test_images_and_networks_in_networks_have_adapters_too(tmp_path):
    net = sd.UNet((1, 8, 8), channels=8, multipliers=(1, 2), outputs=3)
    wrapped = sd.ScoreModel(sd.QuantizedSkip(net, 16, -1.0, 1.0), sd.VPSDE())
    layers = add_adapters(wrapped.net, 2)
    assert "net.conv_in" not in layers  # one channel is no wider than the rank
    assert any("conv" in name for name in layers)
    for name, parameter in wrapped.net.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    sd.save(wrapped, tmp_path)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(sd.load(tmp_path)(x, 0.3).eps, wrapped.eval()(x, 0.3).eps, rtol=1e-4, atol=1e-5)


def test_adapters_that_do_not_fit_are_refused(tmp_path):
    adapted = model()
    add_adapters(adapted.net, 2)
    with pytest.raises(ValueError, match="adapters once"):
        add_adapters(adapted.net, 2)
    with pytest.raises(ValueError, match="wider than their rank, got none for 99"):
        add_adapters(model().net, 99)
    with pytest.raises(ValueError, match="rank must be a positive integer"):
        add_adapters(model().net, 0)
    other = model()
    add_adapters(other.net, 3)
    with pytest.raises(ValueError, match="the same rank"):
        load_adapters(other.net, adapter_tensors(adapted.net))
    with pytest.raises(ValueError, match=r"one average, got lengths=\(0.1,\)"):
        sd.train(adapted, events(), sd.Training(steps=1, batch_size=4, lengths=(0.1,)), progress=False)


def test_the_command_line_adapts_a_run_and_records_it(tmp_path: Path):
    from command_line import one_line, run

    small = ("--network", "MLP(width=16, depth=1)", "--batch-size", 16, "--monitor-every", 0, "--device", "cpu", "-q")
    assert run("train", "--data", "ring", "--out", tmp_path / "a", "--steps", 2, *small).exit_code == 0
    more = ("--batch-size", 16, "--monitor-every", 0, "--device", "cpu", "-q")
    start = ("train", "--from", tmp_path / "a", "--condition", "label", "--lora", 2, "--out", tmp_path / "b")
    result = run(*start, "--steps", 3, "--lr-end", 1, *more)
    assert result.exit_code == 0, result.output
    assert "adapters of rank 2 in" in one_line(result)
    about = json.loads((tmp_path / "b" / "config.json").read_text())["about"]
    assert (about["lora"], about["new"]) == (2, ["conditioning.label_embedding.table.weight"])
    resumed = run("train", "--resume", "--out", tmp_path / "b", "--steps", 4, *more)
    assert resumed.exit_code == 0, resumed.output
    assert run("sample", tmp_path / "b", "--label", 3, "-n", 2, "--sampler", "DDIM(steps=2)", "-q").exit_code == 0
    for options, message in (
        (
            ("--data", "ring", "--lora", 2),
            "adapters of the weights of another run, and freezes the rest, got no --from",
        ),
        (("--from", tmp_path / "a", "--lora", 2, "--freeze", "blocks.*"), "got --freeze too"),
    ):
        refused = run("train", *options, "--out", tmp_path / "c", *more)
        assert refused.exit_code == 2
        assert message in one_line(refused)
