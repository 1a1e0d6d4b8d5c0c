"""The written file format: what `docs/file-format.md` says is what `save` and `train` write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import scoresde as sd

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/file-format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the page's code defines."""
    source = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    names: dict[str, Any] = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.chdir(tmp_path_factory.mktemp("page"))
        exec(compile(source, "file-format.md", "exec", dont_inherit=True), names)
        names["loaded"] = sd.load("runs/mine")
    return names


def test_five_lines_read_the_weights(page: dict[str, Any]) -> None:
    expected = page["loaded"].net.state_dict()
    assert page["weights"].keys() == expected.keys()
    assert all(torch.equal(page["weights"][name], value) for name, value in expected.items())


def test_the_description_of_the_model_has_the_entries_of_the_page(page: dict[str, Any]) -> None:
    section = PAGE[PAGE.index("## The description of the model") :]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert set(rows) == set(page["settings"])
    assert page["settings"]["net"].startswith("MLP(event_shape=(2,), width=16, depth=1, ")
    assert page["settings"]["sde"] == "VPSDE(schedule=LinearVP(beta_min=0.1, beta_max=20.0), tau_min=1e-05)"


def test_the_state_has_the_entries_of_the_page(page: dict[str, Any]) -> None:
    section = PAGE[PAGE.index("## state.json") : PAGE.index("## The description")]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(page["state"])


def test_the_sampler_of_the_page_is_ddim(page: dict[str, Any]) -> None:
    model = page["loaded"]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        samples = page["ddim"](model.net, (4, 2), 20)
        torch.manual_seed(3)
        noise = torch.randn(4, 2)
    expected = sd.sample(model, 4, sd.DDIM(steps=20), init=noise).x
    torch.testing.assert_close(samples, expected, rtol=1e-5, atol=1e-5)


def test_a_training_run_has_the_files_of_the_page(tmp_path: Path) -> None:
    model = sd.ScoreModel(sd.MLP((2,), width=4, depth=1), sd.VPSDE(), event_shape=(2,))
    sd.train(model, torch.randn(32, 2), sd.Training(steps=2, batch_size=8), run_dir=tmp_path)
    written = {path.name for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".")}
    for name in written:
        assert f"/{name}`" in PAGE or f"`{name}`" in PAGE, name
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"step", "loss"} <= set(metrics[0])


def test_tied_tensors_are_stored_once_under_the_second_name(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    folder = sd.save(sd.ScoreModel(Tied(), sd.VPSDE(), event_shape=(2,)), tmp_path)
    tied = json.loads((folder / "state.json").read_text(encoding="utf-8"))["tied"]["model"]
    assert tied in ({"second.weight": "first.weight"}, {"first.weight": "second.weight"})
