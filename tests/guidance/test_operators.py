"""Measurement operators: adjoints, singular values and pseudo-inverses against matrices; each one's own definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from subclasses import concrete
from torch import Tensor

from scoresde.guidance.operators import (
    AveragePool,
    Blur,
    FourierMask,
    Function,
    LinearOperator,
    Mask,
    Matrix,
    Operator,
    ParallelBeam,
    SpectralOperator,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank() -> Tensor:
    return draw(5, 2, seed=1) @ draw(2, 12, seed=2)


LINEAR: dict[str, Any] = {
    "mask": lambda: Mask(draw(2, 6) > 0),
    "matrix": lambda: Matrix(draw(5, 12), (2, 6)),
    "matrix of low rank": lambda: Matrix(low_rank(), (2, 6)),
    "tall matrix": lambda: Matrix(draw(15, 12), (2, 6)),
    "pool of a series": lambda: AveragePool((2, 6), 3),
    "pool of an image": lambda: AveragePool((2, 4, 6), 2),
    "pool of a volume": lambda: AveragePool((1, 2, 4, 2), 2),
    "blur of a series": lambda: Blur(draw(3), (2, 6)),
    "blur of an image": lambda: Blur(draw(3, 5), (2, 4, 5)),
    "Fourier mask, even grid": lambda: FourierMask(draw(4, 6) > 0.5, (2, 4, 6)),
    "Fourier mask, odd grid": lambda: FourierMask(draw(3, 5) > 0, (1, 3, 5)),
    "Fourier mask of a series": lambda: FourierMask(torch.ones(6, dtype=torch.bool), (2, 6)),
    "projection": lambda: ParallelBeam([0.0, 0.4, 2.0], (2, 5, 5)),
}
SPECTRAL = {name: make for name, make in LINEAR.items() if isinstance(make(), SpectralOperator)}


def test_every_linear_operator_is_among_the_cases() -> None:
    assert {type(make()) for make in LINEAR.values()} == set(concrete(LinearOperator))
    assert set(concrete(Operator)) - set(concrete(LinearOperator)) == {Function}


@pytest.mark.parametrize("name", LINEAR)
def test_the_adjoint_is_the_transpose(name: str, generator: torch.Generator) -> None:
    operator = LINEAR[name]()
    x = torch.randn(3, *operator.event_shape, generator=generator, dtype=torch.float64)
    y = torch.randn(3, *operator.output_shape, generator=generator, dtype=torch.float64)
    forward = (operator(x) * y).flatten(1).sum(1)
    assert operator(x).shape == y.shape
    torch.testing.assert_close(forward, (x * operator.adjoint(y)).flatten(1).sum(1), rtol=1e-12, atol=1e-12)
    matrix = operator.matrix().double()
    torch.testing.assert_close(operator(x).flatten(1), x.flatten(1) @ matrix.mT, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LINEAR)
def test_a_stated_diagonal_is_that_of_the_gram_matrix(name: str) -> None:
    operator = LINEAR[name]()
    matrix, diagonal = operator.matrix().double(), operator.gram_diagonal(draw(1))
    if diagonal is not None:
        expected = torch.diag(diagonal.expand(operator.output_shape).flatten())
        torch.testing.assert_close(matrix @ matrix.mT, expected, rtol=1e-12, atol=1e-12)
    support = operator.support()
    if support is not None:
        assert torch.equal(matrix.abs().sum(1) > 0, support.flatten())
        assert operator.measured() == int(support.sum())


@pytest.mark.parametrize("name", SPECTRAL)
def test_singular_vectors_reproduce_the_operator_and_its_pseudo_inverse(name: str, generator: torch.Generator) -> None:
    operator = SPECTRAL[name]()
    x = torch.randn(4, *operator.event_shape, generator=generator, dtype=torch.float64)
    y = torch.randn(4, *operator.output_shape, generator=generator, dtype=torch.float64)
    s = operator.singular_values(x)
    torch.testing.assert_close(operator.left(operator(x)), s * operator.right(x), rtol=1e-11, atol=1e-11)
    z = torch.randn(4, len(s), generator=generator, dtype=torch.float64) * (s > 1e-9)
    torch.testing.assert_close(operator.right(operator.right_adjoint(z)) * (s > 1e-9), z, rtol=1e-11, atol=1e-11)
    expected = (y.flatten(1) @ torch.linalg.pinv(operator.matrix().double()).mT).reshape(x.shape)
    torch.testing.assert_close(operator.pseudo_inverse(y), expected, rtol=1e-9, atol=1e-10)


def test_a_pool_takes_the_mean_of_each_block() -> None:
    x = draw(2, 3, 4, 6)
    torch.testing.assert_close(AveragePool((3, 4, 6), 2)(x), torch.nn.functional.avg_pool2d(x, 2))


def test_a_blur_is_the_periodic_convolution() -> None:
    kernel, x = draw(3), draw(1, 1, 5)
    expected = sum(kernel[j + 1] * x.roll(j, -1) for j in (-1, 0, 1))
    torch.testing.assert_close(Blur(kernel, (1, 5))(x), expected)
    assert Blur(kernel, (1, 5))(x.float()).dtype == torch.float32


def test_a_full_fourier_mask_is_orthonormal_and_counts_each_pair_once() -> None:
    operator, x = FourierMask(torch.ones(4, 6, dtype=torch.bool), (1, 4, 6)), draw(3, 1, 4, 6)
    assert operator.measured() == 24
    torch.testing.assert_close(operator(x).flatten(1).square().sum(1), x.flatten(1).square().sum(1))
    torch.testing.assert_close(operator.adjoint(operator(x)), x)
    spectrum = torch.fft.fft2(x, norm="ortho")[:, :, 0, 1]
    torch.testing.assert_close(operator(x)[:, :, 0, 1], math.sqrt(2) * torch.view_as_real(spectrum))


def test_projections_at_right_angles_sum_over_columns_and_rows() -> None:
    x = draw(2, 1, 5, 5)
    sums = ParallelBeam([0.0, math.pi / 2, 0.3], (1, 5, 5))(x)
    empty = (sums.shape[-1] - 5) // 2
    torch.testing.assert_close(sums[:, 0, 0, empty:-empty], x[:, 0].sum(1))
    torch.testing.assert_close(sums[:, 0, 1, empty:-empty], x[:, 0].sum(2))
    torch.testing.assert_close(sums[:, 0].sum(2), x.sum((1, 2, 3)).reshape(2, 1).expand(2, 3))


def test_a_function_is_linearized_by_its_derivative(generator: torch.Generator) -> None:
    def measure(x: Tensor) -> Tensor:
        return torch.stack([x.square().sum(1), x[:, 0].sin()], 1)

    operator = Function(measure, (3,), (2,))
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    v, w = torch.randn_like(x), torch.randn(4, 2, generator=generator, dtype=torch.float64)
    value, apply, adjoint = operator.linearize(x)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda e: measure(e[None])[0], e) for e in x])
    torch.testing.assert_close(value, measure(x))
    torch.testing.assert_close(apply(v), torch.einsum("byd,bd->by", jacobian, v))
    torch.testing.assert_close(adjoint(w), torch.einsum("byd,by->bd", jacobian, w))
    with pytest.raises(ValueError, match=r"must return shape \(4, 3\)"):
        Function(measure, (3,), (3,))(x)


def test_a_mask_of_each_observation_is_selected_by_index() -> None:
    observed = torch.tensor([[True, False, True], [False, False, True]])
    mask, x = Mask(observed, per_observation=True), draw(3, 3)
    chosen = mask.select(torch.tensor([1, 0, 1]))
    assert torch.equal(chosen(x), x * observed[[1, 0, 1]])
    assert (mask.measured(), chosen.measured(), mask.one(1).measured()) == (2, 2, 1)
    assert torch.equal(mask.one(1).matrix(), torch.diag(observed[1].double()))
    with pytest.raises(ValueError, match="one parameter set, got 2"):
        mask.matrix()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mask(torch.ones(2)), "bool tensor"),
        (lambda: Matrix(torch.ones(2, 3), (4,)), r"\(M, d\)"),
        (lambda: Matrix(torch.ones(2, 3).long()), "must be floating"),
        (lambda: AveragePool((1, 5, 4), 2), "divisible by factor = 2"),
        (lambda: Blur(torch.ones(2), (1, 5)), "odd sizes"),
        (lambda: Blur(torch.ones(7), (1, 5)), "odd sizes"),
        (lambda: FourierMask(torch.ones(4, 4, dtype=torch.bool), (1, 4, 5)), "shape of the grid"),
        (lambda: ParallelBeam([], (1, 4, 4)), "one or more numbers"),
        (lambda: ParallelBeam([0.0], (1, 4, 5)), r"\(C, n, n\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make()


def test_events_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x0 must have shape \(B, 2, 6\), got \(3, 12\)"):
        LINEAR["mask"]()(draw(3, 12))
