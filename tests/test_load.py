"""The load suite and the soak, at toy size, and that they see what they look for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import needs_kernel
from test_bench import run_quick

import micfast
from bench import load, soak
from bench.__main__ import main

pytestmark = needs_kernel


@pytest.mark.slow
def test_load(tmp_path, capsys):
    result = run_quick(tmp_path, "load", "micfast", capsys)
    assert [row["status"] for row in result["rows"]] == ["ok"] * 2
    for row in result["rows"]:
        assert len(row["targets_per_s"]) == len(row["memory_mb"]) == 10
        assert all(pace > 0 for pace in row["targets_per_s"])
        assert row["pace"] >= 0
        assert row["growth_mb"] >= 0
        assert "bit for bit" in row["note"]
    assert (tmp_path / "load.md").read_text().count("targets/s") == 1


def test_load_needs_micfast(capsys):
    assert main(["run", "--suite", "load", "--quick", "--peers", "nn_lstm"]) == 2
    assert "must include it" in capsys.readouterr().err


def test_load_sees_a_slow_tenth_and_growing_memory():
    parts = np.arange(101) / 100
    times = parts * 100

    def evaluate(times, memory, held=0):
        return load.evaluate(1000, list(zip(times, parts, memory, strict=True)), held)

    flat = evaluate(times, np.full(101, 5e6))
    assert flat["targets_per_s"] == pytest.approx([10] * 10)
    assert (flat["pace"], flat["growth_mb"]) == (pytest.approx(0), 0)
    assert flat["flat"] == {"pace": True, "memory": True}
    slow = np.where(times > 90, 90 + 1.2 * (times - 90), times)
    leak = 5e6 + 30e6 * parts
    seen = evaluate(slow, leak)
    assert seen["pace"] == pytest.approx(1 - 1 / 1.2)
    assert seen["growth_mb"] == pytest.approx(24)
    assert seen["flat"] == {"pace": False, "memory": False}
    # Memory that holds the results is not counted.
    assert evaluate(times, leak, held=int(30e6))["growth_mb"] == pytest.approx(0)


@pytest.mark.slow
def test_soak(tmp_path, capsys):
    out = tmp_path / "soak.json"
    assert soak.main(["--minutes", "0", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("passed: 2 rounds")
    result = json.loads(out.read_text())
    assert result["calls"] == 2 * len(result["steps"])
    assert {"fit", "lm, nearest", "save", "load", "torch"} <= set(result["steps"])
    assert result["samples"]


@pytest.mark.slow
def test_soak_sees_another_result(monkeypatch):
    invert, calls = micfast.invert, []

    def drifts(*args, **settings):
        found = invert(*args, **settings)
        calls.append(found)
        found.errors[0, 0] += len(calls) * 1e-6
        return found

    monkeypatch.setattr(micfast, "invert", drifts)
    result = soak.soak(0)
    assert not result["passed"]
    assert (2, "lm, nearest") in result["unequal"]


def test_soak_sees_a_leak():
    samples = [{"memory_mb": 100.0 + i} for i in range(50)]
    assert soak.growth(samples, "memory_mb") == 45
    assert len(soak.thinned(samples, 10)) == 10
