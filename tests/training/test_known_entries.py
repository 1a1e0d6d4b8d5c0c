"""A network that reads the known entries of an event: what training draws, what it estimates, and imputation by it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import scoresde as sd
from scoresde.cli import app
from scoresde.guidance import CFG
from scoresde.nn import Channels, Classes, Known, MixedNet
from scoresde.process import Mixed, ou
from scoresde.sampling import Adams, MixedSampler
from scoresde.storage import checkpoint
from scoresde.training.condition_batches import random_known
from scoresde.training.defaults import default_recipe

COV = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.5], [0.0, 0.5, 1.0]])


def network(event_shape: tuple[int, ...] = (3,)) -> sd.MLP:
    return sd.MLP(event_shape, width=64, depth=2, conditions={"known": Known(event_shape[0])})


def test_any_share_of_the_entries_is_known_and_missing_values_never_are(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    x0 = torch.randn(4000, 20)
    x0[:, 0] = math.nan
    known = random_known(x0, nothing=0.25)
    assert known[:, 0].isnan().all()
    share = ~known[:, 1:].isnan()
    assert torch.equal(known[:, 1:][share], x0[:, 1:][share])
    each = share.double().mean(1)
    assert float((each == 0).double().mean()) == pytest.approx(0.25 + 0.75 / 20, abs=0.03)
    quarters = torch.histc(each[each > 0], 4, 0, 1) / (each > 0).sum()
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.05)


def test_the_channels_of_a_position_are_known_together() -> None:
    known = random_known(torch.randn(50, 3, 4, 4))
    assert torch.equal(known.isnan().all(1), known.isnan().any(1))


@pytest.mark.parametrize("output", [sd.V(), sd.Eps(), sd.X0(), sd.Score(), sd.V(0.5)], ids=str)
def test_the_estimate_of_a_known_entry_is_its_value(output: sd.process.Parameterization) -> None:
    net = network().double()
    torch.nn.init.normal_(net.linear_out.weight)
    model = sd.ScoreModel(net, sd.VPSDE(), output)
    x, known = torch.randn(5, 3).double(), torch.tensor([[0.3, math.nan, -2.0]]).double().expand(5, 3)
    tau = torch.linspace(0.01, 3.0, 5).double()
    prediction, alone = model(x, tau, known=known), model(x, tau)
    torch.testing.assert_close(prediction.x0[:, [0, 2]], known[:, [0, 2]], rtol=0, atol=1e-9)
    seen = torch.where(known.isnan(), x, ou.alpha(tau).unsqueeze(1) * known)  # known entries have no noise
    torch.testing.assert_close(prediction.out[:, 1], net(seen, ou.log_snr(tau).float(), known=known)[:, 1])
    assert not torch.allclose(prediction.out[:, 1], alone.out[:, 1])  # the network reads what is known


def test_known_entries_add_nothing_to_the_loss() -> None:
    net = network()
    torch.nn.init.normal_(net.linear_out.weight)
    model, x0 = sd.ScoreModel(net, sd.VPSDE(), sd.V()), torch.randn(64, 3)
    assert sd.Loss()(model, x0, known=x0).mean() < 1e-6
    assert sd.Loss()(model, x0).mean() > 0.1


def test_draws_of_a_trained_network_have_the_conditional_moments_of_a_gaussian() -> None:
    torch.manual_seed(1)
    x = torch.randn(20000, 3) @ torch.linalg.cholesky(COV).T
    model = sd.ScoreModel(network(), sd.VPSDE(sd.Cosine()), sd.V())
    settings = sd.Training(steps=1500, batch_size=256, lr=3e-3, lr_end=0.0, ema=0.98)
    trained = sd.train(model, x, settings).model
    table = torch.tensor([[1.0, math.nan, math.nan], [math.nan, -1.0, math.nan], [math.nan, 0.5, 1.0], [math.nan] * 3])
    filled = sd.impute(trained, table, draws=2000, seeds=range(4))
    assert filled.nfe <= 21  # samples of one network, without particles
    for row, drawn in zip(table, filled.x):
        free, given = row.isnan().nonzero().flatten(), (~row.isnan()).nonzero().flatten()
        gain = COV[free][:, given] @ torch.linalg.inv(COV[given][:, given])
        mean, cov = gain @ row[given], COV[free][:, free] - gain @ COV[given][:, free]
        assert torch.equal(drawn[:, given], row[given].expand(2000, -1))
        torch.testing.assert_close(drawn[:, free].mean(0), mean, rtol=0, atol=0.12)
        torch.testing.assert_close(drawn[:, free].T.cov().reshape(cov.shape), cov, rtol=0, atol=0.12)


def _table(folder: Path, rows: int = 400) -> Path:
    path = folder / "table.csv"
    numbers = torch.randn(rows, generator=torch.Generator().manual_seed(0)).tolist()
    path.write_text("size,weight,kind\n" + "".join(f"{x:.3f},{2 * x:.3f},{'ab'[x > 0]}\n" for x in numbers))
    return path


def test_numbers_and_categories_are_imputed_by_the_network_itself(tmp_path: Path) -> None:
    data = sd.load_data(_table(tmp_path))
    recipe = default_recipe(data.description, len(data.train), conditions=["known"])
    model = recipe.build(data)
    assert isinstance(model.sde, Mixed)
    assert isinstance(model.net, MixedNet)
    trained = sd.train(model, data, replace(recipe.training, steps=600, batch_size=128)).model
    gap = math.nan
    partial = torch.tensor([[1.5, gap, gap], [-1.5, gap, gap], [gap, gap, 0.0], [gap, gap, 1.0]])
    filled = sd.impute(trained, partial.double(), draws=50, seeds=range(4))
    kinds = filled.data[:2, :, 2].double().mean(1)
    assert abs(kinds[0] - kinds[1]) > 0.8  # a or b, as the size says
    assert filled.data[0, :, 1].mean() - filled.data[1, :, 1].mean() > 4  # 3 and -3
    means = filled.data[2:, :, 0].mean(1)
    assert abs(means[0] - means[1]) > 0.8  # -0.8 and 0.8, as the kind says


def test_probabilities_of_a_known_category_are_0_and_1(tmp_path: Path) -> None:
    data = sd.load_data(_table(tmp_path, 60))
    model = default_recipe(data.description, 48, conditions=["known"]).build(data)
    known = torch.tensor([[math.nan, 0.5, 1.0]]).expand(4, 3)
    x = model.sde.perturb(torch.zeros(4, 3), 0.5, torch.rand(4, 3))
    prediction = model(x, 0.5, known=known)
    torch.testing.assert_close(prediction.categorical.probs[:, 0], torch.tensor([[0.0, 1.0]]).expand(4, 2))
    torch.testing.assert_close(prediction.continuous.x0[:, 1], torch.full((4,), 0.5))
    drawn = sd.sample(model, 4, MixedSampler(), known=known, seeds=range(4)).x
    assert torch.equal(drawn[:, 2], torch.ones(4))
    torch.testing.assert_close(drawn[:, 1], torch.full((4,), 0.5), rtol=0, atol=1e-2)


def test_guidance_by_a_class_does_not_move_known_entries() -> None:
    net = sd.MLP((3,), width=16, depth=1, conditions={"label": Classes(2), "known": Known(3)})
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model = sd.ScoreModel(net, sd.VPSDE(), sd.V(), event_shape=(3,))
    x, known = torch.randn(4, 3), torch.tensor([[0.5, math.nan, -1.0]]).expand(4, 3)
    label = torch.tensor([0, 1, 0, 1])
    guided, plain = (CFG(model, scale)(x, 0.7, label=label, known=known).x0 for scale in (3.0, 1.0))
    torch.testing.assert_close(guided[:, [0, 2]], known[:, [0, 2]], rtol=0, atol=1e-5)
    assert not torch.allclose(guided[:, 1], plain[:, 1])


def test_an_image_is_inpainted_by_the_network_itself() -> None:
    net = sd.UNet((2, 8, 8), 8, (1,), 1, conditions={"known": Known(2)})
    model = sd.ScoreModel(net, sd.VPSDE(), sd.V(), event_shape=(2, 8, 8))
    x, mask = torch.randn(1, 2, 8, 8), torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :4] = True
    result = sd.inpaint(model, x, mask, draws=3, sampler=Adams(5), seeds=[0])
    assert result.nfe == 5
    kept = (result.x == x.unsqueeze(1)).all(2)[0, 0]
    assert bool(kept[:, :4].all()) or bool(kept[:, 4:].all())


def _run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output


def test_a_run_is_stored_resumed_and_used_by_the_command_line(tmp_path: Path) -> None:
    run, table = tmp_path / "run", _table(tmp_path)
    _run("train", "--data", table, "--condition", "known", "--out", run, "--steps", 20, "-q")
    assert "known" in checkpoint.load(run).net.conditions  # pyright: ignore[reportOperatorIssue]
    _run("train", "--resume", "--out", run, "-q")
    gaps = tmp_path / "gaps.csv"
    gaps.write_text("size,weight,kind\n1.0,,a\n,2.0,\n")
    _run("impute", run, gaps, "--draws", 2, "--out", tmp_path / "filled.csv")
    assert len((tmp_path / "filled.csv").read_text().splitlines()) == 5
    _run("sample", run, "-n", 4, "--out", tmp_path / "rows.csv")
    _run("likelihood", run, "--limit", 10)


def test_what_cannot_be_is_refused() -> None:
    model = sd.ScoreModel(network(), sd.VPSDE(), sd.V(), event_shape=(3,))
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match="a likelihood is one of whole events, got known entries"):
        sd.log_prob(model, x, known=x)
    with pytest.raises(ValueError, match="noise_std must be None where the network reads the known entries"):
        sd.impute(model, x, noise_std=0.1)
    with pytest.raises(ValueError, match=r"known must have shape \(2, 3\), got \(2, 2\)"):
        model(x, 0.5, known=x[:, :2])
    with pytest.raises(ValueError, match="the condition of known entries is named known, got 'rest'"):
        sd.MLP((3,), conditions={"rest": Known(3)})
    with pytest.raises(ValueError, match="the condition of known entries is named known"):
        sd.MLP((1, 3), conditions={"known": Channels(1)})
    with pytest.raises(ValueError, match=r"known must have the entries, or channels, of the event \(3,\)"):
        sd.MLP((3,), conditions={"known": Known(2)})
    codes = sd.Description("codes", (8,), classes=5)
    with pytest.raises(ValueError, match=r"known entries need events of numbers.* classes of shape "):
        default_recipe(codes, conditions=["known"])
