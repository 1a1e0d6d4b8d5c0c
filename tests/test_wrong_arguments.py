"""Wrong kinds of argument in every position of the public API: our own error answers, or a finite result."""

from __future__ import annotations

import inspect
import random
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from public_calls import CALLS
from wrong_values import WRONG, complaint

import scoresde as sd

EXAMPLES = 40  # cases of each call; a call with fewer is tried in full
FUNCTIONS = {
    *("announce", "call", "density", "function", "log_prob_fn", "metric"),
    *("network", "observe", "peer", "prior_log_prob"),
}
CALLABLE = {"class", "function", "model", "network", "weighting"}  # their own errors are not ours
LONG = {("train", "settings", "None")}  # valid: the default of 10,000 updates
NOT_FINITE = {"inf", "infinite tensor", "nan", "NaN tensor", "NaNs"}
PASSED_ON = (
    "Description",
    "SDE",
    "FlowMap call",
    "Mixed.perturb",
    "DiscreteProcess.perturb",
    "Loss call",
    "Model call",
    "MLP call",
    "UNet call",
    "DiT call",
)  # in loops, which read no values

QUIET = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Case = tuple[str, str]
"""An argument and the name of a wrong value."""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("cases")
    monkeypatch.chdir(folder)
    set_hypothesis_home_dir(folder)  # where it stores what it learned of the source; nothing is left in the repository


def cases(name: str) -> list[Case]:
    """The arguments of a call with each wrong value, in an order that depends on the call."""
    every = [
        (argument, value)
        for argument in CALLS[name][1]()
        for value in WRONG
        if not (argument in FUNCTIONS and value in CALLABLE) and (name, argument, value) not in LONG
    ]
    random.Random(zlib.crc32(name.encode())).shuffle(every)
    return every


def called(name: str, wrong: list[Case]) -> Any:
    function, arguments = CALLS[name]
    return function(**arguments() | {argument: WRONG[value]() for argument, value in wrong})


@pytest.mark.parametrize("name", [name for name in CALLS if cases(name)])
def test_a_wrong_argument_meets_our_own_error_or_gives_a_finite_result(name: str) -> None:
    wrong = st.lists(st.sampled_from(cases(name)), min_size=1, max_size=2, unique_by=lambda case: case[0])

    @QUIET
    @given(wrong)
    def check(wrong: list[Case]) -> None:
        finite = not (name.startswith(PASSED_ON) and any(value in NOT_FINITE for _, value in wrong))
        found = complaint(lambda: called(name, wrong), finite)
        assert found is None, f"{name} with {dict(wrong)}: {found}"

    check()


@pytest.mark.parametrize("name", CALLS)
def test_a_valid_call_gives_a_finite_result(name: str) -> None:
    assert complaint(lambda: called(name, [])) is None
    called(name, [])


def test_there_are_enough_cases() -> None:
    assert sum(min(EXAMPLES, len(cases(name))) for name in CALLS) >= 2000


def test_every_function_and_class_of_the_front_door_is_called() -> None:
    names = {name for name in sd.__all__ if callable(getattr(sd, name))}
    abstract = {name for name in names if inspect.isabstract(getattr(sd, name))}
    assert names - abstract - {part for name in CALLS for part in name.replace(".", " ").split()} == set()
