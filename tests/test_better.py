"""The comparison of ways to decide, at toy size on made data."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # behind the installed micfast

from bench.studies import better
from micfast.data import Dataset
from micfast.experiments.paper.settings import DATA_SETS


def made_data(seed, n_test):
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, 12)
    shapes = np.stack([np.sin(3 * t), t, t**2 - 1, np.cos(5 * t)])
    y = np.tile(np.arange(4), 20)
    X = shapes[y] * rng.uniform(0.8, 1.2, (80, 1)) + 0.05 * rng.standard_normal((80, 12))
    X = X[..., None].astype(np.float32)
    return Dataset("made", X[:48], y[:48], X[48:], y[48:], np.arange(4), None)


SPEC = replace(
    DATA_SETS["mnist"], name="made", load=made_data, n_test=32, hidden_size=4, n_episodes=400
)


@pytest.fixture(scope="module")
def unit():
    return better.compare(SPEC, "clustered", 0, 1)


@pytest.mark.slow
def test_every_way_is_measured(unit):
    rows = {row["row"]: row for row in unit["rows"]}
    assert len(rows) == len(unit["rows"]) == 2 + 6 * 3 + 1 + 1
    for name, row in rows.items():
        assert 0 <= row["test"] <= 1, name
        assert 0 <= row["validation"] <= 1, name
        assert ("mse" in row) == ("1-NN" not in name)
    assert rows["1-NN euclidean, same types"]["test"] > 0.9
    for noise in ("0", "0.1", "0.2"):
        adam = rows[f"Adam 50, uniform start (the paper's), noise {noise}"]
        nearest = rows[f"LM 8, nearest start, noise {noise}"]
        assert nearest["mse"] < adam["mse"]
        assert nearest["test"] > 0.8


def test_the_choice_is_made_without_the_test_part(unit):
    chosen = unit["rows"][-1]
    assert chosen["row"] == better.CHOSEN
    candidates = [row for row in unit["rows"] if row["row"].startswith("LM")]
    best = max(candidates, key=lambda row: row["validation"])
    assert chosen["choice"] == best["row"]
    assert chosen["test"] == best["test"]


def test_validation_sequences_are_no_types():
    data = made_data(0, 32)
    used = [np.array([0, 1, -1])] * 4  # counted within the class, as TypeSelection.index
    X, y = better._validation(data.X_train, data.y_train, np.arange(4), used, 0)
    assert np.bincount(y).tolist() == [10] * 4
    for c in range(4):
        for i in (c, c + 4):
            assert not (data.X_train[i] == X).all(axis=(1, 2)).any()


def test_open_set_score_of_a_perfect_and_a_blind_scorer():
    codes = np.repeat(np.arange(3), 10)
    perfect = np.where(codes[:, None] == np.arange(3), 0.1, 10.0)
    assert better._open_set(perfect, codes, perfect, codes) == 1.0
    blind = np.ones((30, 3))
    assert better._open_set(blind, codes, blind, codes) == 0.5


@pytest.mark.slow
def test_command_resumes_and_summarises(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(better, "DATA_SETS", {"made": SPEC})
    assert better.main(["--out", str(tmp_path), "--seeds", "1", "--threads", "1"]) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {
        "made-clustered-0000.json",
        "made-random-0000.json",
        "better.csv",
        "better.md",
    }
    assert "### made, random types (1 seeds)" in capsys.readouterr().out
    # A unit that is there is not computed again; one that is missing comes out the same.
    marked = json.loads(first["made-random-0000.json"])
    marked["rows"][0]["test"] = 0.125
    (tmp_path / "made-random-0000.json").write_text(json.dumps(marked))
    (tmp_path / "made-clustered-0000.json").unlink()
    assert better.main(["--out", str(tmp_path), "--seeds", "1", "--threads", "1"]) == 0
    assert (tmp_path / "made-clustered-0000.json").read_bytes() == first["made-clustered-0000.json"]
    frame = pd.read_csv(tmp_path / "better.csv")
    mine = frame[(frame["subset"] == "random") & (frame["row"].str.startswith("1-NN euclidean"))]
    assert mine["test"].tolist() == [0.125]


def test_summary_over_seeds(unit):
    other = json.loads(json.dumps(unit))
    other["seed"] = 1
    other["rows"][0]["test"] -= 0.1
    frame = better.summarise([unit, other])
    row = frame.iloc[0]
    assert row["seeds"] == 2
    assert row["test"] == pytest.approx(unit["rows"][0]["test"] - 0.05)
    assert row["test_low"] < row["test"] < row["test_high"]
    text = better.format_comparison(frame)
    assert f"| {unit['rows'][0]['row']} | {row['test']:.3f} [" in text
