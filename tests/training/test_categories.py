"""Training on categories: default recipes, runs that are stored, resumed and read back, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

import scoresde as sd
from scoresde.data import Characters, Data, Description, load_data
from scoresde.nn import MLP, CategoricalNet, DiT, UNet
from scoresde.objective import CrossEntropy, PathKL
from scoresde.process import Binomial, Categorical, Cosine, Logits
from scoresde.sampling import Ancestral
from scoresde.storage import checkpoint
from scoresde.training import Callback, CallbackState, Monitor, Training, train
from scoresde.training.defaults import default_recipe

BITS = load_data("heartbeat", n=200)


def small_model(seed: int = 0) -> sd.ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = CategoricalNet(MLP(CategoricalNet.inner_shape((20,), 2), 16, 1), (20,), 2)
    return sd.ScoreModel(net, Binomial(), data=BITS.description)


@pytest.mark.parametrize(
    ("description", "process", "inner", "mask"),
    [
        (Description("bits", (20,), classes=2), Binomial(), MLP, False),
        (Description("genes", (20,), classes=4), Categorical(4, "absorbing"), MLP, True),
        (Description("text", (64,), alphabet=Characters("abc ")), Categorical(4, "absorbing"), DiT, True),
        (Description("images", (1, 8, 8), classes=2), Binomial(), UNet, False),
        (Description("small", (2, 3, 3), classes=3), Categorical(3, "absorbing"), MLP, True),
    ],
)
def test_each_shape_of_categories_has_a_recipe(
    description: Description, process: object, inner: type, mask: bool
) -> None:
    recipe = default_recipe(description)
    assert recipe.sde == process
    assert recipe.parameterization == Logits()
    assert recipe.training.loss == PathKL()
    net = recipe.network
    assert isinstance(net, CategoricalNet)
    assert isinstance(net.net, inner)
    assert (net.event_shape, net.classes, net.mask) == (description.shape, description.classes, mask)


def test_the_network_of_a_recipe_follows_the_process_that_is_given() -> None:
    about = Description("genes", (20,), classes=4)
    recipe = default_recipe(about, process=Categorical(4, "uniform"))
    assert isinstance(recipe.network, CategoricalNet)
    assert not recipe.network.mask
    codes = torch.randint(4, (3, 20), generator=torch.Generator().manual_seed(0))
    model = recipe.build(Data(codes, codes[:0], about))
    assert model(codes.float(), 0.5).probs.shape == (3, 20, 4)


def test_a_conditional_network_reads_the_conditions_of_categories() -> None:
    recipe = default_recipe(BITS.description, conditions=["label"])
    assert isinstance(recipe.network, CategoricalNet)
    assert list(recipe.network.conditions) == ["label"]


def test_a_run_of_categories_is_read_back_as_it_was(tmp_path: Path) -> None:
    result = train(small_model(), BITS, Training(3, 16, PathKL()), run_dir=tmp_path / "run")
    loaded = checkpoint.load(tmp_path / "run")
    assert (loaded.sde, loaded.parameterization, loaded.data) == (Binomial(), Logits(), BITS.description)
    assert isinstance(loaded.net, CategoricalNet)
    x = BITS.description.to_model(BITS.test)
    assert torch.equal(loaded(x, 0.3).logits, result.model(x, 0.3).logits)
    samples = sd.sample(loaded, 4, Ancestral(3), seeds=range(4))
    assert samples.data.dtype == torch.uint8
    assert torch.equal(samples.data.float(), samples.x)


def test_a_resumed_run_of_categories_ends_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    settings = Training(8, 16, PathKL(), lr_end=0.0, lengths=(0.1,))

    def fail(state: CallbackState) -> None:
        raise KeyboardInterrupt

    train(small_model(), BITS, settings, run_dir=tmp_path / "whole", snapshot_every=4)
    with pytest.raises(KeyboardInterrupt):
        train(
            small_model(),
            BITS,
            settings,
            run_dir=tmp_path / "parts",
            save_every=3,
            snapshot_every=4,
            callbacks=[Callback(5, fail)],
        )
    train(small_model(7), BITS, settings, run_dir=tmp_path / "parts", resume=True, snapshot_every=4)
    one, two = (checkpoint.read_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert one.tensors.keys() == two.tensors.keys()
    for group, named in one.tensors.items():
        for name, tensor in named.items():
            assert torch.equal(tensor, two.tensors[group][name]), (group, name)
    assert one.meta["history"] == two.meta["history"]


def test_windows_of_a_text_that_overlap_are_trained_as_copies_of_them(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("abba cab dab. " * 40)
    data = load_data(f"text:{tmp_path / 'x.txt'}", length=20)
    assert data.description.classes is not None
    assert data.train.stride() == (2, 1)
    copied = Data(data.train.clone(), data.test.clone(), data.description)
    nets = []
    for events in (data, copied):
        recipe = default_recipe(data.description)
        nets.append(train(recipe.build(events), events, Training(2, 8, PathKL())).raw.net)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_monitoring_writes_cross_entropies_and_samples(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, BITS, events=16, samples=3)
    assert monitor.evaluations == 16 * 16 + 3 * 25
    train(small_model(), BITS, Training(2, 16, PathKL()), callbacks=[Callback(2, monitor)])
    row = json.loads((tmp_path / "loss_by_log_snr.jsonl").read_text())
    # before training a network of zeros gives Bayes' rule for uniform bits: ln 2 at pure noise, 0 at none
    assert row["loss"][-1] == pytest.approx(0.693, abs=0.05)
    assert row["loss"][0] == pytest.approx(0.0, abs=0.02)
    assert list((tmp_path / "samples").glob("*.npz"))


def test_the_cross_entropy_by_log_snr_of_an_exact_model_is_that_of_its_entries() -> None:
    coin = sd.analytic.BernoulliMixture(torch.ones(1), torch.tensor([[0.9, 0.2]], dtype=torch.float64))
    x0 = coin.sample(4000, generator=torch.Generator().manual_seed(0))
    result = sd.training.loss_by_log_snr(coin, x0, [-12.0], generator=torch.Generator().manual_seed(1))
    entropy = torch.tensor([0.9, 0.2], dtype=torch.float64)
    entropy = -(entropy * entropy.log() + (1 - entropy) * (1 - entropy).log()).mean()
    assert abs(float(result.loss[0] - entropy)) < 4 * float(result.stderr[0]) + 1e-4


@pytest.mark.parametrize(
    ("process", "description", "message"),
    [
        (sd.VPSDE(), Description("a", (20,), classes=2), r"data of 2 classes need Binomial\(\) or Categorical\(2\)"),
        (Categorical(3), Description("a", (20,), classes=4), r"need Categorical\(4\), got Categorical, 3 classes"),
        (Binomial(), Description("a", (20,)), "takes categories, got 'a' without classes"),
    ],
)
def test_a_process_that_does_not_fit_the_data_is_refused(
    process: sd.process.Process, description: Description, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        default_recipe(description, process=process)


def test_a_model_of_other_classes_is_refused_before_it_is_trained() -> None:
    net = CategoricalNet(MLP(CategoricalNet.inner_shape((20,), 3), 8, 1), (20,), 3)
    model = sd.ScoreModel(net, Categorical(3))
    with pytest.raises(ValueError, match="data of 2 classes need"):
        train(model, BITS, Training(1, 8, PathKL()))
    with pytest.raises(TypeError, match="Loss trains models of SDE"):
        train(small_model(), BITS, Training(1, 8))


def test_masks_on_a_clock_that_ends_with_signal_are_warned_of_before_training() -> None:
    torch.manual_seed(0)
    for process, ends in ((Categorical(2, "absorbing", Cosine()), True), (Categorical(2, schedule=Cosine()), False)):
        mask = process.kernel == "absorbing"
        net = CategoricalNet(MLP(CategoricalNet.inner_shape((20,), 2, mask), 8, 1), (20,), 2, mask)
        model, settings = sd.ScoreModel(net, process), Training(steps=1, batch_size=4, loss=PathKL())
        message = r"end of Cosine.*no finite bound; use .*LinearAlphaBar\(\)"
        with pytest.warns(UserWarning, match=message) if ends else contextlib.nullcontext():
            train(model, BITS, settings, progress=False)


def test_the_loss_may_be_the_cross_entropy() -> None:
    result = train(small_model(), BITS, Training(2, 16, CrossEntropy()))
    assert result.step == 2
