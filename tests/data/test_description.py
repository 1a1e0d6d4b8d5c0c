"""Descriptions: scaling and its Jacobian, quantization and dequantization, validation of values and fields."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from scoresde.data import ClassCondition, Data, Description

SHAPES = [(), (3,), (2, 5), (1, 4, 4), (2, 3, 4, 4)]


def description_of(kind: str, shape: tuple[int, ...]) -> Description:
    if kind == "quantized":
        return Description("d", shape, bins=17)
    if kind == "per feature":
        size = shape[0]
        return Description("d", shape, offset=tuple(range(size)), scale=tuple(0.5 + i for i in range(size)))
    return Description("d", shape, offset=3.0, scale=0.25)


# --- scaling


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["quantized", "global", "per feature"])
def test_log_det_is_that_of_the_autograd_jacobian(kind, shape, generator):
    if kind == "per feature" and shape == ():
        pytest.skip("there is no feature axis")
    description = description_of(kind, shape)
    y = torch.rand(1, *shape, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(description.to_model, y)
    assert isinstance(jacobian, torch.Tensor)
    expected = torch.linalg.slogdet(jacobian.reshape(description.dims, description.dims)).logabsdet.item()
    assert description.log_det(y).tolist() == pytest.approx([expected] * len(y), abs=1e-12)


def test_quantized_data_fill_minus_one_to_one_by_default():
    description = Description("d", (1,), bins=256)
    ends = description.to_model(torch.tensor([[0.0], [128.0], [256.0]]))
    assert ends.flatten().tolist() == [-1.0, 0.0, 1.0]


def test_the_per_feature_scale_acts_on_the_first_event_axis():
    description = Description("d", (2, 3), offset=(1.0, 2.0), scale=(10.0, 100.0))
    x = description.to_model(torch.zeros(1, 2, 3))
    torch.testing.assert_close(x, torch.tensor([-0.1, -0.02]).reshape(1, 2, 1).expand(1, 2, 3))


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("kind", ["global", "per feature"])
def test_continuous_scaling_is_undone(kind, shape, generator):
    description = description_of(kind, shape)
    y = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(description.to_data(description.to_model(y)), y, rtol=0, atol=1e-14)


@pytest.mark.parametrize("bins", [2, 17, 256, 4096])
def test_values_are_recovered_from_bin_centers_and_from_dequantization_inside_their_bin(bins, generator):
    description = Description("d", (bins,), bins=bins)
    values = torch.arange(bins)[None]
    assert torch.equal(description.to_data(description.to_model(description.center(values))).long(), values)
    y = description.dequantize(values.expand(50, -1), generator)
    inside = (y - values - 0.5).abs() < 0.49
    recovered = description.to_data(description.to_model(y)).long()
    assert torch.equal(recovered[inside], values.expand(50, -1)[inside])


def test_the_center_of_integer_value_3_is_one_half_above_it():
    values = torch.tensor([[3]])
    description = Description("d", (1,), bins=8, offset=0.0, scale=1.0)
    assert description.center(values).item() == 3.5
    assert description.to_model(description.center(values)).item() == 3.5


def test_the_center_of_integer_value_3_in_model_units_uses_offset_and_scale():
    description = Description("d", (1,), bins=8, offset=1.5, scale=4.0)
    assert description.to_model(description.center(torch.tensor([[3]]))).item() == 0.5
    default = Description("d", (1,), bins=8)
    assert default.to_model(default.center(torch.tensor([[3]]))).item() == -0.125


def test_dequantized_values_stay_in_their_bin_where_the_sum_would_round_up(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, 1 - 2.0**-24))
    y = Description("d", (256,), bins=256).dequantize(torch.arange(256)[None])
    assert torch.equal(y.floor(), torch.arange(256.0)[None])


def test_dequantization_is_uniform_and_leaves_the_global_random_state(generator):
    before = torch.get_rng_state()
    values = torch.full((20_000, 1), 5)
    u = (Description("d", (1,), bins=17).dequantize(values, generator) - 5).flatten().double().sort().values
    distance = (u - (torch.arange(20_000) + 0.5) / 20_000).abs().max().item()
    assert distance < 1.95 / math.sqrt(20_000)  # Kolmogorov-Smirnov, p = 0.001
    assert torch.equal(before, torch.get_rng_state())


def test_samples_outside_the_range_are_clipped_to_the_first_and_last_value():
    description = Description("d", (4,), bins=17)
    assert description.to_data(torch.tensor([[-3.0, -1.0, 1.0, 9.0]])).tolist() == [[0, 0, 16, 16]]
    assert description.to_data(torch.zeros(1, 4)).dtype == torch.uint8


def test_double_precision_is_kept():
    description = Description("d", (1,), offset=1.0, scale=3.0)
    assert description.to_model(torch.ones(1, 1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("bins", [2, 17, 256])
@pytest.mark.parametrize("scaling", [(None, None), (0.0, 1.0), (3.0, 11.0)])
def test_the_uniform_distribution_needs_log2_bins_bits_under_any_scaling(bins, scaling):
    description = Description("d", (1, 4, 4), bins=bins, offset=scaling[0], scale=scaling[1])
    assert isinstance(description.scale, float)
    log_prob = torch.full((3,), -16 * math.log(bins / description.scale), dtype=torch.float64)
    torch.testing.assert_close(description.bits_per_dim(log_prob), torch.full_like(log_prob, math.log2(bins)))


def test_bits_per_dim_of_continuous_data_raise_an_error_that_asks_for_bins_and_scale():
    with pytest.raises(ValueError, match=r"bits per dimension need quantized data.*state bins= and scale="):
        Description("table", (3,)).bits_per_dim(torch.zeros(1))


# --- validation


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_error_names_the_index_of_a_value_that_is_not_finite(value):
    y = torch.zeros(4, 2, 3)
    y[2, 1, 0] = value
    with pytest.raises(ValueError, match=rf"data must be finite, got {value} at index \(2, 1, 0\)"):
        Description("d", (2, 3)).validate(y)


def test_the_index_is_right_beyond_the_first_chunk(monkeypatch):
    monkeypatch.setattr("scoresde.data.description._CHUNK", 6)
    y = torch.zeros(10, 2)
    y[7, 1] = math.nan
    with pytest.raises(ValueError, match=r"at index \(7, 1\)"):
        Description("d", (2,)).validate(y)


@pytest.mark.parametrize("bad", [-1, 17])
def test_integer_values_outside_the_bins_are_refused(bad):
    with pytest.raises(ValueError, match=rf"data must lie in \[0, 17\), got {bad} at index \(1, 0\)"):
        Description("d", (1,), bins=17).validate(torch.tensor([[3], [bad]]))


def test_all_256_values_of_a_byte_are_valid():
    Description("d", (256,), bins=256).validate(torch.arange(256, dtype=torch.uint8)[None])


def test_a_dequantized_value_at_the_upper_end_is_refused():
    with pytest.raises(ValueError, match="data must lie in"):
        Description("d", (1,), bins=17).validate(torch.tensor([[17.0]]))


def test_continuous_data_may_touch_their_declared_range_but_not_leave_it():
    description = Description("d", (1,), low=-1, high=2)
    description.validate(torch.tensor([[-1.0], [2.0]]))
    with pytest.raises(ValueError, match=r"data must be <= high = 2.0, got 2.5"):
        description.validate(torch.tensor([[2.5]]))
    with pytest.raises(ValueError, match=r"data must be >= low = -1.0, got -1.5"):
        description.validate(torch.tensor([[-1.5]]))


@pytest.mark.parametrize("method", ["to_model", "to_data", "dequantize", "center", "validate"])
@pytest.mark.parametrize("shape", [(4, 8, 8), (8, 1, 8), (1, 8, 8), (2, 5, 1, 8, 8), ()])
def test_a_wrong_event_shape_is_never_broadcast(method, shape):
    with pytest.raises(ValueError, match=r"must have shape \(B, 1, 8, 8\), got"):
        getattr(Description("digits", (1, 8, 8), bins=17), method)(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_batch_gives_an_empty_result(shape):
    description = Description("d", shape, bins=4)
    empty = torch.zeros(0, *shape, dtype=torch.uint8)
    description.validate(empty)
    assert description.to_data(description.to_model(description.dequantize(empty))).shape == (0, *shape)


def test_integer_values_that_were_not_dequantized_are_refused():
    with pytest.raises(ValueError, match=r"to_model takes dequantized values.*pass dequantize\(values, generator\)"):
        Description("d", (1,), bins=4).to_model(torch.zeros(1, 1, dtype=torch.uint8))


def test_continuous_data_cannot_be_dequantized():
    with pytest.raises(ValueError, match="dequantize takes integer values of quantized data"):
        Description("d", (1,)).dequantize(torch.zeros(1, 1))


def test_nan_samples_cannot_be_quantized():
    with pytest.raises(ValueError, match=r"must not be NaN to be quantized, got nan at index \(0, 0\)"):
        Description("d", (1,), bins=4).to_data(torch.tensor([[math.nan]]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bins": 1}, "bins must be an integer >= 2, got 1"),
        ({"bins": 2.5}, "bins must be an integer >= 2, got 2.5"),
        ({"bins": 17, "high": 16.0}, r"integer values 0 ... 16 fill \[0, 17\), got low=None, high=16.0"),
        ({"low": 1.0, "high": 1.0}, "low must lie below high"),
        ({"scale": 0.0}, "scale must be finite and > 0, got 0.0"),
        ({"scale": (1.0, -1.0)}, "scale must be finite and > 0"),
        ({"offset": math.nan}, "offset must be finite"),
        ({"offset": (1.0, 2.0, 3.0)}, "offset needs one number, or one per entry of the first axis"),
        ({"shape": (2, 0)}, "shape must hold sizes >= 1"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Description(**{"name": "d", "shape": (2,), **fields})


def test_a_description_is_rebuilt_from_its_plain_fields():
    description = Description(
        "d", (2,), offset=(1, 2), scale=(3, 4), conditions={"label": ClassCondition(2, ("a", "b"))}
    )
    assert Description(**vars(description)) == description
    from_lists: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(description).items()}
    assert Description(**from_lists) == description


def test_data_refuse_labels_that_differ_in_number_from_the_events():
    with pytest.raises(
        ValueError, match=r"train_cond\['label'\] must have one entry per event, shape \(3, ...\), got \(2,\)"
    ):
        Data(torch.zeros(3, 1), torch.zeros(0, 1), Description("d", (1,)), {"label": torch.zeros(2)})
