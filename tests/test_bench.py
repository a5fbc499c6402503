"""The benchmark runs, proves equality before it times, and writes what its README describes."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from helpers import needs_kernel

from bench import cases, figures, machine, measure, peers, report, run, solvers, ways
from bench.__main__ import main
from bench.peers import ours, pytorch, xla
from bench.peers.base import Peer
from micfast import GeneratorBank

pytestmark = needs_kernel


@pytest.fixture(autouse=True)
def _one_thread():
    """The problems are too small for threads, which would wait for each other."""
    with machine.torch_threads(1):
        yield


TOY = replace(cases.CHARACTERS, id="toy", M=2, N=4, T=4, I=3)


def run_quick(tmp_path, suite, peer_ids, capsys):
    """The result file of a suite, after the checks that hold for all of them."""
    arguments = ["run", "--suite", suite, "--quick", "--threads", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--peers", peer_ids]) == 0
    assert "Toy sizes" in capsys.readouterr().out
    path = tmp_path / f"{suite}.json"
    result = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text().startswith(f"# {suite.capitalize()}\n")
    for key in ("machine", "versions", "isa", "compiler", "git", "date", "threads", "seconds"):
        assert key in result
    assert result["rows"]
    return result


def check_rows(result, unit, measured_peers):
    assert result["fma_peak"]
    seen = set()
    for row in result["rows"]:
        assert row["case"]["flop"] > 0
        assert row["case"]["unit"] == unit
        if row["status"] != "ok":
            assert row["status"] in ("missing", "not applicable"), row
            assert row["note"]
            continue
        seen.add(row["peer"])
        assert row["equality"]["passed"]
        assert row["equality"]["difference"] <= row["equality"]["tolerance"]
        assert len(row["samples_s"]) == 2
        assert all(s > 0 for s in row["samples_s"])
        assert 0 < row["measured"]["amount"] <= row["measured"]["of"]
    assert set(measured_peers) <= seen
    ids = [(row["case"]["id"], row["peer"], row["threads"]) for row in result["rows"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
def test_inversion(tmp_path, capsys):
    result = run_quick(tmp_path, "inversion", "micfast,nn_lstm,original", capsys)
    check_rows(result, "pair", ["micfast", "nn_lstm", "original"])
    isas = {row["peer"] for row in result["rows"] if row["peer"].startswith("micfast-")}
    assert isas == {f"micfast-{isa}" for isa in result["isas"] if isa != result["isa"]}
    assert (tmp_path / "inversion.png").stat().st_size > 0


@pytest.mark.slow
def test_training(tmp_path, capsys):
    result = run_quick(tmp_path, "training", "micfast,nn_lstm,original", capsys)
    check_rows(result, "model-episode", ["micfast", "original"])
    assert any(row["status"] == "not applicable" for row in result["rows"])
    assert (tmp_path / "training.png").stat().st_size > 0


@pytest.mark.slow
def test_drop_in(tmp_path, capsys):
    result = run_quick(tmp_path, "drop-in", "micfast", capsys)
    for row in result["rows"]:
        times = [times[kind]["cpu"] for times in row["times"].values() for kind in times]
        assert len(times) == 2
        assert min(times) > 0
    assert "Slower than the loop: " in (tmp_path / "drop-in.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["sinusoids", "fits"])
def test_trainings(tmp_path, capsys, suite):
    result = run_quick(tmp_path, suite, "micfast", capsys)
    ways = {row["way"] for row in result["rows"]}
    assert {"default" if suite == "fits" else "auto", "paper"} <= ways


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["latency", "scaling"])
def test_lines(tmp_path, capsys, suite):
    result = run_quick(tmp_path, suite, "micfast,original", capsys)
    check_rows(result, "pair", ["micfast", "original"])
    assert (tmp_path / f"{suite}.png").stat().st_size > 0


@pytest.mark.slow
def test_latency_of_other_algorithms(tmp_path, capsys):
    result = run_quick(tmp_path, "latency", "micfast,nn_lstm", capsys)
    alone = [row for row in result["rows"] if row["case"]["N"] in (1, 16)]
    for n in (1, 16):
        ids = {row["peer"] for row in alone if row["case"]["N"] == n and row["threads"] == 1}
        assert ids == {"micfast", "micfast-lm-8", "micfast-nearest-lm-2", "nn_lstm"}
    # Adam's GFLOP are not theirs.
    lines = (tmp_path / "latency.md").read_text().splitlines()
    assert any(line.startswith("| micfast, another algorithm:") for line in lines)
    for line in lines:
        if line.startswith("| micfast"):
            counted = line.split("|")[5].strip() != ""
            assert counted != line.startswith("| micfast, another algorithm:")


@pytest.fixture(scope="module")
def few_letters():
    return cases.make_problem(replace(cases.CHARACTERS, id="few", M=2, N=4))


@pytest.fixture(scope="module")
def adam(few_letters):
    """What is expected of Adam on them."""
    with machine.torch_threads(1):
        return measure.expect(few_letters, Peer())


@pytest.mark.slow
def test_equality_step_tells_algorithms_apart(few_letters, adam):
    others = [peer for peer in peers.make_peers(["micfast"]) if peer.kind == "solver"]
    assert len(others) == 2
    for peer in others:
        assert measure.compare(peer, few_letters, measure.expect(few_letters, peer))["passed"]
        assert not measure.compare(peer, few_letters, adam)["passed"]


@pytest.mark.slow
def test_equality_step_sees_other_settings(few_letters, adam, monkeypatch):
    equality = measure.compare(ours.Micfast(), few_letters, adam)
    assert equality["passed"]
    assert (equality["iterations"], equality["compared"]) == ([50, 3], 16)
    monkeypatch.setattr(ours, "BETA2", 0.98)
    assert not measure.compare(ours.Micfast(), few_letters, adam)["passed"]


@pytest.mark.slow
def test_memory(tmp_path, capsys):
    result = run_quick(tmp_path, "memory", "micfast", capsys)
    assert [row["status"] for row in result["rows"]] == ["ok", "ok"]
    assert all(row["peak_extra_mb"] >= 0 for row in result["rows"])
    assert "bit for bit" in result["rows"][1]["note"]


@pytest.mark.slow
def test_jax():
    pytest.importorskip("jax")
    fleet = replace(cases.CHARACTERS_FLEET, id="fleet", M=3, T=4, E=6)
    for case in (TOY, fleet):
        (row,) = measure.measure_case(case, [xla.Jax()], 1, full=True, quick=True)
        assert row["status"] == "ok", row
        assert row["compile_s"] > 0


@pytest.mark.slow
def test_compile_takes_too_long(monkeypatch):
    def stuck(self, problem):
        raise pytorch.TimeLimitError

    monkeypatch.setattr(pytorch.Compiled, "_try", stuck)
    (row,) = measure.measure_case(TOY, [pytorch.Compiled()], 1, full=True, quick=True)
    assert row["status"] == "failed"
    assert "stopped after" in row["note"]


@pytest.mark.slow
def test_missing_peer(monkeypatch):
    monkeypatch.setattr(xla.Jax, "available", lambda self: "not installed")
    (row,) = measure.measure_case(TOY, [xla.Jax()], 1, full=True, quick=True)
    assert (row["status"], row["note"]) == ("missing", "not installed")


def test_wrong_results_get_no_time(monkeypatch):
    right = ours.Micfast.invert
    monkeypatch.setattr(ours.Micfast, "invert", lambda self, p: 1.001 * right(self, p))
    (row,) = measure.measure_case(TOY, [ours.Micfast()], 1, full=True, quick=True)
    assert row["status"] == "failed"
    assert "samples_s" not in row


def test_extrapolation():
    row = {
        "samples_s": [1.0, 2.0, 3.0, 4.0, 5.0],
        "measured": {"amount": 10, "of": 100, "unit": "pair"},
        "case": {"amount": 100},
    }
    assert figures.seconds(row) == [20.0, 30.0, 40.0]
    assert figures.rate(row) == pytest.approx(100 / 30)


def test_flop_counts():
    assert pytest.approx(137.8e9, rel=1e-3) == cases.CHARACTERS.flop
    assert pytest.approx(121e9, rel=1e-2) == cases.MNIST.flop


def test_case_ids_are_unique():
    ids = [entry.case.id for suite in run.SUITES.values() for entry in suite if not entry.n_threads]
    assert len(set(ids)) == len(ids)


def test_unknown_peer(capsys):
    assert main(["run", "--suite", "inversion", "--peers", "no_such_peer"]) == 2
    assert "peers must be among" in capsys.readouterr().err


def test_report_refuses_other_files(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text("{}")
    assert main(["report", str(path)]) == 2
    assert "no result file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def solver_problem():
    bank = GeneratorBank.random(3, hidden_size=5, input_size=4, output_size=2, seeds=range(3))
    rng = np.random.default_rng(0)
    own = np.arange(7) % 3
    latents = rng.dirichlet(np.ones(4), 7).astype(np.float32)
    drawn = bank.generate(latents, 9).numpy()[own, np.arange(7)]
    targets = drawn + 0.02 * rng.standard_normal(drawn.shape, np.float32)
    sizes = {"M": 3, "N": 7, "H": 5, "K": 4, "O": 2, "T": 9, "E": 0}
    case = {"id": "toy", "data": "toy", **sizes, "noise_in": 0.0, "noise_out": 0.0}
    case |= {"unit": "pair", "amount": 21, "drawings_s": 0.0}
    return solvers.SolverProblem(case, bank, targets, own)


@pytest.mark.slow
def test_solvers(tmp_path, capsys):
    result = run_quick(tmp_path, "solvers", "micfast", capsys)
    (training,) = result["training"]
    assert training["data"] == "digits"
    assert training["train_s"] > 0
    cases_ = {row["case"]["id"] for row in result["rows"]}
    assert cases_ == {"solvers-digits-clean-quick", "solvers-digits-noise-quick"}
    for case in cases_:
        rows = {row["peer"]: row for row in result["rows"] if row["case"]["id"] == case}
        assert list(rows) == [way.id for way in solvers.WAYS]
        for row in rows.values():
            assert row["status"] == "ok", row
            assert row["threads"] == 1
            assert len(row["samples_s"]) == 2
            # Chance is 0.1: these modules have learned something.
            assert row["accuracy"] > 0.5
            if row["peer"] != solvers.ADAM:
                assert 0 <= row["lower_share"] <= row["lower_share"] + row["equal_share"] <= 1
                assert row["higher_share"] <= 1 - row["lower_share"] - row["equal_share"] + 1e-9
        # A step of LM never makes an error higher, and no start more does.
        for family in ("lm", "lm-types", "nearest-lm", "nearest3-lm"):
            own = [row["error_true"] for row in rows.values() if row["family"] == family]
            assert len(own) > 1
            assert own == sorted(own, reverse=True)
        for n in (4, 8):
            for more, fewer in (("lm-types", "lm"), ("nearest3-lm", "nearest-lm")):
                few, many = (rows[f"micfast-{f}-{n}"]["error_true"] for f in (fewer, more))
                assert many <= few
    text = (tmp_path / "solvers.md").read_text()
    assert "toy size: digits alone" in text
    assert text.count("- First to reach Adam-50's mean error") == 2
    assert (tmp_path / "solvers.png").stat().st_size > 0


def test_solvers_need_micfast(capsys):
    assert main(["run", "--suite", "solvers", "--quick", "--peers", "original"]) == 2
    assert "peers must include it" in capsys.readouterr().err


@pytest.mark.slow
def test_solvers_are_held_against_the_reference(solver_problem, monkeypatch):
    way = {way.id: way for way in solvers.WAYS}
    for each in solvers.WAYS:
        assert solvers.compare(solver_problem, each)["passed"]
    right = solvers.SolverProblem.invert

    def scaled(self, way):
        found = right(self, way)
        return replace(found, errors=np.float32(1.001) * found.errors)

    monkeypatch.setattr(solvers.SolverProblem, "invert", scaled)
    assert not solvers.compare(solver_problem, way[solvers.ADAM])["passed"]
    # Another search: its errors are true, but not where the reference ends.
    for id_, other in (
        ("micfast-lm-8", "micfast-lm-1"),
        ("micfast-nearest-lm-0", "micfast-lm-1"),
        ("micfast-nearest-adam-50", solvers.ADAM),
    ):
        monkeypatch.setattr(
            solvers.SolverProblem, "invert", lambda self, _, other=other: right(self, way[other])
        )
        equality = solvers.compare(solver_problem, way[id_])
        assert equality["difference"] <= equality["tolerance"]
        assert not equality["passed"]


@pytest.mark.slow
def test_solvers_without_adam(solver_problem, monkeypatch, tmp_path):
    """A way that fails gets no time; without Adam's row the tables are still written."""
    compare = solvers.compare

    def fail_adam(sample, way):
        return {**compare(sample, way), "passed": way.id != solvers.ADAM}

    monkeypatch.setattr(solvers, "compare", fail_adam)
    rows = solvers.measure_problem(solver_problem, quick=True)
    assert rows[0]["status"] == "failed"
    assert "samples_s" not in rows[0]
    assert all(row["status"] == "ok" and "lower_share" not in row for row in rows[1:])
    result = {
        **{"format": run.FORMAT, "format_version": 1, "suite": "solvers", "quick": True},
        **{"machine": {"cpu": "c", "cores": 1, "architecture": "a", "system": "s"}},
        **{"git": {"commit": "0" * 40, "dirty": False}, "date": "2026-01-01T00:00", "isa": "x"},
        **{"versions": {}, "compiler": "c", "threads": 1, "seconds": 1.0, "fma_peak": []},
        **{"rows": rows, "training": [], "n_candidates": 121},
    }
    result["machine"]["load_before"] = 0.0
    text = report.report([run.save(result, tmp_path)])
    assert "Adam-50 was not measured" in text
    assert "| toy | none |  | no | not measured |" in text


def test_diverged_modules_are_no_result(solver_problem):
    weights = solver_problem.bank.weights.copy()
    weights.b_out[1] = float("inf")
    broken = replace(solver_problem, bank=GeneratorBank(weights))
    row = {"peer": solvers.ADAM, "samples_s": [1.0]}
    contender = solvers.SolverContender(solvers.WAYS[0], broken, row)
    contender.run(1, settle=False)
    solvers.judge([contender], broken.own)
    assert row == {"peer": solvers.ADAM, "status": "failed", "note": "7 errors are not finite"}


def test_solvers_without_data(monkeypatch, tmp_path):
    monkeypatch.setenv("MICFAST_DATA", str(tmp_path))
    ((recipe, dataset, note),) = solvers.choose_recipes(False)
    assert (recipe.data, dataset.name) == ("digits", "digits")
    assert "characters and mnist" in note
    assert str(tmp_path) not in note


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("MICFAST_DATA"), reason="MICFAST_DATA is not set: no real data"
)
def test_solvers_with_data():
    found = [(recipe.data, data.name, note) for recipe, data, note in solvers.choose_recipes(False)]
    assert found == [("characters", "characters", ""), ("mnist", "mnist", "")]


def solver_row(id_, family, n_iter, seconds, error, lower=0.0, equal=0.0):
    return {
        **{"case": {"id": "c"}, "peer": id_, "family_label": family, "n_iter": n_iter},
        **{"label": f"{family}, {n_iter} steps", "status": "ok", "samples_s": [seconds]},
        **{"measured": {"amount": 1, "of": 1}, "error_true": error, "threads": 1},
        **({} if id_ == solvers.ADAM else {"lower_share": lower, "equal_share": equal}),
    }


def test_solver_findings():
    rows = [
        solver_row(solvers.ADAM, "adam", 50, 8.0, 0.10),
        solver_row("a1", "a", 1, 1.0, 0.11, lower=0.2),
        solver_row("a4", "a", 4, 3.0, 0.10, lower=0.95),
        solver_row("a8", "a", 8, 5.0, 0.08, lower=0.99),
        solver_row("b2", "b", 2, 2.0, 0.09, lower=0.9499, equal=0.0001),
        solver_row("d1", "d", 1, 9.0, 0.12),
    ]
    found = ways.solver_findings(rows)
    assert [row["peer"] for row in found["reaches"]] == ["b2", "a4", "a8"]
    assert [row["peer"] for row in found["lower"]] == ["a4", "a8"]
    assert [row["peer"] for row in found["not_above"]] == ["b2", "a4", "a8"]
    firsts = {family: row and row["peer"] for family, row in found["first_of_family"].items()}
    assert firsts == {"a": "a4", "b": "b2", "d": None}
    assert figures.in_percent(0.9499) == "94.9 %"
    assert figures.in_percent(0.95) == "95 %"
