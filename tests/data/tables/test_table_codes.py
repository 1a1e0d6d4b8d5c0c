"""Tables whose categories stay codes: round trips, order of entries, masks, and the default recipe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scoresde.data import load_data
from scoresde.data.tables.kinds_table import column_lines
from scoresde.nn import MixedNet
from scoresde.process import VPSDE, Categorical, Mixed
from scoresde.storage import spec
from scoresde.training.data_checks import check_process
from scoresde.training.defaults import default_recipe

ROWS = 400


@pytest.fixture(name="path")
def _path(tmp_path):
    generator = np.random.default_rng(0)
    color = generator.choice(["blue", "green", "red"], ROWS, p=[0.2, 0.3, 0.5])
    size = generator.choice(["L", "S"], ROWS)
    height = generator.normal(size=ROWS) + 2.0 * (color == "red")
    count = generator.poisson(4, ROWS)
    lines = [f"{c},{h:.6f},{s},{n}" for c, h, s, n in zip(color, height, size, count)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["color,height,size,count", *lines]) + "\n")
    return path


def test_numbers_come_first_and_codes_stay_as_they_are(path):
    data, hot = load_data(path), load_data(path, one_hot=True)
    description = data.description
    assert description.codes == (3, 2)
    assert hot.description.codes == ()
    assert description.model_shape == (4,)
    assert description.encoding is not None
    assert description.encoding.owners == (1, 3, 0, 2)
    y = data.train
    x = description.to_model(description.center(y))
    assert torch.equal(x[:, 2], y[:, 0])
    assert torch.equal(x[:, 3], y[:, 2])
    # the maps of the numbers are those of the one-hot table, whose first entries are the three colors
    other = hot.description.to_model(hot.description.center(hot.train))
    torch.testing.assert_close(x[:, :2], other[:, [3, 6]])


@pytest.mark.parametrize("noised", [False, True], ids=["center", "dequantized"])
def test_rows_come_back_from_model_units(path, noised):
    data = load_data(path)
    description, y = data.description, data.train
    unfolded = description.dequantize(y, torch.Generator().manual_seed(0)) if noised else description.center(y)
    assert torch.equal(description.to_data(description.to_model(unfolded)), y.double())
    assert torch.equal(description.to_data(description.to_model(y)), y.double())


def test_the_log_volume_is_that_of_the_numbers_alone(path):
    data, hot = load_data(path), load_data(path, one_hot=True)
    x = data.description.to_model(data.description.center(data.train))
    other = hot.description.to_model(hot.description.center(hot.train))
    assert hot.description.encoding is not None
    columns: Any = [c for c in hot.description.encoding.columns if hasattr(c, "side")]
    cubes = sum(len(c.mean) * np.log(c.side / c.scale) for c in columns)
    torch.testing.assert_close(data.description.log_det(x), hot.description.log_det(other) - cubes)


def test_missing_codes_are_missing_in_model_units(path):
    text = path.read_text().splitlines()
    cells = text[1].split(",")
    path.write_text("\n".join([text[0], ",".join(["", *cells[1:]]), *text[2:]]) + "\n")
    data = load_data(path, missing="mask", shuffle=False)
    x = data.description.to_model(data.description.center(data.train[:1]))
    assert x.isnan().tolist() == [[False, False, True, False]]
    assert data.description.to_data(x).isnan().tolist() == [[True, False, False, False]]


def test_the_default_recipe_is_a_mixed_process_whose_network_reads_what_is_needed(path):
    data = load_data(path)
    recipe = default_recipe(data.description, len(data.train))
    assert isinstance(recipe.sde, Mixed)
    assert recipe.sde.categorical.classes == (3, 2)
    assert isinstance(recipe.network, MixedNet)
    assert "2 of them categories" in recipe.reason
    model = recipe.build(data)
    assert model.event_shape == (4,)
    absorbing = Mixed(VPSDE(), Categorical((3, 2), "absorbing"))
    assert default_recipe(data.description, process=absorbing).network.mask
    assert isinstance(default_recipe(load_data(path, one_hot=True).description).sde, VPSDE)


def test_a_process_that_does_not_fit_is_refused_with_the_one_that_does(path):
    description, hot = load_data(path).description, load_data(path, one_hot=True).description
    with pytest.raises(ValueError, match=r"Mixed\(VPSDE\(\), Categorical\(\(3, 2\)\)\), got VPSDE"):
        check_process(VPSDE(), description)
    with pytest.raises(ValueError, match=r"got classes \(3, 3\)"):
        check_process(Mixed(VPSDE(), Categorical((3, 3))), description)
    with pytest.raises(ValueError, match="without one_hot=True"):
        check_process(Mixed(VPSDE(), Categorical((3, 2))), hot)


def test_the_description_reads_back_from_its_text_and_says_what_becomes_of_a_column(path):
    description = load_data(path).description
    import scoresde.data

    classes = spec.known_classes(scoresde.data)
    assert spec.parse(spec.to_text(description), classes) == description
    assert "codes" not in spec.to_text(load_data(path, one_hot=True).description)
    assert next(line[3] for line in column_lines(description)) == "code"
