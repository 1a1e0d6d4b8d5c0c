"""Imputation: exact conditionals, observed values bit for bit, intervals, columns of tables."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scoresde import DDPM, MLP, VPSDE, Description, Gaussian, ScoreModel, V, impute, load_data
from scoresde.guidance import MMPS
from scoresde.inverse import Imputed, TwistedSMC
from scoresde.sampling import SDEDPMSolverPP

MEAN = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
COV = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 0.5]], dtype=torch.float64)
NAN = math.nan
QUICK = {"method": MMPS(), "sampler": SDEDPMSolverPP(steps=20)}


def gaussian() -> Gaussian:
    return Gaussian(MEAN, COV)


def conditional(x: Tensor, known: list[int]) -> tuple[Tensor, Tensor]:
    gain = COV[:, known] @ torch.linalg.inv(COV[known][:, known])
    return MEAN + gain @ (x[known] - MEAN[known]), COV - gain @ COV[known]


@pytest.mark.parametrize("method", [MMPS(), TwistedSMC(steps=60, particles=2000)], ids=lambda m: type(m).__name__)
def test_draws_have_the_exact_conditional_distribution_of_gaussian_data(method: MMPS | TwistedSMC) -> None:
    table, n = torch.tensor([[2.0, NAN, 0.5], [0.5, 1.0, -1.0], [NAN, 1.0, NAN]], dtype=torch.float64), 2000
    filled = impute(gaussian(), table, n, method, generator=torch.Generator().manual_seed(0))
    assert bool(((filled.data == table.unsqueeze(1)) | table.isnan().unsqueeze(1)).all())
    for row, known, free in ((0, [0, 2], [1]), (2, [1], [0, 2])):
        mean, cov = conditional(table[row], known)
        error = (filled.data[row][:, free].mean(0) - mean[free]).abs() / (cov.diagonal()[free] / n).sqrt()
        limit = 5.0 if isinstance(method, MMPS) else 12.0  # particles have common ancestors
        assert float(error.max()) < limit
        drawn = filled.data[row][:, free].T.cov().reshape(len(free), -1)
        torch.testing.assert_close(drawn, cov[free][:, free], rtol=0.2, atol=0.03)


def test_a_complete_event_costs_nothing_and_comes_back_in_every_draw() -> None:
    table = torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64)
    filled = impute(gaussian(), table, 3)
    assert torch.equal(filled.data, table.unsqueeze(1).expand(1, 3, 3))
    assert filled.nfe == 0
    assert not filled.missing.any()


def test_a_draw_depends_on_the_seed_of_its_event_and_not_on_its_batch() -> None:
    table = torch.tensor([[2.0, NAN, 0.5], [0.5, 1.0, -1.0], [NAN, 1.0, NAN], [NAN, NAN, NAN]], dtype=torch.float64)
    whole = impute(gaussian(), table, 2, seeds=range(4), **QUICK).data
    parts = impute(gaussian(), table, 2, seeds=range(4), batch_size=1, **QUICK).data
    last = impute(gaussian(), table[2:], 2, seeds=[2, 3], **QUICK).data
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(last, whole[2:], rtol=0, atol=1e-10)


def test_particle_draws_depend_on_the_seed_of_their_event_only() -> None:
    table = torch.tensor([[2.0, NAN, 0.5], [0.5, 1.0, -1.0], [NAN, 1.0, NAN]], dtype=torch.float64)
    method = TwistedSMC(steps=10, particles=32)
    whole = impute(gaussian(), table, 4, method, seeds=range(3)).data
    last = impute(gaussian(), table[2:], 4, method, seeds=[2]).data
    torch.testing.assert_close(last, whole[2:], rtol=0, atol=1e-9)


def test_particles_without_an_observation_are_draws_of_the_model() -> None:
    table = torch.full((1, 3), NAN, dtype=torch.float64)
    method = TwistedSMC(steps=60, particles=2000)
    drawn = impute(gaussian(), table, 2000, method, generator=torch.Generator().manual_seed(0)).data[0]
    torch.testing.assert_close(drawn.mean(0), MEAN, rtol=0, atol=0.15)
    torch.testing.assert_close(drawn.T.cov(), COV, rtol=0.15, atol=0.05)


def test_a_model_that_was_trained_on_incomplete_rows_fills_them() -> None:
    description = Description("incomplete", (3,), missing=True)
    model = ScoreModel(MLP((3,), 8, 1, 8, observed=True), VPSDE(), V(), data=description)
    table = torch.tensor([[0.3, NAN, -1.0]])
    filled = impute(model, table, 2, seeds=[0], **QUICK).data
    assert filled[0, :, [0, 2]].tolist() == table[:, [0, 2]].expand(2, 2).tolist()
    assert bool(filled.isfinite().all())
    assert filled[0, 0, 1] != filled[0, 1, 1]


def test_an_interval_ends_at_the_ranks_of_exchangeable_numbers() -> None:
    """Of 19 draws and the value itself, each rank is equally likely: the extreme draws enclose it in 18 of 20 cases."""
    data = torch.arange(19.0).flip(0).reshape(1, 19, 1)
    filled = Imputed(data, data, torch.ones(1, 1, dtype=torch.bool), 1)
    low, high = filled.interval(0.9)
    assert [float(low), float(high)] == [0.0, 18.0]
    low, high = filled.interval(0.5)
    assert [float(low), float(high)] == [4.0, 14.0]
    assert float(filled.mean()) == 9.0


@pytest.mark.parametrize("draws", [9, 20])
def test_intervals_hold_the_value_as_often_as_they_say(draws: int) -> None:
    truth = gaussian().sample(2000, generator=torch.Generator().manual_seed(3))
    table = truth.clone()
    table[:, 1] = NAN
    filled = impute(gaussian(), table, draws, generator=torch.Generator().manual_seed(4), **QUICK)
    low, high = filled.interval(0.8)
    inside = float(((truth >= low) & (truth <= high))[:, 1].double().mean())
    assert inside == pytest.approx(0.8, abs=0.04)


# --- tables --------------------------------------------------------------------------------------------------------


def write_table(path: Path, rows: int = 60) -> Path:
    rng = np.random.default_rng(0)
    lines = ["name,height,count,color,day"]
    for i in range(rows):
        color = ("red", "green", "blue")[rng.integers(3)]
        lines.append(f"n{i},{rng.normal(170, 9):.1f},{rng.integers(0, 30)},{color},2024-01-{1 + i % 28:02d}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def table_model(tmp_path: Path) -> ScoreModel:
    with pytest.warns(UserWarning, match="identif"):
        data = load_data(write_table(tmp_path / "train.csv"))
    torch.manual_seed(0)
    return ScoreModel(MLP(data.description.model_shape, 8, 1, 8), VPSDE(), V(), data=data.description)


def test_missing_cells_of_every_kind_are_filled_in_the_units_of_the_table(
    table_model: ScoreModel, tmp_path: Path
) -> None:
    path = tmp_path / "new.csv"
    path.write_text(
        "height,count,color,day\n170.5,,red,2024-01-05\n,7,,\n181.2,3,blue,\n,,,\n165.0,4,green,2024-01-09\n",
        encoding="utf-8",
    )
    filled = impute(table_model, path, 3, seeds=range(5), **QUICK)
    assert filled.missing.tolist() == [
        [False, True, False, False],
        [True, False, True, True],
        [False, False, False, True],
        [True, True, True, True],
        [False, False, False, False],
    ]
    for draw in range(3):
        columns = filled.columns(draw)
        assert list(columns) == ["height", "count", "color", "day"]
        assert columns["height"][[0, 2, 4]].tolist() == [170.5, 181.2, 165.0]
        assert columns["count"].dtype == np.int64
        assert columns["count"][[1, 2, 4]].tolist() == [7, 3, 4]
        assert set(columns["color"]) <= {"red", "green", "blue"}
        assert columns["color"][[0, 2, 4]].tolist() == ["red", "blue", "green"]
        assert columns["day"].dtype.kind == "M"
        assert str(columns["day"][0])[:10] == "2024-01-05"
        assert np.allclose(columns["height"] * 10, np.rint(columns["height"] * 10))
    assert filled.mean()[1, 2] in (0, 1, 2)
    pandas = pytest.importorskip("pandas")
    same = impute(table_model, pandas.read_csv(path), 3, seeds=range(5), **QUICK)
    assert torch.equal(same.data, filled.data)
    assert list(filled.frame(1).columns) == ["height", "count", "color", "day"]


def test_observed_cells_of_binned_columns_are_taken_at_the_center_of_their_bin(table_model: ScoreModel) -> None:
    row = torch.tensor([[170.5, 3.0, 1.0, NAN]], dtype=torch.float64)
    filled = impute(table_model, row, 2, seeds=[0], **QUICK)
    description = table_model.data
    assert description is not None
    centers = description.to_model(description.center(row))
    known = ~centers[0].isnan()
    torch.testing.assert_close(filled.x[0, :, known].double(), centers[:, known].expand(2, -1), rtol=1e-5, atol=1e-5)


def test_quantized_values_with_nan_are_whole_numbers_and_not_edges_of_bins() -> None:
    description = Description("pixels", (3,), bins=8)
    model = ScoreModel(MLP((3,), 8, 1, 8), VPSDE(), V(), data=description)
    table = torch.tensor([[3.0, NAN, 7.0]])
    filled = impute(model, table, 2, seeds=[0], **QUICK)
    expected = description.to_model(description.center(torch.tensor([[3, 0, 7]])))
    torch.testing.assert_close(filled.x[0, 0, [0, 2]], expected[0, [0, 2]])
    assert filled.data[0, :, [0, 2]].tolist() == [[3, 7], [3, 7]]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"draws": 0}, ValueError, "draws must be a positive integer"),
        ({"table": "missing.csv"}, TypeError, "a path needs a model of a table"),
        ({"table": torch.zeros(2, 4).double()}, ValueError, r"table must have shape \(B, 3\)"),
        ({"seeds": [0]}, ValueError, "one entry per sample, 2, got 1"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_remedy(options: dict, error: type[Exception], text: str) -> None:
    arguments = {"table": torch.zeros(2, 3).double(), **options}
    with pytest.raises(error, match=text):
        impute(gaussian(), **arguments)


def test_a_value_that_the_table_cannot_have_is_refused(table_model: ScoreModel) -> None:
    with pytest.raises(ValueError, match="column 'count' must hold multiples of 1, got 3.5"):
        impute(table_model, torch.tensor([[170.5, 3.5, 1.0, NAN]], dtype=torch.float64), 2)


def test_an_interval_needs_enough_draws_and_a_method_that_draws_by_itself_takes_no_sampler() -> None:
    model = Gaussian(torch.zeros(2).double(), torch.eye(2).double())
    table = torch.tensor([[2.0, torch.nan]]).double()
    filled = impute(model, table, draws=9, method=MMPS(), seeds=[0])
    low, high = filled.interval(0.8)
    ordered = filled.data[0, :, 1].sort().values
    assert (float(low[0, 1]), float(high[0, 1])) == (float(ordered[0]), float(ordered[-1]))
    with pytest.raises(ValueError, match=r"an interval of level 0.9 needs at least 19 draws, got 9"):
        filled.interval(0.9)
    with pytest.raises(ValueError, match=r"TwistedSMC draws by itself and takes no sampler, got DDPM"):
        impute(model, table, draws=2, sampler=DDPM(3))


def test_particles_have_a_noise_of_a_hundredth_by_default() -> None:
    table, method = torch.tensor([[2.0, NAN, 0.5]], dtype=torch.float64), TwistedSMC(5, 64)
    drawn = [impute(gaussian(), table, 8, method, noise_std=std, seeds=[0]).data for std in (None, 0.01, 0.02)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
