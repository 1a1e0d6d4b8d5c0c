"""Conjugate gradients of a batch: against a direct solution, and where samples stop."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.guidance.posterior.conjugate_gradient import conjugate_gradient


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(count: int, size: int) -> Tensor:
    factor = draw(count, size, size)
    return factor @ factor.mT + 0.1 * torch.eye(size).double()


def solve(matrix: Tensor, b: Tensor, iterations: int, image: Tensor | None = None) -> tuple[Tensor, Tensor]:
    def product(p: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("bij,bj->bi", matrix, p), p if image is None else p @ image.mT

    return conjugate_gradient(product, b, iterations)


def test_it_solves_each_system_of_a_batch_and_returns_the_image() -> None:
    matrix, b, image = positive(3, 5), draw(3, 5, seed=1), draw(2, 5, seed=2)
    found, residual = solve(matrix, b, 6, image)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, b) @ image.mT, rtol=1e-8, atol=1e-8)
    assert float(residual.max()) < 1e-8


def test_the_residual_is_that_of_the_solution() -> None:
    matrix, b = positive(3, 5), draw(3, 5, seed=1)
    found, residual = solve(matrix, b, 2)
    expected = (b - torch.einsum("bij,bj->bi", matrix, found)).norm(dim=1) / b.norm(dim=1)
    torch.testing.assert_close(residual, expected)


def test_a_converged_sample_stops_while_others_go_on() -> None:
    matrix = torch.stack([torch.eye(5).double(), positive(1, 5)[0]])
    b = draw(2, 5, seed=1)
    assert torch.equal(solve(matrix, b, 40)[0][0], solve(matrix, b, 1)[0][0])  # the identity needs one iteration
    torch.testing.assert_close(solve(matrix, b, 40)[0], torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-8)
    single, residual = solve(matrix.float(), b.float(), 200)
    assert bool(single.isfinite().all())
    assert float(residual.max()) < 1e-5


def test_a_right_side_of_zero_gives_zero() -> None:
    b = draw(2, 5, seed=1) * torch.tensor([[0.0], [1.0]])
    found, residual = solve(positive(2, 5), b, 10)
    assert torch.equal(found[0], torch.zeros(5).double())
    assert float(residual[0]) == 0.0


def test_the_scale_of_the_right_side_does_not_matter() -> None:
    matrix, b = positive(2, 5).float(), draw(2, 5, seed=1).float()
    small = solve(1e-12 * matrix, 1e-12 * b, 5)[0]
    torch.testing.assert_close(small, solve(matrix, b, 5)[0], rtol=1e-3, atol=1e-3)


def test_a_sample_with_a_negative_direction_stops_before_it() -> None:
    matrix = torch.diag_embed(torch.tensor([[-1.0, -2.0], [1.0, 2.0]]).double())
    b = torch.ones(2, 2).double()
    found, residual = solve(matrix, b, 5)
    assert torch.equal(found[0], torch.zeros(2).double())
    torch.testing.assert_close(residual, torch.tensor([1.0, 0.0]).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1], torch.tensor([1.0, 0.5]).double())
