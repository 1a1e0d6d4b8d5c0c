"""Models on the Hub: the folder, its card, an upload and a download, both replaced by copies of folders."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import scoresde as sd
from scoresde.adapters import FromStep
from scoresde.bridges.hub import from_pretrained, model_card, push_to_hub, save_pretrained
from scoresde.data import Description
from scoresde.sampling import Calibration, ExplicitGrid, Moments, NonStationary, Whitened
from scoresde.storage.checkpoint import load_calibration, read_checkpoint, save_calibration

DATA = Description("eight | gray\nlevels", (2,), bins=8)


@pytest.fixture
def model() -> sd.ScoreModel:
    return sd.ScoreModel(sd.MLP((2,), width=8, depth=1), sd.VPSDE(), sd.V(), data=DATA).eval()


@pytest.fixture
def run(model: sd.ScoreModel, tmp_path: Path) -> Path:
    """A training run with averaged weights and a calibrated sampler."""
    folder = tmp_path / "run"
    sd.train(model, 8 * torch.rand(64, 2), sd.Training(steps=3, batch_size=8), run_dir=folder)
    taus = sd.Adams().grid.times(model.sde, 2)
    fitted = NonStationary(2, ExplicitGrid(tuple(taus)), weights=((1.0, -0.5), (1.0, -0.4, -0.2)))
    moments = Moments(torch.tensor([0.3, -0.2]), torch.eye(2)[:, :1], torch.tensor([0.4]), 0.8)
    save_calibration(folder, Calibration(Whitened(fitted, moments), sd.Adams(2), 0.1, 0.2, 0.1, 8))
    return folder


def same(a: sd.ScoreModel, b: sd.ScoreModel) -> bool:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    return torch.equal(a.eval()(x, 0.4).out, b(x, 0.4).out) and a.sde == b.sde and a.data == b.data


def test_a_model_survives_a_folder(model: sd.ScoreModel, tmp_path: Path) -> None:
    folder = save_pretrained(model, tmp_path / "mine")
    assert same(model, from_pretrained(folder))
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name: scoresde\n")


def test_of_a_run_the_weights_and_the_calibrations_are_taken(run: Path, tmp_path: Path) -> None:
    folder = save_pretrained(run, tmp_path / "mine")
    assert same(sd.load(run), from_pretrained(folder))
    assert same(sd.load(run, raw=True), from_pretrained(folder, raw=True))
    stored = read_checkpoint(folder)
    assert set(stored.tensors) == {"model", "ema"}
    assert set(stored.meta) == {"model"}  # no optimizer, no loss, nothing of the training
    sampler = load_calibration(folder, sd.Adams(2)).sampler
    assert sampler == load_calibration(run, sd.Adams(2)).sampler
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "the folder has fitted versions of `Adams(steps=2, " in card


def test_the_card_states_data_likelihood_and_sampler(model: sd.ScoreModel) -> None:
    card = model_card(model, "mine", bits_per_dim=2.3456, bits_error=0.0123, sampler=sd.DDPM(250), license="mit")
    assert "| name | eight gray levels |" in card
    assert "| values | integers in [0, 8) |" in card
    assert "| scaling | model units = (data - 4) / 4 |" in card
    assert "2.346 ± 0.012 bits per dimension (standard error over the test events)." in card
    assert "Recommended sampler: `sd.DDPM(steps=250)`" in card
    assert "output | `V(sigma_data=1.0)`" in card
    plain = model_card(model, "mine", bits_per_dim=2.0)
    assert "2 bits per dimension; its error is not stated." in plain
    assert "No likelihood was measured." in model_card(model, "mine")
    assert "model-index" not in model_card(model, "mine")


def test_the_card_names_the_network_within_an_adapter(model: sd.ScoreModel) -> None:
    clock = sd.LinearBetas(steps=10)
    adapted = sd.ScoreModel(FromStep(torch.nn.Linear(2, 2), clock, 10), sd.VPSDE(clock), event_shape=(2,))
    assert "| network | `FromStep around Linear`, 6 parameters |" in model_card(adapted, "mine")
    assert "| network | `MLP`, " in model_card(model, "mine")


def test_the_code_of_the_card_draws_samples(model: sd.ScoreModel, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for sampler in (sd.Adams(3), sd.sampling.ERSDE(3)):
        shutil.rmtree(folder, ignore_errors=True)
        save_pretrained(model, folder, sampler=sampler, repo=str(folder))
        code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        assert code is not None
        names: dict[str, Any] = {}
        exec(code[1], names)
        assert names["samples"].shape == (16, 2)


def test_the_hub_reads_the_card(model: sd.ScoreModel) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(model_card(model, "a: 'b'", bits_per_dim=2.5, license="mit", tags=["im: age"]))
    assert card.data.library_name == "scoresde"
    assert card.data.tags == ["scoresde", "diffusion", "im: age"]
    assert card.data.license == "mit"
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value) == ("bits_per_dim", 2.5)
    assert (result.dataset_name, card.data.model_name) == ("eight gray levels", "a: 'b'")


def test_an_upload_and_a_download_give_the_model_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    remote = tmp_path / "remote"
    calls: list[Any] = []

    class Api:
        def __init__(self, token: str | None) -> None:
            calls.append(token)

        def create_repo(self, repo: str, **options: Any) -> None:
            calls.append((repo, options))

        def upload_folder(self, folder_path: Path, ignore_patterns: list[str], **_: Any) -> str:
            shutil.copytree(folder_path, remote, ignore=shutil.ignore_patterns(*ignore_patterns))
            return "https://example.org/commit"

    def download(name: str, allow_patterns: list[str], **_: Any) -> str:
        cache = tmp_path / "cache"
        kept = hub.utils.filter_repo_objects(
            [str(path.relative_to(remote)) for path in remote.rglob("*") if path.is_file()],
            allow_patterns=allow_patterns,
        )
        for entry in kept:
            (cache / entry).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(remote / entry, cache / entry)
        calls.append(name)
        return str(cache)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert push_to_hub(run, "someone/ring", private=True, token="t", bits_per_dim=1.5) == "https://example.org/commit"
    (remote / "evil.py").write_text("raise SystemExit")
    loaded = from_pretrained("someone/ring")
    assert calls == ["t", ("someone/ring", {"private": True, "exist_ok": True}), "someone/ring"]
    assert same(sd.load(run), loaded)
    assert load_calibration(tmp_path / "cache", sd.Adams(2)).sampler.sampler.steps == 2  # pyright: ignore
    assert not (tmp_path / "cache" / "evil.py").exists()
    assert not list(remote.rglob(".*"))
    text = (remote / "README.md").read_text(encoding="utf-8")
    assert "# ring\n" in text
    assert 'from_pretrained("someone/ring")' in text
    assert json.loads((next(remote.glob("checkpoint-*")) / "state.json").read_text())["version"] == 1


def test_what_is_neither_a_folder_nor_a_repository_is_answered_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def absent(*_: Any, **__: Any) -> str:
        raise OSError("401 Client Error.\nDetails")

    monkeypatch.setattr(hub, "snapshot_download", absent)
    with pytest.raises(FileNotFoundError, match=r"'runs/mine' must be a folder or .*no such folder .*401 Client Error"):
        from_pretrained("runs/mine")


def test_wrong_uses_are_answered(model: sd.ScoreModel, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(FileExistsError, match="the folder must be new or empty"):
        save_pretrained(model, tmp_path / "full")
    with pytest.raises(FileNotFoundError, match="a repository is user/name"):
        from_pretrained(tmp_path / "absent")
    with pytest.raises(ValueError, match="bits_error is the error of bits_per_dim, which is missing"):
        model_card(model, "mine", bits_error=0.1)
    with pytest.raises(ValueError, match="bits_per_dim must be finite, got nan"):
        model_card(model, "mine", bits_per_dim=float("nan"))
    with pytest.raises(TypeError, match="model must be a Model"):
        save_pretrained(model.net, tmp_path / "new")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="bits"):
        save_pretrained(model, tmp_path / "new", bits=3)
    assert not (tmp_path / "new").exists()
