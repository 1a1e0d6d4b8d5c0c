"""Examples in docstrings, run as doctests."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import scoresde

NAMES = [module.name for module in pkgutil.walk_packages(scoresde.__path__, "scoresde.")]
MODULES = [importlib.import_module(name) for name in NAMES if not name.endswith("__main__")]
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [test for module in MODULES for test in FINDER.find(module, module.__name__, module) if test.examples]


def test_the_classes_that_a_user_meets_first_have_examples() -> None:
    names = {test.name.rpartition(".")[2] for test in EXAMPLES}
    first = {"VPSDE", "Cosine", "Loss", "Adams", "DDPM", "sample", "Gaussian", "ScoreModel", "MLP", "UNet", "Training"}
    assert first | {"log_prob", "load_data", "Description"} <= names


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_an_example_prints_what_it_shows(test: doctest.DocTest) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
