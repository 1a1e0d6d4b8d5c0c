"""Axes of arrays: channels first, last or missing, and arrays without a batch axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scoresde.data import Description, load_data
from scoresde.data.axes import arrange_axes
from scoresde.nn import MLP, Pointwise, QuantizedSkip, UNet
from scoresde.training.defaults import default_recipe

CLEAR = [(50,), (50, 3), (50, 1000), (50, 2, 5), (50, 1, 4, 4), (50, 3, 32, 32), (50, 2, 3, 4, 4), (50, 1, 8, 8, 8)]
CLEAR += [(50, 3, 100), (50, 64, 1000), (50, 3, 32, 64), (50, 4, 1, 9), (50, 2, 9, 9, 9), (50, 5, 3)]


@pytest.mark.parametrize("shape", CLEAR)
@pytest.mark.parametrize("integers", [False, True])
def test_shapes_with_channels_first_are_taken_as_they_are(shape, integers):
    if integers and shape[1:] == (64, 1000):
        pytest.skip("integer values of two long axes are gray images")
    events = torch.zeros(shape, dtype=torch.uint8 if integers else torch.float32)
    assert arrange_axes(events, None, None, "x") is events


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((50, 16, 16, 3), r"looks like channels last; pass channels='last' \(or 'first'"),
        ((50, 28, 28, 1), "looks like channels last"),
        ((50, 20, 30, 4), "looks like channels last"),
        ((50, 64, 64, 13), "looks like channels last"),
        ((50, 16, 16, 16, 1), "looks like channels last"),
        ((50, 100, 3), "looks like channels last"),
        ((50, 200, 12), "looks like channels last"),
        ((50, 28, 28), r"images without a channel axis, or series of 28 channels; pass channels='none'"),
        ((50, 12, 32, 32), r"volumes without a channel axis, or images of 12 channels; pass channels='none'"),
    ],
)
def test_shapes_that_look_like_other_axes_are_asked_about_with_the_option_that_helps(shape, message):
    events = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        arrange_axes(events, None, None, "x")
    assert arrange_axes(events, "first", None, "x") is events


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((28, 28), "one image"),
        ((16, 16, 16), "one volume"),
        ((3, 32, 32), "one image"),
        ((32, 32, 3), "one image with channels last"),
        ((2, 1000), "one series"),
    ],
)
def test_an_array_that_looks_like_one_event_is_refused(shape, kind):
    with pytest.raises(ValueError, match=f"looks like {kind} without one; stack your events"):
        arrange_axes(torch.zeros(shape), None, None, "x")
    assert arrange_axes(torch.zeros(shape), "first", None, "x").shape == shape


def test_gray_images_of_integers_and_cubes_get_a_channel_axis_with_a_warning():
    with pytest.warns(UserWarning, match=r"gray images \(H, W\) without a channel axis.*\(50, 1, 8, 9\)"):
        assert arrange_axes(torch.zeros(50, 8, 9, dtype=torch.uint8), None, None, "x").shape == (50, 1, 8, 9)
    with pytest.warns(UserWarning, match="gray images"):
        assert arrange_axes(torch.zeros(50, 8, 9, dtype=torch.int64), None, 17, "x").shape == (50, 1, 8, 9)
    with pytest.warns(UserWarning, match="volumes"):
        assert arrange_axes(torch.zeros(50, 16, 16, 16), None, None, "x").shape == (50, 1, 16, 16, 16)


def test_channels_last_moves_the_axis_and_keeps_every_value(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (10, 9, 12, 3)).astype(np.uint8)
    np.save(tmp_path / "x.npy", array)
    data = load_data(tmp_path / "x.npy", bins=256, channels="last", shuffle=False)
    assert data.description.shape == (3, 9, 12)
    assert np.array_equal(torch.cat([data.train, data.test]).numpy(), array.transpose(0, 3, 1, 2))
    series = np.random.default_rng(0).normal([0, 100, 5], [1, 2, 3], (40, 50, 3))
    np.savez(tmp_path / "s.npz", train=series[:30], test=series[30:])
    split = load_data(tmp_path / "s.npz", channels="last", per_feature=True)
    assert split.train.shape == (30, 3, 50)
    assert split.test.shape == (10, 3, 50)
    np.testing.assert_allclose(np.asarray(split.description.scale), series[:30].std((0, 1)), rtol=1e-12)


def test_a_missing_channel_axis_is_added_to_a_file_as_a_warning_says(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (10, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "x.npy", array)
    with pytest.warns(UserWarning, match=r"x.npy of shape \(10, 8, 8\) is read as gray images"):
        data = load_data(tmp_path / "x.npy", shuffle=False, bins=256)
    assert np.array_equal(torch.cat([data.train, data.test])[:, 0].numpy(), array)
    assert load_data(tmp_path / "x.npy", channels="none", bins=256).description.shape == (1, 8, 8)
    assert load_data(tmp_path / "x.npy", channels="first", bins=256).description.shape == (8, 8)


def test_channels_that_do_not_exist_or_do_not_fit_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((10, 2)))
    with pytest.raises(ValueError, match=r"unknown channels 'lst'; did you mean last"):
        load_data(tmp_path / "x.npy", channels="lst")
    with pytest.raises(ValueError, match="channels='last' needs at least 3 axes"):
        load_data(tmp_path / "x.npy", channels="last")


@pytest.mark.parametrize(
    ("shape", "bins", "network", "reason"),
    [
        ((3, 16, 16), None, UNet, r"images (C, H, W)"),
        ((3, 16, 16), 256, QuantizedSkip, r"images (C, H, W) of integer values, 256 bins"),
        ((2, 16), None, UNet, "series (C, L)"),
        ((1, 64), 256, QuantizedSkip, "series (C, L) of integer values, 256 bins"),
        ((1, 8, 8, 8), None, UNet, "volumes (C, D, H, W)"),
        ((2, 15), None, MLP, "too small for a UNet"),
        ((16, 16, 3), 256, MLP, "if the last axis is one of channels, move it to the front"),
        ((7,), None, Pointwise, "tables of 7 columns"),
        ((2,), None, MLP, "points of 2 values"),
    ],
)
def test_the_default_network_states_why_it_was_chosen(shape, bins, network, reason):
    recipe = default_recipe(Description("d", shape, bins=bins))
    assert type(recipe.network) is network
    assert reason in recipe.reason


@pytest.mark.parametrize(("shape", "coarsest"), [((1, 16_000), 500), ((1, 64, 64, 64), 512), ((2, 16), 4)])
def test_attention_of_long_series_and_large_volumes_sees_at_most_512_positions(shape, coarsest):
    net = default_recipe(Description("d", shape)).network
    assert isinstance(net, UNet)
    halvings = len(net.multipliers) - 1
    assert net.attention == (halvings,)
    assert np.prod([-(-size // 2**halvings) for size in shape[1:]]) == coarsest
