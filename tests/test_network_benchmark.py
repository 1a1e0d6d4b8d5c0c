"""The benchmark on trained networks: spans, noise levels, released samplers, reference solutions, rows and tables."""

import math
from types import SimpleNamespace
from typing import Any

import networks
import pytest
import torch
from race import network_plot, network_rounds
from race.from_azula import OwnSchedule
from race.network_problem import NetworkProblem, end_state
from race.networks import CHOSEN_ON, JUDGED_ON, Trained
from race.noise_levels import SHIPPED, noise_levels
from race.ours import network_samplers
from race.problems import Oracle
from race.selection import CLIPPED_LOG_SNR, selected_peers
from race.span import Span

from scoresde.analytic import Gaussian
from scoresde.process.schedule import Cosine, GeometricSigma, LinearBetas, LinearVP
from scoresde.process.sde import VE, VPSDE
from scoresde.sampling import Adams, Chain, UniformLogSNR

MEAN, VARIANCE = 0.7, 0.25
PROCESSES = (
    VPSDE(LinearVP(), tau_min=1e-4),
    VPSDE(Cosine(), tau_min=1e-6),
    VPSDE(LinearBetas(), tau_min=LinearBetas().knots(1000)[1]),
    VE(GeometricSigma(0.002, 80.0), tau_min=2e-6),
)


def gaussian(sde):
    return Gaussian(torch.tensor([MEAN]), torch.tensor([VARIANCE]), sde=sde).double()


def exact_end(sde, start):
    """The ODE of a Gaussian maps standardized states to themselves."""
    first, last = math.exp(-sde.tau_max), math.exp(-sde.tau_min)
    ratio = (last**2 * VARIANCE + 1 - last**2) / (first**2 * VARIANCE + 1 - first**2)
    return last * MEAN + math.sqrt(ratio) * (start - first * MEAN)


def states(sde):
    return sde.prior_std * torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
@pytest.mark.parametrize("spacing", SHIPPED)
def test_noise_levels_fall_between_the_ends_of_the_clock(sde, spacing):
    levels = noise_levels(Span.of(sde), spacing, 12)
    assert len(levels) == 13
    assert all(a > b for a, b in zip(levels, levels[1:]))
    assert levels[0] == pytest.approx(math.sqrt(math.expm1(2 * sde.tau_max)), rel=1e-9)
    assert levels[-1] == pytest.approx(math.sqrt(math.expm1(2 * sde.tau_min)), rel=1e-9)


def test_linspace_visits_the_knots_of_a_chain_without_rounding():
    clock = LinearBetas(steps=11)
    levels = noise_levels(Span.of(VPSDE(clock, tau_min=clock.knots(11)[1])), "linspace", 10)
    expected = [math.sqrt(math.expm1(2 * tau)) for tau in clock.knots(11)[:0:-1]]
    assert levels == pytest.approx(expected, rel=1e-9)


def test_karras_levels_of_a_variance_exploding_clock_are_those_of_edm():
    levels = noise_levels(Span.of(PROCESSES[3]), "karras", 18)
    first, last = 80.0 ** (1 / 7), math.sqrt(math.expm1(4e-6)) ** (1 / 7)
    assert levels == pytest.approx([(first + i / 18 * (last - first)) ** 7 for i in range(19)], rel=1e-6)


def test_a_clipped_span_starts_at_the_given_log_snr_and_never_earlier():
    cosine, linear = Span.of(PROCESSES[1]), Span.of(PROCESSES[0])
    assert cosine.clipped(CLIPPED_LOG_SNR).first == pytest.approx(math.exp(5.1))
    assert cosine.clipped(CLIPPED_LOG_SNR).last == cosine.last
    assert linear.clipped(CLIPPED_LOG_SNR) == linear
    u = cosine.clipped(CLIPPED_LOG_SNR).u_start
    assert math.expm1(2 * cosine.clock.tau(u)) == pytest.approx(math.exp(10.2), rel=1e-6)


def test_the_networks_own_clock_is_a_schedule_for_azula():
    clock = LinearVP()
    alpha, sigma = OwnSchedule(clock)(torch.tensor(0.5, dtype=torch.float64))
    assert float(alpha) == pytest.approx(math.exp(-clock.tau(0.5)))
    assert float(alpha**2 + sigma**2) == pytest.approx(1)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
def test_released_samplers_reach_the_exact_end_on_every_clock(sde):
    pytest.importorskip("diffusers")
    pytest.importorskip("azula")
    span, start = Span.of(sde), states(sde)
    accurate = ("dpmsolver++ 2M midpoint exponential", "UniPC-2 bh2 x0 karras", "vAB3 own", "vAB3 rectified", "zAB3 vp")
    peers = [peer for peer in selected_peers(span) if peer.name.endswith(accurate)]
    assert len(peers) == len(accurate)
    for peer in peers:
        oracle = Oracle(gaussian(sde), span)
        torch.testing.assert_close(peer.run(oracle, start, 80, None), exact_end(sde, start), rtol=0, atol=0.02)
        assert oracle.calls <= 80


@pytest.mark.filterwarnings("default")
def test_clipped_samplers_race_only_where_the_clock_ends_later_and_count_their_calls():
    pytest.importorskip("diffusers")
    pytest.importorskip("azula")
    late = [peer for peer in selected_peers(Span.of(PROCESSES[1])) if peer.name.endswith(", clipped")]
    assert late
    assert not any(peer.name.endswith(", clipped") for peer in selected_peers(Span.of(PROCESSES[0])))
    peer = next(peer for peer in late if "dpmsolver++ 2M midpoint exponential" in peer.name)
    oracle = Oracle(gaussian(PROCESSES[1]), Span.of(PROCESSES[1]))
    end = peer.run(oracle, states(PROCESSES[1]), 40, None)
    assert oracle.calls == 40
    torch.testing.assert_close(end, exact_end(PROCESSES[1], states(PROCESSES[1])), rtol=0, atol=0.02)


@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
def test_our_samplers_start_and_end_in_x_whatever_the_view(sde):
    end, calls = end_state(gaussian(sde), Adams(40, UniformLogSNR(), 3, 3, "v"), states(sde))
    torch.testing.assert_close(end, exact_end(sde, states(sde)), rtol=0, atol=2e-3)
    assert calls == 40


@pytest.mark.parametrize("calls", [5, 20])
@pytest.mark.parametrize("sde", PROCESSES, ids=repr)
def test_all_our_samplers_reach_the_end_of_every_clock_within_the_calls(sde, calls):
    model, start = gaussian(sde), states(sde)
    for sampler in network_samplers(calls, model, "ours").values():
        end, made = end_state(model, sampler, start)
        assert made <= calls
        assert float((end - exact_end(sde, start)).abs().max()) < 8 / calls
    assert network_samplers(20, model, "calibrated") == {}


@pytest.mark.filterwarnings("default")
def test_all_released_samplers_stay_within_the_calls():
    pytest.importorskip("diffusers")
    pytest.importorskip("azula")
    span = Span.of(PROCESSES[1])
    for peer in selected_peers(span):
        for calls in (c for c in (5, 14) if c >= peer.min_calls):
            oracle = Oracle(gaussian(PROCESSES[1]), span)
            assert peer.run(oracle, states(PROCESSES[1]), calls, None).shape == (7, 1)
            assert calls - 3 < oracle.calls <= calls, peer.name


def test_a_sampler_that_does_not_end_at_tau_min_is_refused():
    with pytest.raises(AssertionError, match="the end must be 0.0001"):
        end_state(gaussian(PROCESSES[0]), Adams(5, Chain()), states(PROCESSES[0]))


def test_the_reference_is_the_networks_own_end_and_is_solved_once(tmp_path, monkeypatch):
    trained = Trained("gaussian", gaussian(PROCESSES[3]), torch.zeros(4, 1))
    monkeypatch.setitem(network_rounds.PRELIMINARY_SAMPLES, "gaussian", 2)
    problem = NetworkProblem(trained, tmp_path)
    assert problem.start.shape == (64, 1)
    torch.testing.assert_close(problem.truth, exact_end(PROCESSES[3], problem.start), rtol=0, atol=1e-5)
    assert problem.reference_error < 1e-5
    (stored,) = tmp_path.iterdir()
    monkeypatch.setattr("race.network_problem.end_state", None)  # a second solution would fail
    torch.testing.assert_close(NetworkProblem(trained, tmp_path).truth, problem.truth)
    assert stored.name.startswith("gaussian-")


def row(calls, sampler, group, error, distance=0.5):
    facts = {"calls": calls, "sampler": sampler, "group": group, "distance": (distance, 0.1)}
    return {**facts, "error": error, "median": error / 2 if group == "ours" else error}


def result(name="digits-v", distances=(0.9, 0.52, 0.49)):
    recommended = [row(c, "recommended: Adams", "ours", 0.2 / c, d) for c, d in zip((5, 10, 20), distances)]
    released = [row(c, f"peer {k}", "released", k / c) for c in (5, 10, 20) for k in (0.4, 0.8)]
    facts = {"network": name, "fine": (0.5, 0.05), "floor": (0.001, 0.0004)}
    return {**facts, "rows": [*recommended, *released, row(5, "Adams 2/2", "ours", 1e-9)]}


def test_the_best_released_sampler_and_the_default_are_chosen_at_each_number_of_calls():
    assert [r["sampler"] for r in network_plot.best_rows(result(), "released").values()] == ["peer 0.4"] * 3
    assert [r["error"] for r in network_plot.best_rows(result(), "ours").values()] == [0.04, 0.02, 0.01]


@pytest.mark.parametrize(
    ("distances", "enough"), [((0.9, 0.52, 0.49), 10), ((0.5, 0.9, 0.49), 20), ((0.5, 0.5, 0.9), None)]
)
def test_enough_calls_are_those_from_which_on_the_distance_is_that_of_the_fine_solution(distances, enough):
    assert network_plot.enough_calls(result(distances=distances)) == enough


def test_the_table_shows_ours_over_the_best_released_and_names_both_sections():
    chosen, judged = CHOSEN_ON[0], JUDGED_ON[0]
    text = network_plot.tables({chosen: result(chosen), judged: result(judged)})
    first, second = text.split("\n\n")
    assert first.startswith("| judged on | 5 calls | 10 calls | 20 calls |")
    assert f"| {judged} | 0.50 / 0.25 | 0.50 / 0.25 | 0.50 / 0.25 | 0.500 ± 0.050 | 0.0010 ± 0.0004 | 10 |" in first
    assert second.startswith("| chosen on |")


def test_only_the_rows_of_the_groups_and_calls_that_ran_again_are_replaced():
    new = {"network": "digits-v", "rows": [row(5, "new", "ours", 0.1)]}
    merged = networks.merged(result(), new, ["ours"], (5,))
    assert [r["sampler"] for r in merged["rows"] if r["group"] == "ours" and r["calls"] == 5] == ["new"]
    assert len([r for r in merged["rows"] if r["group"] == "released"]) == 6
    assert len([r for r in merged["rows"] if r["group"] == "ours"]) == 3
    assert networks.merged(None, new, ["ours"], (5,)) == new


def test_a_row_has_the_error_over_all_elements_and_the_median_over_samples():
    truth = torch.zeros(4, 2, dtype=torch.float64)
    problem = SimpleNamespace(name="digits-v", truth=truth)
    race: Any = SimpleNamespace(problem=problem, distance=lambda x: (float(x.mean()), 0.1))
    end = truth + torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)[:, None]
    made = network_rounds.Race.row(race, 10, "name", "ours", end, 9)
    assert made["error"] == pytest.approx(math.sqrt(50 / 4))
    assert made["median"] == pytest.approx(2.0)  # torch's median of four is the second
    assert made["distance"] == (3.0, 0.1)
    broken = network_rounds.Race.row(race, 10, "name", "ours", end * math.inf, 9)
    assert broken["distance"] == (math.inf, math.inf)


def test_a_ratio_is_our_error_over_the_smallest_of_the_released_ones():
    results = {"digits-v": result(), "moons-eps": {**result("moons-eps"), "rows": []}}
    assert networks.ratios(results, "recommended: Adams", 10) == {"digits-v": pytest.approx(0.5)}
    assert networks.ratios(results, "peer 0.8", 10) == {}


def test_the_summary_shows_the_mean_and_the_worst_ratio_of_each_section(capsys):
    better = result("digits-eps")
    better["rows"] = [{**r, "error": 0.25 * r["error"]} if r["group"] == "ours" else r for r in better["rows"]]
    networks.print_summary({"digits-v": result(), "digits-eps": better, "fashion-v": result("fashion-v")})
    chosen, judged = (line for line in capsys.readouterr().out.splitlines() if "recommended" in line)
    assert chosen.split()[2:] == ["0.25", "/", "0.50"] * 3
    assert judged.split()[2:] == ["0.50", "/", "0.50"] * 3
