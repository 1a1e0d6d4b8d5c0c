"""``scoresde info``: classes with their fields and defaults, equivalent weightings, and checkpoints."""

from __future__ import annotations

import dataclasses
import re

import pytest
from command_line import one_line, run

import scoresde
from scoresde.cli.parsing import families, known


def test_info_lists_classes_and_equivalent_weightings() -> None:
    printed = one_line(run("info"))
    for name in ("DDPM", "EulerMaruyama", "ODE", "MinSNR", "Cosine", "VPSDE", "UNet", "Hutchinson", "digits", "torch"):
        assert name in printed
    assert scoresde.objective.equivalence_table() in run("info", "--weightings").output


def test_info_prints_module_summary_and_fields_of_a_class() -> None:
    result = run("info", "DDPM")
    assert result.exit_code == 0, result.output
    printed = result.output.splitlines()
    assert printed[0] == "scoresde.sampling.ddpm.DDPM"
    assert printed[1] == (scoresde.DDPM.__doc__ or "").splitlines()[0]
    fields = {line.split()[0]: " ".join(line.split()[1:]) for line in printed[3:]}
    assert fields["steps"] == "int = 1000"
    assert fields["grid"] == "Grid = Chain()"
    assert list(fields) == [field.name for field in dataclasses.fields(scoresde.DDPM)]


def test_info_marks_fields_without_a_default_and_ignores_parentheses() -> None:
    for text in ("MLP", "MLP()"):
        assert re.search(r"event_shape\s+tuple\[int, \.\.\.\] = \(required\)", run("info", text).output)


def test_every_class_that_an_option_takes_has_an_info_page() -> None:
    for kind in families().values():
        for name in known(kind):
            result = run("info", name)
            assert result.exit_code == 0, result.output
            assert result.output.splitlines()[1].strip(), f"{name} has no docstring"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("info", "DDPN"), "unknown class 'DDPN'; did you mean DDPM?"),
        (("info", "runs/nowhere"), "A path must exist."),
        (("info", "DDPM", "--weightings"), "--weightings shows a table of its own, got DDPM too"),
    ],
)
def test_a_wrong_argument_of_info_is_answered_in_a_sentence(arguments: tuple[str, ...], answer: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert answer in one_line(result)
