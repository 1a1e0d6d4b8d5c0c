"""Muon: orthogonal steps for matrices, AdamW for other weights, no step if a gradient is not finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scoresde.training import Muon
from scoresde.training.optimizers import matrices, orthogonalize


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """Layers of every kind; only `linear`, `kernel` and `tied` hold matrices for Muon, two in total."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.kernel = nn.Linear(12, 9), nn.Conv2d(8, 16, 3)
        self.tied = nn.Linear(12, 9)
        self.tied.weight = self.linear.weight
        self.narrow, self.grouped = nn.Linear(12, 3), nn.Conv2d(16, 16, 3, groups=16)
        self.table, self.norm = nn.Embedding(10, 12), nn.LayerNorm(12)
        self.frozen = nn.Linear(12, 12).requires_grad_(False)


def muon_with_gradients(net: nn.Module, **settings: Any) -> tuple[Muon, list[nn.Parameter]]:
    """Muon over a network's trained weights, each with a random gradient."""
    weights = [p for p in net.double().parameters() if p.requires_grad]
    for seed, weight in enumerate(weights):
        weight.grad = noise(*weight.shape, seed=seed)
    return Muon(weights, matrices(net), 0.01, **settings), weights


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16), (1, 5)])
def test_the_orthogonal_factor_keeps_singular_vectors_and_has_singular_values_near_one(shape):
    matrix = noise(*shape)
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    rotated = left.T @ orthogonalize(matrix) @ right.T
    assert torch.allclose(rotated, torch.diag(rotated.diagonal()), atol=1e-10)
    large = sizes > 0.05 * sizes.norm()
    assert large.any()
    assert ((rotated.diagonal()[large] > 0.65) & (rotated.diagonal()[large] < 1.25)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_orthogonal_factor_of_zero_is_zero_and_does_not_depend_on_scale(dtype):
    assert torch.equal(orthogonalize(torch.zeros(3, 4, dtype=dtype)), torch.zeros(3, 4, dtype=dtype))
    one = orthogonalize(noise(5, 9).to(dtype))
    for scale in (1e-36, 1e-23, 1e-12, 1e6, 1e30):
        assert torch.allclose(orthogonalize(scale * noise(5, 9).to(dtype)), one, atol=1e-5)
    assert orthogonalize(1e-42 * noise(5, 9).to(dtype)).isfinite().all()


def test_matrices_are_the_weights_of_linear_layers_and_convolutions_without_narrow_grouped_or_frozen_ones():
    net = Net()
    selected = matrices(net)
    assert len(selected) == 2
    assert selected[0] is net.linear.weight
    assert selected[1] is net.kernel.weight


def test_the_first_step_of_a_matrix_is_its_gradients_orthogonal_factor_with_adamws_length():
    net = Net()
    optimizer, _ = muon_with_gradients(net)
    before, gradient = net.kernel.weight.detach().clone(), net.kernel.weight.grad
    assert gradient is not None
    factor = orthogonalize(gradient.flatten(1)).view_as(gradient)  # the first average is a multiple of the gradient
    optimizer.step()
    step = net.kernel.weight.detach() - before
    assert torch.allclose(step, -0.01 * 0.2 * math.sqrt(72) * factor, atol=1e-12)
    assert 0.1 < step.square().mean().sqrt().item() / 0.01 < 0.3  # AdamW's is 0.2 to 0.4 in long runs


def test_later_steps_follow_nesterovs_momentum():
    net = nn.Linear(12, 9, bias=False)
    optimizer, [weight] = muon_with_gradients(net, momentum=0.9)
    average = torch.zeros_like(weight)
    for seed in range(3):
        gradient, before = noise(9, 12, seed=seed), weight.detach().clone()
        average = 0.9 * average + 0.1 * gradient
        weight.grad = gradient.clone()
        optimizer.step()
        expected = -0.01 * 0.2 * math.sqrt(12) * orthogonalize(0.1 * gradient + 0.9 * average)
        assert torch.allclose(weight.detach() - before, expected, atol=1e-12)
    assert optimizer.state[weight]["step"] == 3


def test_all_other_weights_have_adamws_steps():
    net, other = Net(), Net()
    other.load_state_dict(net.state_dict())
    optimizer, weights = muon_with_gradients(net, weight_decay=0.1)
    _, other_weights = muon_with_gradients(other)
    plain = torch.optim.AdamW(other_weights, 0.01, weight_decay=0.1)
    optimizer.step()
    plain.step()
    matrix_ids = set(map(id, matrices(net)))
    equal = [torch.allclose(a, b, atol=1e-12) for a, b in zip(weights, other_weights, strict=True)]
    assert equal == [id(p) not in matrix_ids for p in weights]


def test_weight_decay_shrinks_a_matrix_whatever_its_gradient():
    ends = []
    for decay in (0.0, 0.5):
        net = nn.Linear(12, 9, bias=False)
        nn.init.constant_(net.weight, 2.0)
        optimizer, [weight] = muon_with_gradients(net, weight_decay=decay)
        optimizer.step()
        ends.append(weight.detach())
    assert torch.allclose(ends[0] - ends[1], torch.full((9, 12), 2.0 * 0.01 * 0.5, dtype=torch.float64), atol=1e-12)


def test_a_step_that_is_not_finite_changes_nothing():
    net = Net()
    optimizer, weights = muon_with_gradients(net)
    optimizer.step()
    before = [p.detach().clone() for p in weights]
    states = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in weights]
    for weight in weights:
        weight.grad = torch.full_like(weight, math.nan)
    optimizer.found_inf = torch.ones(())  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    for state, weight in zip(states, weights, strict=True):
        assert all(torch.equal(v, optimizer.state[weight][k]) for k, v in state.items())
    for weight in weights:
        weight.grad = noise(*weight.shape)
    optimizer.found_inf = torch.zeros(())  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in weights)
    assert not torch.equal(before[0], weights[0])


def test_matrices_of_one_shape_are_orthogonalized_separately_in_any_memory_format():
    ends = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.Conv2d(8, 16, 3, bias=False), nn.Linear(72, 16))
        weights = matrices(layers.to(memory_format=layout))  # pyright: ignore[reportCallIssue]
        for seed, weight in enumerate(weights):
            weight.grad = torch.empty_like(weight).copy_(10.0**seed * noise(*weight.shape, seed=seed))
        before = [weight.detach().clone() for weight in weights]
        Muon(weights, weights, 0.01).step()
        ends.append([weight.detach() - old for weight, old in zip(weights, before, strict=True)])
    for seed, (one, two) in enumerate(zip(*ends, strict=True)):
        alone = orthogonalize(noise(*one.shape, seed=seed).flatten(1)).view_as(one)
        assert torch.allclose(one, two, atol=1e-7)
        assert torch.allclose(one.double(), -0.01 * 0.2 * math.sqrt(72) * alone, atol=1e-6)


def test_a_closure_is_called_once_before_the_step():
    net = nn.Linear(12, 9).double()
    x, before = noise(4, 12), net.weight.detach().clone()
    optimizer, calls = Muon(net.parameters(), (w for w in [net.weight]), 0.01), []

    def closure() -> Tensor:
        optimizer.zero_grad()
        assert torch.equal(net.weight, before)
        loss = net(x).square().mean()
        loss.backward()
        calls.append(loss.detach())
        return loss

    assert optimizer.step(closure) == calls[0]
    assert len(calls) == 1
    assert optimizer.state[net.weight].keys() == {"step", "exp_avg"}
    assert optimizer.state[net.bias].keys() == {"step", "exp_avg", "exp_avg_sq"}


def test_a_grad_scaler_that_does_not_unscale_gradients_changes_nothing():
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        net = nn.Linear(12, 9)
        nn.init.constant_(net.weight, 0.1)
        optimizer = Muon(net.parameters(), [net.weight], 0.01)
        for seed in range(2):
            loss = (net(noise(4, 12, seed=seed).float()) * noise(4, 9).float()).sum()
            (loss if scaler is None else scaler.scale(loss)).backward()
            optimizer.step() if scaler is None else scaler.step(optimizer)
            if scaler is not None:
                scaler.update()
            optimizer.zero_grad()
        ends.append((net.weight.detach(), optimizer.state[net.weight]["exp_avg"]))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*ends, strict=True))


def test_a_momentum_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got 1.0"):
        Muon([], [], 0.01, momentum=1.0)
