"""The benchmark runs, proves equality before it times, and writes what its README describes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import needs_kernel

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import cases, measure, peers, report, run
from bench.__main__ import main

pytestmark = needs_kernel

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


def test_inversion(tmp_path, capsys):
    result = run_quick(tmp_path, "inversion", "micfast,nn_lstm,original", capsys)
    check_rows(result, "pair", ["micfast", "nn_lstm", "original"])
    isas = {row["peer"] for row in result["rows"] if row["peer"].startswith("micfast-")}
    assert isas == {f"micfast-{isa}" for isa in result["isas"] if isa != result["isa"]}
    assert (tmp_path / "inversion.png").stat().st_size > 0


def test_training(tmp_path, capsys):
    result = run_quick(tmp_path, "training", "micfast,nn_lstm,original", capsys)
    check_rows(result, "model-episode", ["micfast", "original"])
    assert any(row["status"] == "not applicable" for row in result["rows"])
    assert (tmp_path / "training.png").stat().st_size > 0


@pytest.mark.parametrize("suite", ["latency", "scaling"])
def test_lines(tmp_path, capsys, suite):
    result = run_quick(tmp_path, suite, "micfast,original", capsys)
    check_rows(result, "pair", ["micfast", "original"])
    assert (tmp_path / f"{suite}.png").stat().st_size > 0


def test_memory(tmp_path, capsys):
    result = run_quick(tmp_path, "memory", "micfast", capsys)
    assert [row["status"] for row in result["rows"]] == ["ok", "ok"]
    assert all(row["peak_extra_mb"] >= 0 for row in result["rows"])
    assert "bit for bit" in result["rows"][1]["note"]


def test_jax():
    pytest.importorskip("jax")
    fleet = replace(cases.CHARACTERS_FLEET, id="fleet", M=3, T=4, E=6)
    for case in (TOY, fleet):
        (row,) = measure.measure_case(case, [peers.Jax()], 1, full=True, quick=True)
        assert row["status"] == "ok", row
        assert row["compile_s"] > 0


def test_compile_takes_too_long(monkeypatch):
    def stuck(self, problem):
        raise peers._TimeLimitError

    monkeypatch.setattr(peers.Compiled, "_try", stuck)
    (row,) = measure.measure_case(TOY, [peers.Compiled()], 1, full=True, quick=True)
    assert row["status"] == "failed"
    assert "stopped after" in row["note"]


def test_missing_peer(monkeypatch):
    monkeypatch.setattr(peers.Jax, "available", lambda self: "not installed")
    (row,) = measure.measure_case(TOY, [peers.Jax()], 1, full=True, quick=True)
    assert (row["status"], row["note"]) == ("missing", "not installed")


def test_wrong_results_get_no_time(monkeypatch):
    right = peers.Micfast.invert
    monkeypatch.setattr(peers.Micfast, "invert", lambda self, p: 1.001 * right(self, p))
    (row,) = measure.measure_case(TOY, [peers.Micfast()], 1, full=True, quick=True)
    assert row["status"] == "failed"
    assert "samples_s" not in row


def test_extrapolation():
    row = {
        "samples_s": [1.0, 2.0, 3.0, 4.0, 5.0],
        "measured": {"amount": 10, "of": 100, "unit": "pair"},
        "case": {"amount": 100},
    }
    assert report.seconds(row) == [20.0, 30.0, 40.0]
    assert report.rate(row) == pytest.approx(100 / 30)


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
