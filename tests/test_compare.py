"""The comparison with other classifiers: its tables say what was measured, and it resumes."""

import numpy as np
import pandas as pd
import pytest
from estimators import needs_kernel

from bench.studies import compare
from bench.studies.answers import Draw, _lstm, filled
from bench.studies.dollar import N_POINTS, cloud, cloud_distances


def rows(accuracies):
    """A frame with two sets and two seeds; accuracies by (method, examples)."""
    return pd.DataFrame(
        {
            "data": data,
            "examples": examples,
            "seed": seed,
            "method": method,
            "clean": accuracy + 0.1 * (data == "MNIST") + 0.02 * seed,
            "noise 0.2": 0.7,
            "noise 0.5": 0.6,
            "shift 0.05": 0.5,
            "missing 0.3": 0.4,
            "fit_seconds": 1.5,
            "milliseconds": 0.25,
            "kilobytes": 12.0,
        }
        for (method, examples), accuracy in accuracies.items()
        for data in ("digits", "MNIST")
        for seed in (0, 1)
    )


def test_tables_say_what_was_measured():
    text = compare.tables(rows({("micfast", "4"): 0.8, ("1-NN", "4"): 0.7, ("1-NN", "all"): 0.88}))
    tables = {part.split("\n")[0]: part for part in text.split("### ")[1:]}
    by_examples = tables["Accuracy by examples a class (digits, MNIST)"]
    assert "| micfast | 0.860 |  |" in by_examples
    assert "| 1-NN | 0.760 | 0.940 |" in by_examples
    gains = tables["What micfast gains, by examples a class"]
    # The same difference in every set and seed: an interval of no width.
    assert "| against 1-NN |  |  | +0.100 [+0.100, +0.100] |  |  |" in gains
    assert "| micfast | 1.5 | 0.25 | 12 |  |  |  |" in tables["CPU time of one thread, and size"]
    assert "| micfast | 0.860 | 0.700 | 0.600 | 0.500 | 0.400 |" in text


@pytest.mark.slow
def test_forward_lstm_learns():
    t = np.linspace(0, 1, 12)
    X = np.stack([np.sin(6 * t), np.cos(6 * t)]).repeat(4, axis=0)[..., None]
    y = np.repeat(["sine", "cosine"], 4)
    labels, proba = _lstm(Draw(X, y, X, y), seed=0).answer(X)
    assert (labels == y).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)


def test_short_sequences_are_stretched():
    X = np.arange(6.0).reshape(1, 3, 2)
    np.testing.assert_allclose(filled(X, shortest=5)[0, :, 0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(filled(X), X)


def matched(points, template, start):
    """$P's greedy matching, point by point."""
    free, total = [*range(N_POINTS)], 0.0
    for k in range(N_POINTS):
        i = (start + k) % N_POINTS
        nearest = min(free, key=lambda j: np.linalg.norm(points[i] - template[j]))
        free.remove(nearest)
        total += (1 - k / N_POINTS) * np.linalg.norm(points[i] - template[nearest])
    return total


def test_point_clouds_are_matched_greedily():
    strokes = np.random.default_rng(0).normal(size=(3, 40, 2)).cumsum(axis=1)
    one, *others = (cloud(stroke) for stroke in strokes)
    expected = [
        min(matched(*pair, start) for pair in ((one, t), (t, one)) for start in range(0, 32, 5))
        for t in others
    ]
    np.testing.assert_allclose(cloud_distances(one, np.stack(others)), expected)
    # Place, size and the stroke's direction do not matter.
    same = cloud(strokes[0, ::-1] * 3 + 5)
    np.testing.assert_allclose(cloud_distances(one, same[None]), 0, atol=1e-9)


@pytest.mark.slow
@needs_kernel
def test_study_runs_and_resumes(tmp_path, capsys, monkeypatch):
    options = ["--out", str(tmp_path), "--seeds", "1", "--data", "digits", "--examples", "1"]
    options += ["--method", "micfast", "--method", "1-NN", "--method", "$P"]
    assert compare.main(options) == 0
    first = capsys.readouterr().out
    assert "Skipped: $P: takes pen strokes only" in first
    frame = pd.read_csv(tmp_path / "comparison.csv")
    assert frame["method"].tolist() == ["micfast", "1-NN"]
    assert (frame["clean"] > 0.4).all()
    assert (frame["kilobytes"] > 0).all()
    monkeypatch.setattr(compare, "measure", lambda *_: pytest.fail("all was there"))
    assert compare.main(options) == 0
    assert capsys.readouterr().out == first
