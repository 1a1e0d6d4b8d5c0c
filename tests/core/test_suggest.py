"""Name suggestions of `scoresde._core.suggest`."""

from __future__ import annotations

import importlib

import pytest

from scoresde._core.suggest import closest, nearest, public_names, unknown_name

NAMES = ["MinSNR", "Simple", "ELBO"]


@pytest.mark.parametrize(
    ("name", "match"), [("minsnr", "MinSNR"), ("MinSRN", "MinSNR"), ("Simp", "Simple"), ("xyz", None)]
)
def test_the_closest_name_ignores_case_and_accepts_beginnings(name: str, match: str | None) -> None:
    assert closest(name, NAMES) == match


def test_swapped_letters_are_nearer_than_a_name_of_other_letters() -> None:
    assert closest("DDMP", ["DDIM", "DDPM", "DDRM"]) == "DDPM"


def test_the_error_about_an_unknown_name_has_the_nearest_and_all_valid_names() -> None:
    assert nearest("elbow", NAMES) == "did you mean ELBO? Valid: ELBO, MinSNR, Simple."
    assert nearest("xyz", NAMES) == "Valid: ELBO, MinSNR, Simple."
    assert nearest("xyz", []) == "Valid: none."
    assert unknown_name("weighting", "elbow", NAMES).startswith("unknown weighting 'elbow'; did you mean ELBO?")


def test_public_names_are_exported_by_the_stated_modules() -> None:
    modules = public_names()
    assert modules["Gaussian"] == "scoresde.analytic"
    for name in ("Gaussian", "VPSDE", "ScoreModel", "Rank"):
        assert hasattr(importlib.import_module(modules[name]), name)
