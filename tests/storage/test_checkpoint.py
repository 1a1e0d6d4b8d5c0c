"""Checkpoints: written atomically, checked for damage, never unpickled, read bit for bit."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde.adapters import FromStep
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process.parameterization import Eps, PosteriorMean, V
from scoresde.process.schedule import Cosine, LinearBetas, LinearVP
from scoresde.process.sde import VPSDE
from scoresde.storage.checkpoint import (
    latest_checkpoint,
    load,
    load_into,
    load_optimizer,
    only_writer,
    optimizer_state,
    read_checkpoint,
    require_same,
    save,
    write_checkpoint,
    writing,
)


def needs_fork(test):
    """Skips a test without os.fork; newer Pythons warn of forks of threads, which the child does not use."""
    test = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")(test)
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")(test)


def _tensors(value: float, size: int = 1000) -> dict[str, dict[str, Tensor]]:
    return {"model": {"w": torch.full((size,), value)}, "ema": {"w": torch.full((3, 2), -value)}}


def _equal_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))


def _bytes(a: Tensor) -> Tensor:
    return a.contiguous().reshape(-1).view(torch.uint8) if a.numel() else a.reshape(-1)


# --- a directory of tensors ------------------------------------------------------------------------------------------


TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
def test_tensors_of_every_type_and_shape_round_trip_bit_for_bit(tmp_path, dtype, shape, generator):
    tensor = (1e3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    assert _equal_bits(
        read_checkpoint(write_checkpoint(tmp_path, {"model": {"w": tensor}}, {})).tensors["model"]["w"], tensor
    )


def test_nan_payloads_infinities_and_strided_views_round_trip_bit_for_bit(tmp_path):
    odd = torch.tensor([0x7FC00001, 0x7F800000, 0x80000000 - 2**32, 1], dtype=torch.int32).view(torch.float32)
    view = torch.arange(24.0).reshape(4, 6).T[1:5:2]
    stored = read_checkpoint(write_checkpoint(tmp_path, {"model": {"odd": odd, "view": view}}, {})).tensors["model"]
    assert _equal_bits(stored["odd"], odd)
    assert _equal_bits(stored["view"], view)


def test_metadata_round_trips(tmp_path):
    meta = {"step": 7, "loss": 0.1 + 0.2, "names": ["é", None, True], "nested": {"a": {"b": []}}, "end": float("inf")}
    assert read_checkpoint(write_checkpoint(tmp_path, {}, meta)).meta == meta


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, torch.zeros(1), {"a": [object()]}, b"x"])
def test_metadata_that_json_would_change_is_refused(tmp_path, value):
    with pytest.raises(TypeError, match=r"meta is JSON, meta\['m'\].* is a .*pass strings, numbers"):
        write_checkpoint(tmp_path, {}, {"m": value})


def test_a_saved_tensor_does_not_change_with_the_original(tmp_path):
    weight = torch.zeros(3)
    path = write_checkpoint(tmp_path, {"model": {"w": weight}}, {})
    weight += 1
    assert torch.equal(read_checkpoint(path).tensors["model"]["w"], torch.zeros(3))


def test_tied_tensors_are_stored_once_and_read_under_each_name(tmp_path, generator):
    shared = torch.randn(1000, generator=generator)
    path = write_checkpoint(
        tmp_path, {"model": {"a": shared, "b": shared, "part": shared[:10], "copy": shared.clone()}}, {}
    )
    stored = read_checkpoint(path).tensors["model"]
    assert all(_equal_bits(stored[name], shared) for name in ("a", "b", "copy"))
    assert _equal_bits(stored["part"], shared[:10])
    assert 8000 < (path / "model.safetensors").stat().st_size < 9000  # a and copy, not b


@pytest.mark.parametrize("group", ["../x", "a/b", "", "a.b"])
def test_a_group_whose_name_is_no_file_name_is_refused(tmp_path, group):
    with pytest.raises(ValueError, match="a group of tensors is named in letters"):
        write_checkpoint(tmp_path, {group: {}}, {})


@pytest.mark.parametrize("keep", [0, -1, 1.5])
def test_keeping_no_checkpoint_is_refused(tmp_path, keep):
    with pytest.raises(ValueError, match="keep must be a positive integer, got"):
        write_checkpoint(tmp_path, {}, {}, keep=keep)


def test_a_checkpoint_is_not_a_run_directory(tmp_path):
    path = write_checkpoint(tmp_path, {}, {})
    assert latest_checkpoint(path) == path
    with pytest.raises(ValueError, match="a run directory holds checkpoints, .* is itself a checkpoint; save to"):
        write_checkpoint(path, {}, {})


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for k in range(5):
        write_checkpoint(tmp_path, _tensors(k), {"step": k}, keep=2)
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["checkpoint-000004", "checkpoint-000005"]
    assert read_checkpoint(tmp_path).meta == {"step": 4}


def test_a_damaged_checkpoint_does_not_count_among_those_kept(tmp_path):
    good = write_checkpoint(tmp_path, _tensors(1), {"step": 1}, keep=2)
    bad = write_checkpoint(tmp_path, _tensors(2), {"step": 2}, keep=2)
    (bad / "ema.safetensors").write_bytes(b"")
    write_checkpoint(tmp_path, _tensors(3), {"step": 3}, keep=2)
    assert read_checkpoint(good).meta == {"step": 1}


# --- killed, full, read-only -----------------------------------------------------------------------------------------


def _run_and_kill(work, after: float | None = None) -> None:
    """Runs `work(ready)` in a child that is killed by its own signal 9, or ``after`` seconds after its `ready()`."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # a fork has no other threads, and would wait for those of a parallel sum
        try:
            work(lambda: os.write(write, b"."))
        finally:
            os._exit(1)
    if after is not None:
        os.read(read, 1)
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    os.close(read)
    os.close(write)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def _check_survivors(run: Path, at_least: int) -> None:
    checkpoint = read_checkpoint(latest_checkpoint(run))
    step = checkpoint.meta["step"]
    assert step >= at_least
    assert all(torch.equal(checkpoint.tensors[k]["w"], v["w"]) for k, v in _tensors(step, 200_000).items())


@needs_fork
def test_a_run_killed_at_any_moment_of_saving_can_be_loaded_and_is_cleaned_up(tmp_path):
    def forever(ready, first: int) -> None:
        for step in range(first, 10**6):
            write_checkpoint(tmp_path, _tensors(step, 200_000), {"step": step})
            ready()

    wait = random.Random(0)
    reached = -1
    for _ in range(12):
        _run_and_kill(lambda ready, first=reached + 1: forever(ready, first), after=wait.uniform(0.0, 0.1))
        _check_survivors(tmp_path, reached + 1)
        reached = read_checkpoint(tmp_path).meta["step"]
    write_checkpoint(tmp_path, _tensors(reached + 1), {"step": reached + 1})
    assert not list(tmp_path.glob(".saving-*/"))
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


@needs_fork
@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5])
def test_a_save_killed_at_each_of_its_stages_leaves_a_readable_checkpoint(tmp_path, monkeypatch, stage):
    write_checkpoint(tmp_path, _tensors(0, 200_000), {"step": 0})
    calls = []

    def sync_or_die(path: Path) -> None:
        calls.append(path)
        if len(calls) == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "sync", sync_or_die)
        _run_and_kill(lambda ready: write_checkpoint(tmp_path, _tensors(1, 200_000), {"step": 1}))
    _check_survivors(tmp_path, 1 if stage == 5 else 0)
    assert read_checkpoint(latest_checkpoint(tmp_path)).meta["step"] == (1 if stage == 5 else 0)
    write_checkpoint(tmp_path, _tensors(2), {"step": 2})
    assert read_checkpoint(tmp_path).meta["step"] == 2
    assert not list(tmp_path.glob(".saving-*/"))


def test_a_full_disk_is_an_error_and_the_previous_checkpoint_stays(tmp_path):
    resource = pytest.importorskip("resource")
    write_checkpoint(tmp_path, _tensors(1), {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="a checkpoint must be writable below .*Earlier checkpoints are unchanged"):
            write_checkpoint(tmp_path, _tensors(2), {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_checkpoint(tmp_path).meta == {"step": 1}
    assert not list(tmp_path.glob(".saving-*/"))


def test_a_disk_that_is_full_at_the_last_byte_is_an_error_with_its_number(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, _tensors(1), {"step": 1})

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "sync", full)
    with pytest.raises(OSError, match="writable below .*No space left on device") as caught:
        write_checkpoint(tmp_path, _tensors(2), {"step": 2})
    assert caught.value.errno == errno.ENOSPC
    assert read_checkpoint(tmp_path).meta == {"step": 1}
    assert not list(tmp_path.glob(".saving-*/"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write everywhere")
def test_a_read_only_directory_is_an_error_and_the_previous_checkpoint_stays(tmp_path):
    write_checkpoint(tmp_path, _tensors(1), {"step": 1})
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="a checkpoint must be writable below"):
            write_checkpoint(tmp_path, _tensors(2), {"step": 2})
        assert read_checkpoint(tmp_path).meta == {"step": 1}
    finally:
        tmp_path.chmod(0o755)


def test_a_run_directory_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="a checkpoint must be writable below"):
        write_checkpoint(tmp_path / "file" / "run", {}, {})


def test_an_interrupted_save_leaves_no_files(tmp_path, monkeypatch):
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path, _tensors(1), {})
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path):
    pytest.importorskip("fcntl")
    with (
        only_writer(tmp_path, ".saving.lock"),
        pytest.raises(RuntimeError, match="a run directory has one writer, another process"),
    ):
        write_checkpoint(tmp_path, {}, {})
    assert write_checkpoint(tmp_path, {}, {}).is_dir()


# --- damage and malice -----------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_detected_and_the_undamaged_checkpoint_named(tmp_path):
    write_checkpoint(tmp_path, _tensors(1, 20), {"step": 1})
    newest = write_checkpoint(tmp_path, _tensors(2, 20), {"step": 2})
    for path in sorted(newest.iterdir()):
        content = path.read_bytes()
        for i in range(len(content)):
            path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
            with pytest.raises(RuntimeError, match=rf"{path.name} .*the newest undamaged one is .*checkpoint-000001"):
                read_checkpoint(tmp_path)
        path.write_bytes(content)
    assert read_checkpoint(tmp_path).meta == {"step": 2}


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "state.json"])
def test_a_truncated_or_missing_file_is_detected_and_skipped_with_a_warning(tmp_path, name):
    good = write_checkpoint(tmp_path, _tensors(1), {"step": 1})
    path = write_checkpoint(tmp_path, _tensors(2), {"step": 2}) / name
    content = path.read_bytes()
    for size in (0, 5, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(RuntimeError, match=rf"{name} .*the newest undamaged one is .*checkpoint-000001"):
            read_checkpoint(tmp_path)
    path.unlink()
    with pytest.raises(RuntimeError, match=f"{name} is missing"):
        read_checkpoint(tmp_path)
    with pytest.warns(UserWarning, match=f"damaged checkpoints are skipped: .*{name}"):
        assert latest_checkpoint(tmp_path) == good


def test_a_run_of_damaged_checkpoints_only_is_an_error(tmp_path):
    (write_checkpoint(tmp_path, {}, {}) / "state.json").write_text("{}")
    with pytest.raises(RuntimeError, match="got only damaged ones"):
        latest_checkpoint(tmp_path)
    with pytest.raises(RuntimeError, match="the run has no undamaged one"):
        read_checkpoint(tmp_path)


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def _forge(folder: Path, group: str) -> None:
    """Writes checksums that match the files, as an attacker would."""
    state = json.loads((folder / "state.json").read_text())
    path = folder / f"{group}.safetensors"
    state["files"][group] = {"bytes": path.stat().st_size, "sha256": writing.digest_file(path)}
    state["sha256"] = writing.digest({k: v for k, v in state.items() if k != "sha256"})
    (folder / "state.json").write_text(json.dumps(state))


def test_the_permissions_of_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        saved = write_checkpoint(tmp_path, {"model": {"w": torch.zeros(2)}}, {})
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in saved.iterdir()} == {
        "model.safetensors": 0o640,
        "state.json": 0o640,
    }


@pytest.mark.parametrize("target", ["state.json", "model.safetensors", "forged", "other files", "file", "archive"])
def test_a_malicious_pickle_is_never_executed(tmp_path, target):
    mark = tmp_path / "executed"
    bomb = pickle.dumps(_Bomb(mark))
    pickle.loads(bomb)
    assert mark.exists()  # unpickling would run it
    mark.unlink()
    folder = write_checkpoint(tmp_path / "run", _tensors(1), {})
    if target in ("file", "archive"):
        path = tmp_path / "model.pt"
        path.write_bytes(bomb) if target == "file" else torch.save(_Bomb(mark), path)
        with pytest.raises(ValueError, match="a checkpoint is a directory .*not opened, since pickles can run code"):
            read_checkpoint(path)
    elif target == "other files":
        (folder / "model.pt").write_bytes(bomb)
        (folder / "optimizer.pkl").write_bytes(bomb)
        read_checkpoint(folder)
    else:
        (folder / ("model.safetensors" if target == "forged" else target)).write_bytes(bomb)
        if target == "forged":
            _forge(folder, "model")
        with pytest.raises(RuntimeError, match="a checkpoint must be as it was saved"):
            read_checkpoint(folder)
    assert not mark.exists()


def test_a_forged_name_cannot_read_files_outside_the_checkpoint(tmp_path):
    folder = write_checkpoint(tmp_path, _tensors(1), {})
    outside = tmp_path / "secret.safetensors"
    shutil.copy(folder / "model.safetensors", outside)
    _forge(folder, "../secret")
    with pytest.raises(RuntimeError, match="names a file outside the directory"):
        read_checkpoint(folder)


def test_nothing_in_the_package_unpickles():
    for path in Path(next(iter(scoresde.__path__))).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # foreign files: torch's weights-only loader, in a process with limits, and how to export weights elsewhere
        for known in ('torch.load(path, map_location="cpu", weights_only=True', "torch.load(file, weights_only=False)"):
            text = text.replace(known, "") if path.parent.name == "weights" else text
        for call in ("import pickle\n", "from pickle ", "torch.load(", ".load_state(", "allow_pickle=True"):
            assert call not in text, f"{path.name} has {call}"


def test_a_newer_format_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path, {}, {})
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, "version": 2}))
    with pytest.raises(RuntimeError, match="version 2, this reads"):
        read_checkpoint(folder)


def test_a_missing_checkpoint_is_an_error_with_a_remedy(tmp_path):
    for read in (read_checkpoint, latest_checkpoint, load):
        with pytest.raises(FileNotFoundError, match="there must be a checkpoint at .*pass a run directory"):
            read(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError, match=r"there must be a checkpoint in .*, it holds nothing"):
            read(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="it holds notes.txt"):
        latest_checkpoint(tmp_path)


# --- into modules and optimizers -------------------------------------------------------------------------------------


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.register_buffer("count", torch.tensor(5))


def test_tied_weights_and_buffers_are_restored_tied(tmp_path):
    module, other = _Tied(), _Tied()
    load_into(other, read_checkpoint(write_checkpoint(tmp_path, {"model": module.state_dict()}, {})).tensors["model"])
    assert all(_equal_bits(v, other.state_dict()[k]) for k, v in module.state_dict().items())
    assert other.a.weight is other.b.weight


def test_every_missing_extra_and_different_tensor_is_listed_and_nothing_is_loaded():
    module = _Tied()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    tensors = {k: torch.ones_like(v) for k, v in before.items()}
    del tensors["a.bias"], tensors["b.bias"]
    tensors.update({"c": torch.zeros(1), "a.weight": torch.zeros(3, 4), "count": torch.tensor(1.0)})
    with pytest.raises(
        ValueError, match=r"missing: a\.bias, b\.bias; extra: c; different: .*a\.weight is float32\[3, 4\]"
    ):
        load_into(module, tensors)
    with pytest.raises(ValueError, match=r"count is float32\[\] in the checkpoint and int64\[\] in the module"):
        load_into(module, tensors)
    assert all(_equal_bits(v, before[k]) for k, v in module.state_dict().items())


def test_different_tensors_are_not_loaded_into_tied_weights():
    module = _Tied()
    tensors = {k: v.clone() for k, v in module.state_dict().items()}
    tensors["b.weight"] += 1
    with pytest.raises(ValueError, match=r"tied in the module but unequal in the checkpoint: a\.weight = b\.weight"):
        load_into(module, tensors)


def _optimizer(net: nn.Sequential, kind: str) -> torch.optim.Optimizer:
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[1].parameters(), "weight_decay": 0.5}]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    return torch.optim.AdamW(groups, lr=torch.tensor(0.01) if kind == "tensor lr" else 0.01, amsgrad=kind == "amsgrad")


def _steps(net: nn.Sequential, optimizer: torch.optim.Optimizer, inputs: Tensor) -> None:
    for x in inputs:
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["adamw", "amsgrad", "sgd", "tensor lr"])
def test_steps_after_restoring_an_optimizer_equal_those_of_an_uninterrupted_run(tmp_path, generator, dtype, kind):
    inputs = torch.randn(6, 8, 4, generator=generator).to(dtype)
    net, restored = (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)).to(dtype) for _ in range(2))
    optimizer = _optimizer(net, kind)
    _steps(net, optimizer, inputs[:3])
    tensors, text = optimizer_state(optimizer)
    path = write_checkpoint(tmp_path, {"model": net.state_dict(), "optimizer": tensors}, {"optimizer": text})
    _steps(net, optimizer, inputs[3:])

    stored, resumed = read_checkpoint(path), _optimizer(restored, kind)
    load_into(restored, stored.tensors["model"])
    load_optimizer(resumed, stored.tensors["optimizer"], stored.meta["optimizer"])
    _steps(restored, resumed, inputs[3:])
    assert all(_equal_bits(v, restored.state_dict()[k]) for k, v in net.state_dict().items())
    (one, rest), (two, other_rest) = optimizer_state(optimizer), optimizer_state(resumed)
    assert one.keys() == two.keys()
    assert all(_equal_bits(one[k], two[k]) for k in one)
    assert rest == other_rest
    untouched = read_checkpoint(path).tensors["optimizer"]
    assert all(_equal_bits(v, untouched[k]) for k, v in stored.tensors["optimizer"].items())


def test_an_optimizer_of_another_class_or_of_other_parameters_is_refused():
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    optimizer = _optimizer(net, "adamw")
    _steps(net, optimizer, torch.ones(1, 8, 4))
    tensors, text = optimizer_state(optimizer)
    with pytest.raises(ValueError, match="must have the class it was saved with, AdamW, got SGD"):
        load_optimizer(_optimizer(net, "sgd"), tensors, text)
    with pytest.raises(ValueError, match="must have the shapes it was saved with"):
        load_optimizer(torch.optim.AdamW(net.parameters()), tensors, text)
    with pytest.raises(ValueError, match="named like state.0.exp_avg, got 'w'"):
        load_optimizer(_optimizer(net, "adamw"), {"w": torch.zeros(1)}, text)


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class Own(nn.Module):
    width: int = 3

    def __post_init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2 * self.width)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.layer(x)[:, :2] * log_snr.unsqueeze(1)


class Unwritable(Own):
    """A network without a text form: a setting is a function."""

    def __init__(self, activation: object = torch.tanh) -> None:
        nn.Module.__init__(self)
        self.width = activation  # type: ignore[assignment]
        self.layer = nn.Linear(2, 2)


def _model(net: nn.Module | None = None, **kinds) -> ScoreModel:
    data = Description("table", (2,), offset=(0.5, -1.0), scale=(2.0, 1 / 3))
    settings = {"sde": VPSDE(Cosine(), tau_min=1e-4), "parameterization": V(0.5), "data": data, **kinds}
    return ScoreModel(MLP((2,), width=8, depth=1) if net is None else net, **settings)


def _randomized(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in net.parameters():
            p.normal_()
    return net


def _same_function(a: ScoreModel, b: ScoreModel) -> bool:
    x = torch.linspace(-1, 1, 10).reshape(5, 2).to(next(a.parameters()).dtype)
    a.eval()
    return torch.equal(a(x, 0.3).x0, b(x, 0.3).x0)


@pytest.mark.parametrize("parameterization", [V(0.5), Eps(), PosteriorMean(LinearBetas(), 1000)], ids=str)
def test_a_model_is_rebuilt_from_its_directory_alone(tmp_path, parameterization):
    model = _model(parameterization=parameterization, sde=VPSDE(LinearBetas()))
    _randomized(model.net)
    save(model, tmp_path, meta={"step": 3})
    loaded = load(tmp_path)
    assert (loaded.sde, loaded.parameterization, loaded.data) == (model.sde, model.parameterization, model.data)
    assert loaded.event_shape == (2,)
    assert not loaded.training
    assert _same_function(model, loaded)
    require_same(read_checkpoint(tmp_path), loaded)


def test_a_model_without_data_in_double_precision_round_trips(tmp_path):
    model = _model(data=None).double()
    _randomized(model.net)
    loaded = load(save(model, tmp_path))
    assert loaded.data is None
    assert loaded.event_shape == model.event_shape
    assert next(loaded.parameters()).dtype == torch.float64
    assert _same_function(model, loaded)


def test_the_averaged_weights_are_loaded_unless_the_raw_ones_are_requested(tmp_path):
    model, averaged = _model(), _model()
    _randomized(model.net)
    _randomized(averaged.net)
    save(model, tmp_path, ema=averaged)
    assert _same_function(averaged, load(tmp_path))
    assert _same_function(model, load(tmp_path, raw=True))
    with pytest.raises(ValueError, match="ema must have the names of the model's tensors"):
        save(model, tmp_path, ema=torch.optim.swa_utils.AveragedModel(model.net))


def test_loading_does_not_change_the_global_random_state(tmp_path):
    save(_model(), tmp_path)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_expected_settings_are_refused(tmp_path):
    model = _model()
    save(model, tmp_path)
    load(tmp_path, parameterization=V(0.5), sde=model.sde, data=model.data)
    with pytest.raises(ValueError, match=r"has parameterization V\(sigma_data=0\.5\), asked for is Eps\(\)"):
        load(tmp_path, parameterization=Eps())
    with pytest.raises(ValueError, match="has sde VPSDE.*Cosine.*asked for is VPSDE.*Linear"):
        load(tmp_path, sde=VPSDE(LinearVP()))
    with pytest.raises(ValueError, match="has data .*scale=.2.0, .*asked for is .*scale=.1.0, "):
        load(tmp_path, data=Description("table", (2,), offset=(0.5, -1.0), scale=(1.0, 1 / 3)))
    with pytest.raises(ValueError, match=r"has parameterization V.*asked for is Eps"):
        require_same(read_checkpoint(tmp_path), _model(parameterization=Eps()))


def test_a_users_class_is_rebuilt_only_if_it_is_passed(tmp_path):
    model = _model(Own(4))
    save(model, tmp_path)
    assert _same_function(model, load(tmp_path, known={"Own": Own}))
    assert _same_function(model, load(tmp_path, net=Own(4)))
    with pytest.raises(
        ValueError, match=r"is named 'Own'; .*Valid: .*MLP.*Pass your own class as known=\{'Own': Own\}"
    ):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"layer\.weight is float32\[8, 2\] in the checkpoint and float32\[4, 2\]"):
        load(tmp_path, net=Own(2))


def test_a_network_without_a_text_form_is_passed_by_the_caller(tmp_path):
    model = _model(Unwritable())
    save(model, tmp_path)
    assert _same_function(model, load(tmp_path, net=Unwritable()))
    with pytest.raises(ValueError, match=r"Unwritable was saved without .*pass load\(path, net=Unwritable"):
        load(tmp_path)


def test_a_checkpoint_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold a model, as save writes it"):
        load(write_checkpoint(tmp_path, _tensors(1), {"step": 1}))
    with pytest.raises(TypeError, match="model must be a ScoreModel, got a Linear"):
        save(nn.Linear(1, 1), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="further tensors and metadata need other names"):
        save(_model(), tmp_path, tensors={"ema": {}})


class _Foreign(nn.Module):
    """A network of another code base: takes DDPM's step, and has no settings."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.inner(torch.cat([x, timesteps.unsqueeze(1).to(x.dtype) / 100], 1))


def test_a_foreign_network_in_an_adapter_is_saved_with_the_adapter_and_loaded_by_the_network_alone(tmp_path, generator):
    clock = LinearBetas(steps=100)
    process = VPSDE(clock, tau_min=clock.knots(100)[1])
    model = ScoreModel(FromStep(_Foreign(), clock, 100), process, Eps(), event_shape=(2,))
    save(model, tmp_path)
    x = torch.randn(4, 2, generator=generator)
    for net in (_Foreign(), FromStep(_Foreign(), clock, 100)):
        loaded = load(tmp_path, net=net)
        assert isinstance(loaded.net, FromStep)
        assert loaded.net.steps == 100
        assert torch.equal(loaded(x, 0.3).eps, model(x, 0.3).eps)
    with pytest.raises(ValueError, match=r"of the class _Foreign, .* load\(path, net=_Foreign\(...\)\)"):
        load(tmp_path)
    assert isinstance(model.net.net, _Foreign)  # saving does not change the model


WRAPPERS = [
    nn.DataParallel,
    lambda net: torch.compile(net, backend="eager"),
    lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
]
wrappers = pytest.mark.parametrize("wrap", WRAPPERS, ids=["DataParallel", "compile", "both"])


@wrappers
def test_wrappers_of_torch_are_left_out_of_a_checkpoint(tmp_path, generator, wrap):
    net, x = MLP((2,), width=4, depth=1), torch.randn(3, 2, generator=generator)
    for weight in net.parameters():
        weight.data.normal_(generator=generator)
    model = ScoreModel(wrap(net), VPSDE())
    save(model, tmp_path, ema=model)
    expected = model(x, 0.3).eps
    assert set(read_checkpoint(tmp_path).tensors["model"]) == set(net.state_dict())
    assert torch.equal(load(tmp_path)(x, 0.3).eps, expected)
    for given in (MLP((2,), width=4, depth=1), wrap(MLP((2,), width=4, depth=1))):
        assert torch.equal(load(tmp_path, net=given)(x, 0.3).eps, expected)


@wrappers
def test_a_wrapped_network_in_an_adapter_is_loaded_by_the_network_alone(tmp_path, generator, wrap):
    clock = LinearBetas(steps=100)
    process = VPSDE(clock, tau_min=clock.knots(100)[1])
    model = ScoreModel(FromStep(wrap(_Foreign()), clock), process, Eps(), event_shape=(2,))
    save(model, tmp_path)
    x = torch.randn(4, 2, generator=generator)
    for given in (_Foreign(), wrap(_Foreign())):
        assert torch.equal(load(tmp_path, net=given)(x, 0.3).eps, model(x, 0.3).eps)
    with pytest.raises(ValueError, match=r"of the class _Foreign, .* load\(path, net=_Foreign\(...\)\)"):
        load(tmp_path)


def test_a_run_with_a_compiled_network_is_resumed_and_its_averages_are_combined(tmp_path):
    data, settings = torch.randn(64, 2), scoresde.Training(steps=6, batch_size=16, lengths=(0.1, 0.2), patience=5)

    def trained(steps: int, folder: str, resume: bool = False) -> ScoreModel:
        torch.manual_seed(0)
        net = torch.compile(MLP((2,), width=4, depth=1), backend="eager")
        model = ScoreModel(net, VPSDE(), event_shape=(2,))  # pyright: ignore[reportArgumentType]
        run = replace(settings, steps=steps)
        return scoresde.train(model, data, run, run_dir=tmp_path / folder, resume=resume, snapshot_every=1).model

    whole, _ = trained(6, "whole"), trained(3, "parts")
    resumed = trained(6, "parts", resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)
    for average in (None, 0.15):
        a, b = (load(tmp_path / folder, average=average) for folder in ("whole", "parts"))
        assert isinstance(a.net, MLP)
        assert all(torch.equal(v, w) for v, w in zip(a.parameters(), b.parameters()))
