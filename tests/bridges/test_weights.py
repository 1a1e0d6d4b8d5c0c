"""Weights of foreign files: right ones arrive bit for bit; malicious and damaged ones are refused, unexecuted."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scoresde.bridges.weights import (
    WeightFile,
    choose,
    convert_weights,
    fit,
    read_json,
    read_weight_file,
    read_weights,
    without_wrappers,
)

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def archive(
    path: Path, data: bytes, storages: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/byteorder", b"little")
        file.writestr("archive/version", b"3\n")
        for name, content in (storages or {}).items():
            file.writestr(f"archive/data/{name}", content)


def nested(depth: int, width: int) -> bytes:
    """A pickle of lists, each of ``width`` references to the one before it; width 0: a dictionary that holds itself."""
    if width == 0:
        return b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."
    body = b"K\x00]q\x00" + b"".join(
        b"K" + bytes([k + 1]) + b"](" + (b"h" + bytes([k])) * width + b"eq" + bytes([k + 1]) for k in range(depth)
    )
    return b"\x80\x02}(" + body + b"u."


# -- malicious and damaged files: what each writes, and what the refusal must say --------------------------------------


def pickle_of_code(folder: Path) -> Path:
    (folder / "net.pkl").write_bytes(pickle.dumps(Trap(folder / "executed")))
    return folder / "net.pkl"


def code_under_a_tensor_name(folder: Path) -> Path:
    (folder / "net.pt").write_bytes(pickle.dumps({"w": Trap(folder / "executed")}, protocol=2))
    return folder / "net.pt"


def code_in_an_archive(folder: Path) -> Path:
    archive(folder / "net.ckpt", pickle.dumps({"w": Trap(folder / "executed")}, protocol=4))
    return folder / "net.ckpt"


def whole_module(folder: Path) -> Path:
    torch.save(nn.Linear(2, 2), folder / "net.pth")
    return folder / "net.pth"


def script_archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "net.pt", "w") as file:
        file.writestr("net/code/__torch__.py", "def forward(): pass")
        file.writestr("net/data.pkl", b"\x80\x02}.")
    return folder / "net.pt"


def compressed_bomb(folder: Path) -> Path:
    archive(folder / "net.pt", b"\x80\x02}.", {"0": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    assert (folder / "net.pt").stat().st_size < 1 << 20
    return folder / "net.pt"


def overlapping_entries(folder: Path) -> Path:
    """The central directory lists one stored entry 100 times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
        file.writestr("archive/data/0000", bytes(100_000))
        (entry,) = [e for e in file.filelist if e.filename.endswith("0000")]
        for k in range(1, 100):
            copy = zipfile.ZipInfo(f"archive/data/{k:04}")
            copy.header_offset, copy.CRC = entry.header_offset, entry.CRC
            copy.file_size = copy.compress_size = entry.file_size
            file.filelist.append(copy)
    (folder / "net.pt").write_bytes(buffer.getvalue())
    return folder / "net.pt"


def huge_declared_shape(folder: Path) -> Path:
    torch.save({"w": torch.zeros(1).expand(1 << 20, 1 << 20)}, folder / "net.pt")
    return folder / "net.pt"


def huge_declared_storage(folder: Path) -> Path:
    torch.save({"w": torch.zeros(7)}, folder / "net.pt", _use_new_zipfile_serialization=False)
    data = (folder / "net.pt").read_bytes()
    # 8 GiB in place of 28 bytes; the number of values is the integer before the None that ends the description
    assert data.count(b"K\x07N") == 1
    (folder / "net.pt").write_bytes(data.replace(b"K\x07N", b"\x8a\x06" + (1 << 31).to_bytes(6, "little") + b"N"))
    return folder / "net.pt"


def references_that_multiply(folder: Path) -> Path:
    archive(folder / "net.pt", nested(22, 8))
    return folder / "net.pt"


def dictionary_that_holds_itself(folder: Path) -> Path:
    archive(folder / "net.pt", nested(0, 0))
    return folder / "net.pt"


def link_out_of_the_folder(folder: Path) -> Path:
    (folder / "model").mkdir()
    save_file(STATE, folder / "secret.safetensors")
    (folder / "model" / "net.safetensors").symlink_to(folder / "secret.safetensors")
    return folder / "model" / "net.safetensors"


def index_of(folder: Path, name: str) -> Path:
    (folder / "model").mkdir()
    save_file(STATE, folder / "secret.safetensors")
    index = folder / "model" / "net.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": name}}))
    return index


def index_with_an_absolute_path(folder: Path) -> Path:
    return index_of(folder, str(folder / "secret.safetensors"))


def index_that_climbs(folder: Path) -> Path:
    return index_of(folder, "../secret.safetensors")


def index_with_a_link(folder: Path) -> Path:
    index = index_of(folder, "part.safetensors")
    (folder / "model" / "part.safetensors").symlink_to("../secret.safetensors")
    return index


def index_of_a_tensor_that_is_not_there(folder: Path) -> Path:
    save_file({"a.bias": torch.zeros(2)}, folder / "part.safetensors")
    (folder / "net.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": "part.safetensors"}}))
    return folder / "net.safetensors.index.json"


def huge_json(folder: Path) -> Path:
    (folder / "net.safetensors.index.json").write_text(" " * (9 << 20) + "{}")
    return folder / "net.safetensors.index.json"


def deep_json(folder: Path) -> Path:
    (folder / "net.safetensors.index.json").write_text('{"weight_map":' + "[" * 200_000 + "]" * 200_000 + "}")
    return folder / "net.safetensors.index.json"


def name_twice_in_a_header(folder: Path) -> Path:
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    return raw_safetensors(folder, f'{{"w":{entry},"w":{entry}}}', bytes(4))


def shape_larger_than_the_file(folder: Path) -> Path:
    return raw_safetensors(
        folder, '{"w":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}', b""
    )


def raw_safetensors(folder: Path, header: str, data: bytes) -> Path:
    path = folder / "net.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)
    return path


def header_longer_than_the_file(folder: Path) -> Path:
    (folder / "net.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    return folder / "net.safetensors"


def truncated_safetensors(folder: Path) -> Path:
    save_file(STATE, folder / "net.safetensors")
    (folder / "net.safetensors").write_bytes((folder / "net.safetensors").read_bytes()[:-3])
    return folder / "net.safetensors"


def truncated_archive(folder: Path) -> Path:
    torch.save(STATE, folder / "net.pt")
    (folder / "net.pt").write_bytes((folder / "net.pt").read_bytes()[:-30])
    return folder / "net.pt"


def text_in_place_of_weights(folder: Path) -> Path:
    (folder / "net.pt").write_text("<!DOCTYPE html><html>Not found</html>")
    return folder / "net.pt"


def pointer_of_git_lfs(folder: Path) -> Path:
    (folder / "net.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    return folder / "net.pt"


def directory(folder: Path) -> Path:
    (folder / "net.pt").mkdir()
    return folder / "net.pt"


def named_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "net.pt")
    return folder / "net.pt"


def empty_file(folder: Path) -> Path:
    (folder / "net.ckpt").touch()
    return folder / "net.ckpt"


def sparse_file_larger_than_the_memory(folder: Path) -> Path:
    with (folder / "net.pt").open("wb") as file:
        file.truncate(1 << 43)
    return folder / "net.pt"


def sparse_tensor(folder: Path) -> Path:
    torch.save({"w": torch.ones(2, 2).to_sparse()}, folder / "net.pt")
    return folder / "net.pt"


MALICIOUS: dict[Callable[[Path], Path], str] = {
    pickle_of_code: r"got \.pkl; it was not opened.*export its state dict",
    code_under_a_tensor_name: r"code: the pickle refers to posix\.system.*export its state dict",
    code_in_an_archive: r"code: the pickle refers to posix\.system",
    whole_module: r"code: the pickle refers to torch\.nn\.modules\.linear\.Linear",
    script_archive: "a TorchScript archive, which holds code",
    compressed_bomb: "compressed entries",
    overlapping_entries: "so that they overlap",
    huge_declared_shape: r"of shape \(1048576, 1048576\), which the values in the file do not fill",
    huge_declared_storage: "more memory than its size allows",
    references_that_multiply: "nested deeper than 24 or with more than 500000 entries",
    dictionary_that_holds_itself: "nested deeper than 24",
    link_out_of_the_folder: "must lie in .*, got a link to",
    index_with_an_absolute_path: "must name files of its own folder, got '/",
    index_that_climbs: r"must name files of its own folder, got '\.\./secret",
    index_with_a_link: "must lie in .*, got a link to",
    index_of_a_tensor_that_is_not_there: r"it lacks a\.weight",
    huge_json: "at most 8 MiB, got 9 MiB",
    deep_json: "nested too deeply",
    name_twice_in_a_header: "the name 'w' occurs twice",
    shape_larger_than_the_file: "must be a whole safetensors file",
    header_longer_than_the_file: "length of a safetensors header",
    truncated_safetensors: "must be a whole safetensors file",
    truncated_archive: "a damaged archive",
    text_in_place_of_weights: r"a text \(HTML or JSON\)",
    pointer_of_git_lfs: "a pointer of Git LFS",
    directory: "got a directory",
    named_pipe: "got a pipe, socket or device",
    empty_file: "got an empty file",
    sparse_file_larger_than_the_memory: "must fit the memory",
    sparse_tensor: r"code: the pickle refers to torch\._utils\._rebuild_sparse_tensor",
}


@pytest.mark.parametrize("write", MALICIOUS, ids=lambda write: write.__name__)
def test_a_malicious_or_damaged_file_is_refused_by_name_and_leaves_nothing(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    path = write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=f"(?s){MALICIOUS[write]}"):
        read_weights(path)
    assert sorted(tmp_path.rglob("*")) == before  # nothing was executed, nothing remains


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"net\.pt, which does not exist"):
        read_weights(tmp_path / "net.pt")


def test_a_full_disk_and_an_endless_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "net.pt")

    def too_long(command: object, **options: Any) -> None:
        raise subprocess.TimeoutExpired("python", options["timeout"])

    monkeypatch.setattr(subprocess, "run", too_long)
    with pytest.raises(ValueError, match="must be read within 120 s, got no end; the process was stopped"):
        read_weights(tmp_path / "net.pt")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=16 << 20))
    with pytest.raises(ValueError, match=r"needs 16 MiB in .*, which are not free; .*TMPDIR"):
        read_weights(tmp_path / "net.pt")


# -- right files -------------------------------------------------------------------------------------------------------


def same(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return set(tensors) == set(expected) and all(
        tensors[k].dtype == expected[k].dtype and torch.equal(tensors[k], expected[k]) for k in expected
    )


def test_both_formats_of_torch_save_arrive_bit_for_bit_with_the_values_beside_them(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    content = {
        "model": STATE,
        "step": 12,
        "config": {"name": "net", "rate": 1e-4, "none": None, "sizes": [1, 2]},
        "ema": {"decay": 0.5, "shadow_params": [nn.Parameter(shared), shared[1:3], shared.reshape(2, 2).T]},
        "dtype": torch.float16,
    }
    expected = {f"model.{name}": value for name, value in STATE.items()}
    expected |= {"ema.shadow_params.0": shared, "ema.shadow_params.1": shared[1:3]}
    expected["ema.shadow_params.2"] = torch.tensor([[0.0, 2.0], [1.0, 3.0]])
    for name, zipped in (("new.pt", True), ("old.bin", False)):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
        file = read_weight_file(tmp_path / name)
        assert same(dict(file.tensors), expected)
        assert file.values == {
            "step": 12,
            "config.name": "net",
            "config.rate": 1e-4,
            "config.none": None,
            "config.sizes.0": 1,
            "config.sizes.1": 2,
            "ema.decay": 0.5,
        }
        assert file.skipped == ("dtype",)


def test_shards_are_joined_in_the_order_of_the_index(tmp_path: Path) -> None:
    save_file({"b": torch.ones(2), "c": torch.ones(3)}, tmp_path / "1.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "2.safetensors")
    index = {
        "metadata": {"total_size": 28},
        "weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"},
    }
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    tensors = read_weights(tmp_path / "m.safetensors.index.json")
    assert list(tensors) == ["a", "b", "c"]
    assert same(tensors, {"a": torch.zeros(2), "b": torch.ones(2), "c": torch.ones(3)})


def test_the_links_of_a_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123" / "unet"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save_file(STATE, blobs / "abcd")
    (snapshot / "net.safetensors").symlink_to("../../../blobs/abcd")
    assert same(read_weights(snapshot / "net.safetensors"), STATE)


def test_weights_are_converted_to_a_new_safetensors_file(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    convert_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert same(read_weights(tmp_path / "b.safetensors"), STATE)
    with pytest.raises(FileExistsError, match="must be a new file"):
        convert_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


def test_a_json_object_is_read_and_anything_else_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"b": 1}}')
    assert read_json(tmp_path / "a.json") == {"a": {"b": 1}}
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match="must be a JSON object, got a list"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": {"b": 1, "b": 2}}')
    with pytest.raises(ValueError, match="the name 'b' occurs twice"):
        read_json(tmp_path / "a.json")


# -- into a network ----------------------------------------------------------------------------------------------------


def test_wrappers_are_removed_only_where_every_name_has_them() -> None:
    tensor = torch.zeros(1)
    assert list(without_wrappers({"module._orig_mod.a": tensor, "module._orig_mod.b": tensor})) == ["a", "b"]
    assert list(without_wrappers({"module.a": tensor, "b": tensor})) == ["module.a", "b"]


def test_weights_fit_or_every_difference_is_listed_and_nothing_changes() -> None:
    net = nn.Linear(3, 2)
    fit(net, {"module.weight": STATE["a.weight"], "module.bias": STATE["a.bias"]})
    assert torch.equal(net.weight, STATE["a.weight"])
    assert torch.equal(net.bias, torch.tensor([1.5, -2.0]))
    with pytest.raises(
        ValueError, match=r"missing: bias; unexpected: other; of another shape: weight \(3, 2\) instead of \(2, 3\)"
    ):
        fit(net, {"weight": torch.zeros(3, 2), "other": torch.zeros(1)})
    assert torch.equal(net.weight, STATE["a.weight"])


@pytest.mark.parametrize(
    "wrap", [lambda net: torch.compile(net, backend="eager"), nn.DataParallel], ids=["compile", "data parallel"]
)
def test_a_wrapped_network_gets_weights_by_the_names_of_the_network(wrap: Any) -> None:
    net, weights = nn.Linear(3, 2), nn.Linear(3, 2).state_dict()
    fit(wrap(net), weights)
    assert torch.equal(net.weight, weights["weight"])


def test_groups_of_weights_that_hold_the_network_are_named_with_the_call() -> None:
    net = nn.Linear(3, 2)
    weights = {
        f"{group}.{name}": value for group in ("state_dict.net", "ema") for name, value in net.state_dict().items()
    }
    with pytest.raises(
        ValueError, match=r"begin with 'state_dict.net\.' or 'ema\.' in .* with p = 'state_dict\.net\.'"
    ):
        fit(nn.Linear(3, 2), weights)
    with pytest.raises(ValueError, match="build the network with the settings"):
        fit(nn.Linear(3, 2), {"ema.weight": net.weight})  # a part of it
    other = nn.Linear(3, 2)
    fit(other, {name.removeprefix("ema."): value for name, value in weights.items() if name.startswith("ema.")})
    assert torch.equal(other.weight, net.weight)


def test_averages_are_chosen_where_there_are_any_and_the_finding_says_so(tmp_path: Path) -> None:
    raw = {f"model.{k}": v for k, v in nn.Linear(1, 1).state_dict().items()}
    file = WeightFile(
        tmp_path / "a.pt",
        raw | {"model_ema.module.weight": torch.tensor([[3.0]]), "model_ema.module.bias": torch.tensor([4.0])},
    )
    tensors, finding = choose(file, nn.Linear(1, 1), ("model_ema.",), ("model.",))
    assert {k: v.item() for k, v in tensors.items()} == {"weight": 3.0, "bias": 4.0}
    assert (finding.value, finding.source) == ("exponential moving average", "stated")
    assert "it also holds model.*" in finding.why
    tensors, finding = choose(WeightFile(tmp_path / "a.pt", raw), nn.Linear(1, 1), ("model_ema.",), ("model.",))
    assert finding.value == "as trained, no average"
    with pytest.raises(ValueError, match="must hold weights named 'ema…', got model.weight, model.bias"):
        choose(WeightFile(tmp_path / "a.pt", raw), nn.Linear(1, 1), (), ("ema",))


class Partly(nn.Module):
    """A frozen parameter and a buffer between two that are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(2))
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.register_buffer("count", torch.zeros(1))
        self.last = nn.Parameter(torch.zeros(3))


def test_a_list_of_averages_goes_to_the_parameters_that_require_a_gradient_in_their_order(tmp_path: Path) -> None:
    raw = {"first": torch.ones(2), "frozen": 2 * torch.ones(2), "last": 3 * torch.ones(3), "count": 7 * torch.ones(1)}
    tensors = {f"model.module.{k}": v for k, v in raw.items()}
    averages = {"ema.shadow_params.0": 5 * torch.ones(2), "ema.shadow_params.1": 6 * torch.ones(3)}
    net, file = Partly(), WeightFile(tmp_path / "a.pth", tensors | averages)
    chosen, _ = choose(file, net, ("ema.shadow_params.",), ("model.",))
    fit(net, chosen)
    assert {k: v[0].item() for k, v in net.state_dict().items()} == {"first": 5, "frozen": 2, "count": 7, "last": 6}
    wrong = WeightFile(
        tmp_path / "a.pth", tensors | {"ema.shadow_params.0": torch.ones(3), "ema.shadow_params.1": torch.ones(2)}
    )
    with pytest.raises(ValueError, match=r"entry 0 has shape \(3,\) where first has \(2,\)"):
        choose(wrong, net, ("ema.shadow_params.",), ("model.",))


def test_a_socket_is_not_opened(tmp_path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s.pt"))
    with pytest.raises(ValueError, match="pipe, socket or device"):
        read_weights(tmp_path / "s.pt")
    server.close()


def test_tied_weights_that_a_file_left_out_are_those_of_the_other_name() -> None:
    net = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3, bias=False)})
    net["b"].weight = net["a"].weight
    weight = torch.arange(9.0).reshape(3, 3)
    fit(net, {"b.weight": weight, "a.bias": torch.ones(3)})
    assert torch.equal(net.get_parameter("a.weight"), weight)
    assert net["a"].weight is net["b"].weight
    with pytest.raises(ValueError, match="missing: a.weight, b.weight"):
        fit(net, {"a.bias": torch.ones(3)})
