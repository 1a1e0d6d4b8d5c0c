"""Weights of bf16 and fp16: averages kept, saved, resumed and loaded in float32; fp16 is not trained unscaled."""

# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportUnnecessaryTypeIgnoreComment=false
from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process.sde import VPSDE
from scoresde.storage import checkpoint
from scoresde.training import Training, train
from scoresde.training.data_checks import check_weight_types
from scoresde.training.ema import EMA

D, BF16, FP16 = torch.float64, torch.bfloat16, torch.float16
RUN = Training(steps=12, batch_size=8, lr=1e-2, warmup=2, ema=0.9, lengths=(0.05, 0.1))


def model(dtype: torch.dtype = BF16) -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = MLP((2,), width=8, depth=1, embedding_width=8)
        nn.init.normal_(net.linear_out.weight, std=0.3)
    return ScoreModel(net.to(dtype), VPSDE(), event_shape=(2,))


def events() -> Tensor:
    return torch.randn(40, 2, generator=torch.Generator().manual_seed(0))


def dtypes(net: nn.Module) -> set[torch.dtype]:
    return {value.dtype for value in net.state_dict().values() if value.is_floating_point()}


class Tied(nn.Module):
    """Tied weights, a tied buffer, a wide and a counting buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.two.weight = self.one.weight
        for module in (self.one, self.two):
            module.register_buffer("scale", torch.ones(2, dtype=BF16))
        self.two._buffers["scale"] = self.one._buffers["scale"]
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("times", torch.ones(2, dtype=D))


@pytest.mark.parametrize("dtype", [BF16, FP16])
def test_the_average_of_narrow_weights_is_the_weighted_sum_in_float32(dtype):
    net, decay, last = nn.Linear(1, 1, bias=False).to(dtype), 0.999, 400
    net.weight.data.fill_(1.0)
    average = EMA(net)
    net.weight.data.fill_(1.5)  # a bf16 average would stay at 1: .0005 is below half its last place
    for _ in range(last):
        average.update(decay)
    averaged: Tensor = average.net.weight  # pyright: ignore[reportAssignmentType]
    assert averaged.dtype == torch.float32
    assert averaged.item() == pytest.approx(1.5 - 0.5 * math.exp(last * math.log(decay)), rel=1e-5)


def test_what_is_tied_stays_tied_and_wide_values_and_counts_keep_their_types():
    net = Tied().to(BF16)
    net._buffers["times"] = torch.ones(2, dtype=D)
    own: Any = EMA(net).net
    assert own.one.weight is own.two.weight
    assert own.one.scale is own.two.scale
    assert (own.one.weight.dtype, own.one.scale.dtype, own.times.dtype, own.count.dtype) == (
        torch.float32,
        torch.float32,
        D,
        torch.int64,
    )
    assert dtypes(net) == {BF16, D}  # the trained network does not change


def test_buffers_of_narrow_networks_are_copied_in_float32():
    net = Tied()
    average = EMA(net)
    net.one.scale.fill_(2.5)  # pyright: ignore[reportCallIssue]
    average.update(0.9)
    assert average.net.one.scale.tolist() == [2.5, 2.5]  # pyright: ignore[reportAttributeAccessIssue]


def test_wide_weights_are_averaged_in_their_own_type():
    assert dtypes(EMA(nn.Linear(2, 2, dtype=D)).net) == {D}
    assert dtypes(EMA(nn.Linear(2, 2)).net) == {torch.float32}


def test_averages_of_bf16_weights_are_returned_saved_and_loaded_in_float32(tmp_path):
    result = train(model(), events(), RUN, run_dir=tmp_path)
    assert dtypes(result.model.net) == {torch.float32}
    assert dtypes(result.raw.net) == {BF16}
    loaded, raw = checkpoint.load(tmp_path), checkpoint.load(tmp_path, raw=True)
    for one, two in ((loaded, result.model), (raw, result.raw)):
        assert dtypes(one.net) == dtypes(two.net)
        assert all(torch.equal(v, two.net.state_dict()[k]) for k, v in one.net.state_dict().items())
    stored = checkpoint.read_checkpoint(checkpoint.latest_checkpoint(tmp_path)).tensors
    assert {v.dtype for group in ("ema", "average_0", "average_1") for v in stored[group].values()} == {torch.float32}
    # an average of full precision is not on the grid of bf16
    assert any(not torch.equal(v, v.bfloat16().float()) for v in stored["ema"].values())


@pytest.mark.parametrize("length", [0.05, 0.08])
def test_post_hoc_averages_of_bf16_weights_are_float32_and_evaluate(tmp_path, length):
    train(model(), events(), RUN, run_dir=tmp_path, snapshot_every=4)
    averaged = checkpoint.load(tmp_path, average=length)
    assert dtypes(averaged.net) == {torch.float32}
    assert averaged(events(), 0.5).eps.dtype == torch.float32


def test_an_average_of_zero_updates_is_the_weights_in_float32(tmp_path):
    net = model()
    train(net, events(), replace(RUN, steps=0), run_dir=tmp_path)
    for averaged in (checkpoint.load(tmp_path), checkpoint.load(tmp_path, average=0.1)):
        assert dtypes(averaged.net) == {torch.float32}
        assert all(torch.equal(p, q.float()) for p, q in zip(averaged.parameters(), net.parameters(), strict=True))


def test_a_resumed_run_of_bf16_weights_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    train(model(), events(), RUN, run_dir=tmp_path / "whole")
    train(model(), events(), replace(RUN, steps=5), run_dir=tmp_path / "parts")
    train(model(), events(), RUN, run_dir=tmp_path / "parts", resume=True)
    one, two = (
        checkpoint.read_checkpoint(checkpoint.latest_checkpoint(tmp_path / name)).tensors for name in ("whole", "parts")
    )
    assert one.keys() == two.keys()
    for group, tensors in one.items():
        for name, value in tensors.items():
            assert torch.equal(value, two[group][name]), (group, name)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_fp16_weights_without_a_scaler_are_refused_with_the_remedy(precision):
    net = model(FP16)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(TypeError, match=r"got float16 \(net\..*model\.float\(\).*precision=\"fp16\".*model\.bfloat16"):
        train(net, events(), replace(RUN, precision=precision))
    assert all(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))


def test_frozen_fp16_weights_need_a_scaler_and_trained_ones_are_never_scaled():
    net = model()
    for p in net.parameters():
        p.requires_grad_(False)
    net.net.linear_out.half().requires_grad_(True)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match=r"float16 \(net\.linear_out"):
        check_weight_types(net, scaled=True)  # torch: "Attempting to unscale FP16 gradients"
    net.net.linear_out.requires_grad_(False)  # pyright: ignore[reportAttributeAccessIssue]
    check_weight_types(net, scaled=True)
    with pytest.raises(TypeError, match=r"float16 \(net\.linear_out"):
        check_weight_types(net, scaled=False)
    check_weight_types(model(), scaled=False)


class WithBuffer(nn.Module):
    """A network with a floating buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))
        self.register_buffer("shift", torch.tensor(0.1))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.weight * x + self.shift


def test_buffers_beside_a_loaded_average_are_float32_too(tmp_path):
    net = ScoreModel(WithBuffer().to(BF16), VPSDE(), event_shape=(2,))
    train(net, events(), RUN, run_dir=tmp_path)
    for arguments in ({}, {"average": 0.05}, {"average": 0.08}):
        loaded = checkpoint.load(tmp_path, net=WithBuffer(), **arguments)
        assert dtypes(loaded.net) == {torch.float32}
        assert loaded.net.shift.item() == torch.tensor(0.1, dtype=BF16).item()  # pyright: ignore[reportCallIssue]
    raw = checkpoint.load(tmp_path, net=WithBuffer().to(BF16), raw=True)
    assert dtypes(raw.net) == {BF16}
