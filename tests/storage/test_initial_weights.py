"""`start_from`: the weights of a run in a network with further inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import scoresde as sd
from scoresde.nn import Channels, Classes, QuantizedSkip


def model(width: int = 8, **options) -> sd.ScoreModel:
    torch.manual_seed(width)
    net = sd.MLP((2,), width=width, depth=1, embedding_width=8, **options)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return sd.ScoreModel(net, sd.VPSDE(), event_shape=(2,))


def test_a_new_condition_leaves_the_output_without_it_unchanged_up_to_its_null(tmp_path):
    old, new = model(), model(conditions={"label": Classes(3)})
    sd.save(old, tmp_path)
    copied = sd.start_from(new, tmp_path)
    assert copied.new == ("conditioning.label_embedding.table.weight",)
    assert copied.unused == ()
    assert set(copied.copied) == {name for name, _ in old.net.named_parameters()}
    with torch.no_grad():
        new.net.get_submodule("conditioning.label_embedding.table").weight.zero_()  # pyright: ignore
    x = torch.randn(5, 2)
    assert torch.equal(old(x, 0.3).eps, new(x, 0.3).eps)


@pytest.mark.parametrize("wrapped", [False, True])
def test_new_input_channels_start_without_effect(tmp_path, wrapped):
    def made(conditions) -> sd.ScoreModel:
        torch.manual_seed(1)
        net = sd.UNet((1, 8, 8), channels=8, multipliers=(1,), outputs=3 if wrapped else 1, conditions=conditions)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return sd.ScoreModel(QuantizedSkip(net, 256, -1.0, 1.0) if wrapped else net, sd.VPSDE())

    old, new = made({}), made({"low": Channels(2)})
    sd.save(old, tmp_path)
    copied = sd.start_from(new, tmp_path)
    assert copied.widened == (("net." if wrapped else "") + "conv_in.weight",)
    x, low = torch.randn(3, 1, 8, 8), torch.randn(3, 2, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(old(x, 0.3).eps, new(x, 0.3, low=low).eps)


def test_averaged_weights_are_taken_unless_raw_ones_are_asked_for(tmp_path):
    raw, averaged = model(), model()
    with torch.no_grad():
        averaged.net.linear_out.bias.add_(1.0)  # pyright: ignore
    sd.save(raw, tmp_path, ema=averaged)
    for flag, source in ((False, averaged), (True, raw)):
        target = model()
        sd.start_from(target, tmp_path, raw=flag)
        assert torch.equal(target.net.linear_out.bias, source.net.linear_out.bias)  # pyright: ignore


def test_weights_that_do_not_fit_are_listed_and_nothing_changes(tmp_path):
    sd.save(model(), tmp_path)
    other = model(width=12)
    before = {name: value.clone() for name, value in other.net.state_dict().items()}
    with pytest.raises(ValueError, match=r"linear_in.weight \[8, 2\] for \[12, 2\].*and \d+ more.*Nothing was copied"):
        sd.start_from(other, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in other.net.state_dict().items())
    stranger = sd.ScoreModel(torch.nn.Linear(2, 2), sd.VPSDE())
    with pytest.raises(ValueError, match="none of its names"):
        sd.start_from(stranger, tmp_path)


def test_weights_for_another_target_are_refused(tmp_path):
    sd.save(model(), tmp_path)
    eps = sd.ScoreModel(sd.MLP((2,), width=8, depth=1), sd.VPSDE(sd.LinearVP()), sd.Eps())
    with pytest.raises(ValueError, match=r"estimates V\(.*\), got a model with Eps\(\)"):
        sd.start_from(eps, tmp_path)


def test_only_a_score_model_takes_weights(tmp_path):
    with pytest.raises(TypeError, match="must be a ScoreModel"):
        sd.start_from(sd.Gaussian(torch.zeros(2), 1.0), tmp_path)  # pyright: ignore[reportArgumentType]


def test_new_channels_before_those_of_the_run_are_refused(tmp_path):
    def made(conditions, **options) -> sd.ScoreModel:
        net = sd.UNet((1, 8, 8), channels=16, multipliers=(1,), attention=(), conditions=conditions, **options)
        return sd.ScoreModel(net, sd.VPSDE())

    sd.save(made({"low": Channels(1)}), tmp_path)
    sd.start_from(made({"low": Channels(1), "edges": Channels(1)}), tmp_path)
    for other in (made({"edges": Channels(1), "low": Channels(1)}), made({"edges": Channels(3)})):
        before = other.net.conv_in.weight.clone()  # pyright: ignore
        with pytest.raises(ValueError, match="new input channels must follow those of the run"):
            sd.start_from(other, tmp_path)
        assert torch.equal(other.net.conv_in.weight, before)  # pyright: ignore


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")], ids=["DP", "compile"]
)
def test_a_wrapped_network_starts_from_a_run_of_a_plain_one(tmp_path, wrap):
    old, net = sd.ScoreModel(sd.MLP((2,), width=8, depth=1), sd.VPSDE()), sd.MLP((2,), width=8, depth=1)
    sd.save(old, tmp_path)
    copied = sd.start_from(sd.ScoreModel(wrap(net), sd.VPSDE()), tmp_path)
    assert set(copied.copied) == {name for name, _ in net.named_parameters()}
    assert not copied.new
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), old.net.parameters()))
