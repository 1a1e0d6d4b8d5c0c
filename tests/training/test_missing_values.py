"""Training on data with missing values: the right distribution, every feature of a run, and clear refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from scoresde.data import Augment, Data, Description
from scoresde.model import ScoreModel
from scoresde.nn import MLP, UNet
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import ImportanceTimesteps, LossMomentTimesteps
from scoresde.objective.weighting import ELBO, Simple
from scoresde.process.parameterization import Eps, V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, Adams, sample
from scoresde.storage import checkpoint
from scoresde.training import Callback, CallbackState, Monitor, Training, loss_by_log_snr, train
from scoresde.training.data_scale import warn_if_unscaled
from scoresde.training.defaults import default_recipe

MEAN = torch.tensor([0.5, -0.3, 0.2])
COV = torch.tensor([[1.0, 0.8, -0.5], [0.8, 1.0, -0.2], [-0.5, -0.2, 1.0]])


def gaussian(n: int, generator: torch.Generator, missing: float = 0.3) -> Data:
    """A correlated Gaussian of which a share of the cells is missing completely at random; a quarter is held out."""
    x = MEAN + torch.randn(n, 3, generator=generator) @ torch.linalg.cholesky(COV).T
    x[torch.rand(n, 3, generator=generator) < missing] = math.nan
    return Data(x[n // 4 :], x[: n // 4], Description("gaussian", (3,), missing=True))


def small_model(**settings: Any) -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = MLP((3,), **{"width": 24, "depth": 1, "observed": True, **settings})
    return ScoreModel(net, VPSDE(Cosine(), tau_min=1e-4), V())


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(0), torch.cov(x.T)


def test_a_gaussian_with_missing_cells_is_learned(generator):
    data = gaussian(12_000, generator)
    settings = Training(900, 256, Loss(ELBO(), ImportanceTimesteps(ELBO())), lr=3e-3, lr_end=0.0, warmup=20, ema=0.98)
    model = train(small_model(width=48, depth=2), data, settings, progress=False).model
    mean, cov = moments(sample(model, 6000, Adams(steps=20), seeds=range(6000)).x)
    # the standard error of a mean or covariance of the 3100 complete rows is up to .025, that of 6000 samples .018
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=0.1)
    torch.testing.assert_close(cov, COV, rtol=0, atol=0.1)
    filled = moments(data.train.nan_to_num(0.0))  # what a loss that counts missing cells as zeros would learn
    assert (filled[0] - MEAN).abs().max() > 0.13
    assert (filled[1] - COV).abs().max() > 0.35


def test_the_loss_in_the_history_is_that_of_an_observed_entry(generator):
    model = small_model()
    model.parameterization = Eps()  # an untrained network returns 0: the error is eps, of mean square 1
    settings = Training(20, 512, Loss(Simple()), lr=1e-12, warmup=0, ema=None)
    for missing in (0.0, 0.6):
        result = train(model, gaussian(4000, generator, missing), settings, progress=False)
        assert result.history[-1][1] == pytest.approx(1.0, abs=0.03)  # standard error of 30 000 or 12 000 squares .013


class Interruption(Exception):
    pass


def run_settings(**changes: Any) -> Training:
    loss = Loss(ELBO(), LossMomentTimesteps(bins=8, memory=4))
    return replace(Training(12, 32, loss, lr=3e-3, warmup=2, ema=0.9, lengths=(0.05, 0.1), accumulate=2), **changes)


def test_an_interrupted_run_continues_bit_for_bit(tmp_path, generator):
    data = gaussian(300, generator)

    def interrupt(state: CallbackState) -> None:
        if state.step == 7:
            raise Interruption

    train(small_model(dropout=0.1), data, run_settings(), run_dir=tmp_path / "one", progress=False)
    with pytest.raises(Interruption):
        train(
            small_model(dropout=0.1),
            data,
            run_settings(),
            run_dir=tmp_path / "two",
            save_every=5,
            callbacks=[Callback(1, interrupt)],
            progress=False,
        )
    train(small_model(dropout=0.1), data, run_settings(), run_dir=tmp_path / "two", resume=True, progress=False)
    one, two = (checkpoint.read_checkpoint(tmp_path / name) for name in ("one", "two"))
    assert one.tensors.keys() == two.tensors.keys() >= {"model", "ema", "optimizer", "timesteps", "average_0"}
    for group, named in one.tensors.items():
        assert all(torch.equal(tensor, two.tensors[group][name]) for name, tensor in named.items()), group
    loaded = checkpoint.load(tmp_path / "two")
    assert loaded.data == data.description
    assert loaded.net.observed is True
    assert bool(sample(loaded, 5, DDIM(steps=5)).x.isfinite().all())


def test_a_run_on_complete_data_does_not_depend_on_their_being_described_as_incomplete(generator):
    data = gaussian(300, generator, missing=0.0)
    plain = Data(data.train, data.test, Description("gaussian", (3,)))
    weights = [
        train(small_model(), each, run_settings(), progress=False).raw.net.state_dict() for each in (data, plain)
    ]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_events_larger_than_the_device_are_masked_too(generator, monkeypatch):
    data = gaussian(300, generator)
    resident = train(small_model(), data, run_settings(accumulate=1), progress=False).raw.net.state_dict()
    monkeypatch.setattr("scoresde.training.batches._RESIDENT", 10)
    read = train(small_model(), data, run_settings(accumulate=1), progress=False).raw.net.state_dict()
    assert all(torch.equal(resident[name], value) for name, value in read.items())


def test_a_tensor_takes_the_description_of_its_model(generator):
    data = gaussian(300, generator)
    model = small_model()
    with pytest.raises(ValueError, match=r"data must be finite, got nan at index .*Description\(..., missing=True\)"):
        train(model, data.train, run_settings(), progress=False)
    described = ScoreModel(model.net, model.sde, V(), data=data.description)
    assert train(described, data.train.numpy(), run_settings(), progress=False).step == 12


def test_the_monitor_and_the_loss_by_noise_count_observed_entries(tmp_path, generator):
    data = gaussian(400, generator)
    monitor = Callback(6, Monitor(tmp_path, data, samples=0))
    train(small_model(), data, run_settings(), callbacks=[monitor], progress=False)
    lines = (tmp_path / "loss_by_log_snr.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert "NaN" not in lines[1]
    model = small_model()
    model.parameterization = Eps()
    losses = loss_by_log_snr(model, data.train, 4, repeats=8, observed=~data.train.isnan())
    torch.testing.assert_close(losses.loss, torch.ones(4, dtype=torch.float64), rtol=0, atol=0.08)


def test_networks_that_do_not_read_the_mask_are_refused_with_the_remedies(generator):
    data = gaussian(100, generator)
    refusal = r"data with missing values need a network .* MLP does not: .*observed=True.*missing=\"drop\".*complete"
    with pytest.raises(TypeError, match=refusal):
        train(small_model(observed=False), data, run_settings(), progress=False)
    images = torch.randn(20, 1, 8, 8, generator=generator)
    images[3, 0, 2, 2] = math.nan
    description = Description("images", (1, 8, 8), missing=True)
    model = ScoreModel(UNet((1, 8, 8), channels=16), VPSDE(Cosine()), V())
    with pytest.raises(TypeError, match=r"UNet does not"):
        train(model, Data(images, images[:2], description), Training(1, 4), progress=False)
    model = ScoreModel(MLP((1, 8, 8), width=8, depth=1, observed=True), VPSDE(Cosine()), V())
    with pytest.raises(ValueError, match=r"augment needs complete images, got data with missing values"):
        train(model, Data(images, images[:2], description), Training(1, 4, augment=Augment()), progress=False)


def test_a_column_that_is_never_observed_is_refused(generator):
    data = gaussian(100, generator)
    data.train[:, 1] = math.nan
    with pytest.raises(ValueError, match=r"every column must have values, got none in x\[1\] \(75 rows\)"):
        train(small_model(), data, run_settings(), progress=False)


def test_an_event_of_which_nothing_is_observed_trains_nothing(generator):
    data = gaussian(64, generator)
    data.train[10:] = math.nan
    result = train(small_model(), data, run_settings(batch_size=64, accumulate=1), progress=False)
    assert math.isfinite(result.history[-1][1])
    assert all(bool(weight.isfinite().all()) for weight in result.raw.parameters())


def test_the_default_recipe_reads_what_is_missing():
    for shape in ((2,), (7,), ()):
        recipe = default_recipe(Description("table", shape, missing=True))
        assert getattr(recipe.network, "observed", None) is True
        assert "missing values" in recipe.reason
        assert getattr(default_recipe(Description("table", shape)).network, "observed", False) is False
    images = default_recipe(Description("images", (1, 16, 16), missing=True))
    assert isinstance(images.network, MLP)
    assert images.network.observed
    assert "UNet does not read" in images.reason


@pytest.mark.filterwarnings("error")
def test_the_scale_of_incomplete_data_is_that_of_their_values(generator):
    data = gaussian(400, generator)
    warn_if_unscaled(data, data.description)
    far = Data(data.train * 100, data.test, data.description)
    with pytest.warns(UserWarning, match=r"got 'gaussian' with mean [-\d.]+ and standard deviation [\d.]+: samples"):
        warn_if_unscaled(far, far.description)


def test_a_loop_of_ones_own_trains_on_incomplete_events(generator):
    data = gaussian(200, generator)
    model = small_model()
    x0 = data.description.to_model(data.train)
    before = Loss()(model, x0, torch.Generator().manual_seed(0), observed=~x0.isnan()).mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        Loss()(model, x0, observed=~x0.isnan()).mean().backward()
        optimizer.step()
    after = Loss()(model, x0, torch.Generator().manual_seed(0), observed=~x0.isnan()).mean()
    assert after < 0.95 * before
