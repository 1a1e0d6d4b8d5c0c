"""Arrays given to the public API give the results of the same tensors; other kinds are refused with our own message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import scoresde as sd
from scoresde.data import Data, Description
from scoresde.likelihood import discrete_vlb, importance_weighted_vlb, measure_error_profile
from scoresde.likelihood.ode.differentiable import differentiable_log_prob

FLOATS = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
INTEGERS = np.random.default_rng(0).integers(0, 256, size=(6, 2)).astype(np.uint8)
DESCRIPTION = Description("bytes", (2,), bins=256)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor, log_snr: Tensor, y: Tensor | None = None) -> Tensor:
        shift = 0.0 if y is None else y.to(x.dtype).unsqueeze(1)
        return self.weight * torch.tanh(x + shift)


def model(description: Description | None = None) -> sd.ScoreModel:
    return sd.ScoreModel(Net(), sd.VPSDE(), sd.V(), (2,), description)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def trained(x: Any) -> Tensor:
    result = sd.train(model(), x, sd.Training(steps=3, batch_size=4))
    return torch.stack([p.detach() for p in result.raw.parameters()])


CALLS: dict[str, tuple[np.ndarray, Callable[[Any], Tensor]]] = {
    "train": (FLOATS, trained),
    "Data": (FLOATS, lambda x: Data(x, x, Description("a", (2,))).test),
    "Data integers": (INTEGERS, lambda x: Data(x, x, DESCRIPTION).train),
    "model": (FLOATS, lambda x: model()(x, 0.5).eps.detach()),
    "model y": (FLOATS, lambda x: model()(x, 0.5, y=x[:, 0]).eps.detach()),
    "tau": (FLOATS[:, 0] ** 2 + 0.1, lambda tau: model()(torch.ones(6, 2), tau).eps.detach()),
    "Loss": (FLOATS, lambda x: sd.Loss()(model(), x, generator=generator()).detach()),
    "log_prob": (FLOATS, lambda x: sd.log_prob(model(), x).log_prob),
    "log_prob y": (FLOATS, lambda x: sd.log_prob(model(), FLOATS, y=x[:, 0], batch_size=4).log_prob),
    "differentiable": (FLOATS, lambda x: differentiable_log_prob(model(), x).detach()),
    "init": (FLOATS, lambda x: sd.sample(model(), (6, 2), sd.DDIM(4), init=x).x),
    "sample y": (FLOATS, lambda x: sd.sample(model(), 6, sd.DDIM(4), seeds=range(6), y=x[:, 0]).x),
    "bits_per_dim": (INTEGERS, lambda x: sd.bits_per_dim(model(DESCRIPTION), x, generator=generator()).bits),
    "continuous_vlb": (FLOATS, lambda x: sd.continuous_vlb(model(), x, generator=generator()).nats),
    "continuous_vlb integers": (
        INTEGERS,
        lambda x: sd.continuous_vlb(model(DESCRIPTION), x, generator=generator()).nats,
    ),
    "discrete_vlb": (INTEGERS, lambda x: discrete_vlb(model(DESCRIPTION), x, 8, generator=generator()).nats),
    "importance_weighted_vlb": (
        FLOATS,
        lambda x: importance_weighted_vlb(model(), x, 4, trajectories=2, generator=generator()).nats,
    ),
    "profile": (
        FLOATS,
        lambda x: torch.tensor(measure_error_profile(model(), x, points=3, generator=generator()).unexplained),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_numpy_array_gives_the_result_of_the_tensor(name):
    array, call = CALLS[name]
    expected = call(torch.from_numpy(array))
    assert expected.numel()
    assert torch.equal(call(array), expected)


@pytest.mark.parametrize("name", [name for name in CALLS if " y" not in name])
def test_a_list_gives_the_result_of_the_tensor(name):
    array, call = CALLS[name]
    wide = torch.from_numpy(array.astype(np.float64) if array.dtype.kind == "f" else array.astype(np.int64))
    assert torch.equal(call(array.tolist()), call(wide))


def test_float64_arrays_give_float64_results():
    x = FLOATS.astype(np.float64)
    assert model()(x, 0.5).eps.dtype == torch.float64
    assert sd.sample(model(), (6, 2), sd.DDIM(4), init=x).x.dtype == torch.float64
    assert Data(x, x, Description("a", (2,))).train.dtype == torch.float64  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.uint16, np.int32, np.uint64, bool])
def test_labels_of_any_integer_type_are_labels(kind):
    labels = np.array([0, 1, 1, 0, 1, 0], dtype=kind)
    data = Data(FLOATS, FLOATS[:0], Description("a", (2,)), {"label": labels}, {"label": labels[:0]})  # pyright: ignore[reportArgumentType]
    assert data.train_labels is not None
    assert (data.train_labels.dtype, data.train_labels.tolist()) == (torch.int64, [0, 1, 1, 0, 1, 0])


class Rows(Dataset):
    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(FLOATS[index])


WRONG: dict[str, Any] = {
    "None": None,
    "path": "x.npy",
    "number": 3,
    "texts": ["a", "b"],
    "ragged": [[1.0], [1.0, 2.0]],
    "objects": np.array([None, 1]),
    "dict": {"x": FLOATS},
    "set": {1.0},
    "generator": (row for row in FLOATS),
    "Dataset": Rows(),
    "TensorDataset": TensorDataset(torch.from_numpy(FLOATS)),
    "DataLoader": DataLoader(Rows(), batch_size=None, sampler=range(6)),
    "network": Net(),
    "class": Net,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", [name for name in CALLS if " y" not in name])
def test_other_kinds_are_refused_with_rule_value_and_remedy(name, wrong):
    if (name, wrong) in {("tau", "number"), ("init", "None")}:
        return
    with pytest.raises((TypeError, ValueError), match=r"(must|needs) .*(got|differ).*"):
        CALLS[name][1](WRONG[wrong])


@pytest.mark.parametrize("call", [sd.Loss(), measure_error_profile])
def test_a_network_without_a_process_is_refused(call):
    with pytest.raises(TypeError, match=r"model must be a Model, got Net; wrap a network: ScoreModel"):
        call(Net(), FLOATS)


def test_a_data_set_without_a_description_is_refused():
    with pytest.raises(TypeError, match="description must be a Description, got 'moons'"):
        Data(torch.ones(2, 2), torch.ones(2, 2), "moons")  # pyright: ignore[reportArgumentType]


def test_a_torch_dataset_is_refused_with_the_call_that_trains_on_it():
    with pytest.raises(TypeError, match=r"got a TensorDataset, .*sd\.train\(model, dataset\.tensors\[0\]\)"):
        sd.train(model(), TensorDataset(torch.from_numpy(FLOATS)))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        (FLOATS, r"got a ndarray; an array needs no reader: sd\.train\(model, x\), or sd\.Data\(train, test, sd\.Desc"),
        (FLOATS.tolist(), r"got a list; an array needs no reader"),
        (torch.from_numpy(FLOATS), r"got a Tensor; an array needs no reader"),
        (Rows(), r"got a Rows; pass its events as one tensor: torch\.stack\("),
        (TensorDataset(torch.from_numpy(FLOATS)), r"got a TensorDataset; pass its tensor: dataset\.tensors\[0\]"),
        (DataLoader(Rows(), sampler=range(6)), r"got a DataLoader; .* torch\.cat\(\[x for x, \*_ in loader\]\)"),
        (Data(FLOATS, FLOATS, Description("a", (2,))), r"got a Data; it is loaded already: sd\.train\(model, data\)"),  # pyright: ignore[reportArgumentType]
        (None, r"source must be the name of a data set, a path or a table in memory, got a NoneType"),
    ],
)
def test_load_data_of_what_is_no_source_is_refused_with_the_call_that_works(source: Any, answer: str) -> None:
    with pytest.raises(TypeError, match=answer):
        sd.load_data(source)


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist])
def test_a_description_converts_arrays(convert: Callable[[np.ndarray], Any]) -> None:
    floats, integers = FLOATS.astype(np.float64), INTEGERS.astype(np.int64)
    plain = Description("a", (2,), offset=1.0, scale=2.0)
    assert torch.equal(plain.to_model(convert(floats)), plain.to_model(torch.from_numpy(floats)))
    assert torch.equal(plain.to_data(convert(floats)), plain.to_data(torch.from_numpy(floats)))
    assert torch.equal(DESCRIPTION.center(convert(integers)), DESCRIPTION.center(torch.from_numpy(integers)))


@pytest.mark.parametrize("y", [torch.zeros(2), [0.0, 0.0]])
@pytest.mark.parametrize(
    "call",
    [
        lambda y: sd.Loss()(model(), FLOATS, y=y),
        lambda y: sd.log_prob(model(), FLOATS, y=y),
        lambda y: sd.sample(model(), 6, sd.DDIM(2), y=y),
        lambda y: sd.continuous_vlb(model(), FLOATS, y=y),
    ],
)
def test_one_observation_for_all_samples_is_answered_with_the_call_that_repeats_it(call: Any, y: Any) -> None:
    with pytest.raises(ValueError, match=r"If y is one observation for all (samples|events), pass y\.expand\(6, -1\)"):
        call(y)


def test_a_network_that_takes_no_log_snr_is_refused_with_the_signature_that_it_needs() -> None:
    sequential = sd.ScoreModel(nn.Sequential(nn.Linear(2, 2)), sd.VPSDE(), sd.V(), (2,))
    with pytest.raises(TypeError, match=r"called as net\(x, log_snr\), got Sequential with forward\(input\)"):
        sequential(FLOATS, 0.5)
    with pytest.raises(TypeError, match=r"unsupported operand"):  # the network's own error stays as it is
        sd.ScoreModel(Broken(), sd.VPSDE(), sd.V(), (2,))(FLOATS, 0.5)


class Broken(nn.Module):
    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return x + None  # pyright: ignore[reportOperatorIssue]


def test_a_device_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="device must be one of torch's, such as 'cpu' or 'cuda:0', got 'gpu'"):
        sd.sample(model(), 2, sd.DDIM(2), device="gpu")
    with pytest.raises(ValueError, match="device must be one of torch's, .* got 'gpu'"):
        sd.train(model(), FLOATS, sd.Training(steps=1), device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device must exist, got 'cuda' where torch finds no CUDA device"):
            sd.train(model(), FLOATS, sd.Training(steps=1), device="cuda")
