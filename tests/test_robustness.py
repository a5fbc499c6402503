"""Disturbances and attacks: gradients are right, budgets are kept, the command goes on."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from helpers import needs_kernel
from test_better import SPEC as BETTER_SPEC  # puts bench on the path
from test_better import made_data

from bench.studies import robustness
from bench.studies.attacks import (
    Forward,
    Modules,
    Neighbour,
    attack,
    disturb,
    random_attack,
    rms,
)
from bench.studies.robustness import Plan
from micfast.experiments.paper.baselines import fit_torch
from micfast.experiments.paper.settings import DATA_SETS, ForwardBudget

# Hundreds of inversions: minutes without the kernel.
pytestmark = [needs_kernel, pytest.mark.slow]

SPEC = replace(
    BETTER_SPEC, n_episodes=2000, forward={"default": ForwardBudget(30, 1)}, batch_size=4
)
PLAN = Plan(
    n_disturbed=24,
    n_attacked=8,
    n_steps=4,
    noise=(0.2,),
    dropout=(0.2,),
    shift=(0.1,),
    l2=(0.1, 5.0),
    linf=(5.0,),
)


@pytest.fixture(scope="module")
def prepared():
    """Sequences, classes, victims; the modules' search led to its end, as the theory asks."""
    X, codes, victims = robustness._prepare(SPEC, 0, PLAN, 1)
    return X, codes, {victim.name: victim for victim in victims}


@pytest.fixture(scope="module")
def unit():
    return robustness.evaluate(SPEC, 0, PLAN, 1)


def numeric_gradient(victim, X, codes, direction, step):
    """Derivative of the margins along a direction."""
    ahead, _ = victim.margins(X + step * direction, codes)
    behind, _ = victim.margins(X - step * direction, codes)
    return (ahead - behind) / (2 * step)


def test_margins_agree_with_the_decision(prepared):
    X, codes, victims = prepared
    search = victims["MIC, plain search"]
    margins, _ = search.margins(X, codes)
    np.testing.assert_array_equal(margins > 0, search.model.predict(X) == codes)
    errors = search.model.reconstruction_errors(X)
    own = errors[np.arange(len(X)), codes]
    errors[np.arange(len(X)), codes] = np.inf
    np.testing.assert_allclose(margins, errors.min(axis=1) - own, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["MIC, plain search", "forward LSTM", "1-NN Euclidean"])
def test_gradients_are_the_derivatives_of_the_margins(name, prepared):
    X, codes, victims = prepared
    victim = victims[name]
    if isinstance(victim, Modules):
        # To the end of the search: there the envelope theorem holds.
        victim = Modules(name, copy.deepcopy(victim.model).set_params(solver__n_iter=200))
    X, codes = X[:12], codes[:12]
    margins, gradient = victim.margins(X, codes)
    rng = np.random.default_rng(0)
    for direction in (gradient / rms(gradient), rng.standard_normal(X.shape)):
        expected = (gradient * direction).sum(axis=(1, 2))
        got = numeric_gradient(victim, X, codes, direction, 1e-2)
        scale = np.abs((gradient**2).sum(axis=(1, 2))) ** 0.5 * np.sqrt(X[0].size)
        # A few stand where another class, type or local minimum takes over.
        off = np.abs(got - expected) / scale
        assert np.median(off) < 0.01
        assert (off < 0.05).mean() >= 0.75
    assert np.isfinite(margins).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_budgets_are_kept_and_large_ones_fool(norm, prepared):
    X, codes, victims = prepared
    for victim in victims.values():
        for budget in (0.05, 5.0):
            fooled, attacked, blind = attack(victim, X[:8], codes[:8], norm, budget, 5)
            change = attacked - X[:8]
            size = np.abs(change).max() if norm == "linf" else rms(change).max()
            assert size <= budget * (1 + 1e-9)
            assert blind == 0
            wrong = victim.margins(X[:8], codes[:8])[0] <= 0
            assert (fooled >= wrong).all()
            if budget == 5:
                assert fooled.mean() > 0.8
    with pytest.raises(ValueError, match="norm must be 'l2' or 'linf', got 'l1'"):
        attack(victim, X, codes, "l1", 0.1, 5)


def test_the_gradient_is_worth_more_than_chance(prepared):
    X, codes, victims = prepared
    rng = np.random.default_rng(0)
    for name in ("MIC, the paper's settings", "MIC, plain search", "1-NN Euclidean"):
        victim = victims[name]
        fooled, _, _ = attack(victim, X, codes, "l2", 0.4, 5)
        by_chance = random_attack(victim, X, codes, 0.4, 5, rng)
        assert fooled.mean() > by_chance.mean()


def test_a_flat_classifier_is_noticed():
    class Flat:
        name = "flat"

        def margins(self, X, codes):
            return np.ones(len(X)), np.zeros_like(X)

    X = np.zeros((3, 4, 1))
    fooled, attacked, blind = attack(Flat(), X, np.zeros(3, int), "l2", 1.0, 5)
    assert blind == 1
    assert not fooled.any()
    np.testing.assert_array_equal(attacked, X)


def test_disturbances():
    rng = np.random.default_rng(0)
    X = 1 + np.arange(400.0).reshape(2, 100, 2)
    noisy = disturb("noise", 0.3, X, rng)
    assert (noisy - X).std() == pytest.approx(0.3, rel=0.2)
    missing = disturb("dropout", 0.2, X, rng)
    for before, after in zip(X, missing, strict=True):
        gone = np.flatnonzero((after != before).all(axis=1))
        assert len(gone) == 20
        assert gone[-1] - gone[0] == 19
        assert (after[gone] == 0).all()
    many = np.repeat(X[:1], 50, axis=0)
    moved = disturb("shift", 0.1, many, rng)
    forwards = (moved[:, 50] == X[0, 40]).all(axis=1)
    backwards = (moved[:, 50] == X[0, 60]).all(axis=1)
    assert (forwards ^ backwards).all()
    assert forwards.any()
    assert backwards.any()
    assert (moved[forwards][:, :11] == X[0, 0]).all()
    with pytest.raises(ValueError, match="kind must be"):
        disturb("fire", 0.1, X, rng)


def test_a_unit_holds_every_victim_and_level(unit):
    rows = {(row["victim"], row["kind"], row["level"]): row["accuracy"] for row in unit["rows"]}
    assert len(rows) == len(unit["rows"])
    names = ["MIC, the paper's settings", "MIC, plain search", Forward.name, Neighbour.name]
    for name in names:
        for kind in ("noise", "dropout", "shift", "l2", "linf"):
            for level in getattr(PLAN, kind):
                assert 0 <= rows[name, kind, level] <= 1
        assert rows[name, "l2", 5.0] <= rows[name, "l2", 0.1]
        assert unit["masking"][name] == 0
        for source in (Forward.name, Neighbour.name):
            assert ((name, f"l2 from {source}", 0.1) in rows) == (name != source)
    assert rows["MIC, plain search", "none", 0] > 0.8
    assert set(unit["unlearned"]) == set(names[:2])


def test_command_resumes_and_draws(tmp_path, monkeypatch, capsys, unit):
    monkeypatch.setattr(robustness, "DATA_SETS", {"made": SPEC})
    monkeypatch.setattr(robustness, "Plan", lambda: PLAN)
    computed = []

    def evaluate(spec, seed, plan, threads):
        computed.append(seed)
        return unit | {"seed": seed}

    monkeypatch.setattr(robustness, "evaluate", evaluate)
    argv = ["--out", str(tmp_path), "--seeds"]
    assert robustness.main([*argv, "1"]) == 0
    # One more seed: the first is not computed again.
    changed = json.loads((tmp_path / "made-0000.json").read_text())
    changed["rows"][0]["accuracy"] = 0.5
    (tmp_path / "made-0000.json").write_text(json.dumps(changed))
    assert robustness.main([*argv, "2"]) == 0
    assert computed == [0, 1]
    frame = pd.read_csv(tmp_path / "robustness.csv")
    first = frame.iloc[0]
    assert first["accuracy"] == pytest.approx((0.5 + unit["rows"][0]["accuracy"]) / 2)
    assert first["low"] < first["accuracy"] < first["high"]
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "robustness.md").read_text()
    assert "### made (2 seeds)" in text
    assert "| own gradient, L2, RMS 5 |" in text
    assert "zero gradients met" in capsys.readouterr().out

    rows = pd.DataFrame(unit["rows"]).query("victim == @robustness.SEARCH")
    accuracy = rows.set_index(["kind", "level"])["accuracy"]
    share = accuracy["l2", 0.1] / accuracy["none, attacked", 0]
    (line,) = [line for line in text.splitlines() if line.startswith("| made, L2 0.1 |")]
    assert line.split(" | ")[2].startswith(f"{share:.2f} [")
    # The first row is not the search's: what it is less than the search grew by half the change.
    gap = accuracy["none", 0] - (0.5 + unit["rows"][0]["accuracy"]) / 2
    assert f"| made: undisturbed | {gap:+.2f} [" in text

    changed["plan"]["n_steps"] = 99
    (tmp_path / "made-0000.json").write_text(json.dumps(changed))
    with pytest.raises(SystemExit):
        robustness.main([*argv, "2"])
    assert "another plan" in capsys.readouterr().err


def test_the_plan_of_the_documentation_fits_both_data_sets():
    plan = Plan()
    assert set(DATA_SETS) == {"mnist", "characters"}
    assert json.loads(json.dumps(asdict(plan)))["n_attacked"] <= plan.n_disturbed
    for name, n_steps in (("mnist", 28), ("characters", 205)):
        for kind in ("dropout", "shift"):
            lengths = [round(level * n_steps) for level in getattr(plan, kind)]
            assert len(set(lengths)) == len(lengths), (name, kind)


def test_fitted_forward_model_is_that_of_the_baselines():
    data = made_data(0, 32)
    X, y = data.X_train[:8], data.y_train[:8]
    model = fit_torch(X, np.eye(4, dtype=np.float32)[y], 8, 3, 4, 0)
    margins, gradient = Forward(model).margins(X.astype(np.float64), y)
    assert margins.shape == (8,)
    assert gradient.shape == X.shape
    assert (gradient != 0).any()
