"""Methods of training: what they make of a fleet, which modules they retry, what they report."""

import numpy as np
import pytest
import torch
from estimators import needs_kernel
from test_initializations import sinusoids

from micfast import Execution, GeneratorBank, Training, train
from micfast.training.errors import held_share, hidden_size_for, variance
from micfast.training.fleet import train_until_learned
from micfast.training.initializations.matched import Matched
from micfast.training.methods import projected
from micfast.training.methods.auto import Auto
from micfast.training.methods.lm import ProjectedLM
from micfast.training.methods.projected import ProjectedAdam
from micfast.training.report import ModuleReport, TrainingReport

SHORT = ProjectedAdam(30)


def noise(n_modules, n_steps=200, seed=0):
    """Types that no small module can draw."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_modules, 3, n_steps, 1)).astype(np.float32)


def fit(types, training, hidden_size=6):
    return train_until_learned(
        types,
        training,
        hidden_size=hidden_size,
        seed_of=lambda m, attempt: 100 * attempt + m,
        device="cpu",
        execution=Execution(),
    )


def test_auto_gives_the_second_method_what_the_first_left():
    types = np.stack([sinusoids(60, [1.0, 3.0]), noise(1, 60)[0]])
    start = GeneratorBank(Matched().weights(types, 4, [0, 1]))
    first, then = ProjectedAdam(40), ProjectedLM(2)
    training = Training(method=Auto(first, then), noise_in=0, goal=0.05)
    trained = train(start, types, training, seeds=[0, 1])
    assert trained.steps[0] == {"projected": 40}
    assert trained.steps[1] == {"projected": 40, "lm": 2}
    assert [len(curve) for curve in trained.loss_curves] == [40, 40 + 3]
    alone = train(start, types, training.replace(method=first), seeds=[0, 1])
    assert trained.bank.select(indices=[0]) == alone.bank.select(indices=[0])
    assert trained.errors[1] < alone.errors[1]
    # With noise, hopeless modules are left as they are.
    noisy = train(start, types, training.replace(noise_in=0.1), seeds=[0, 1])
    assert noisy.steps[1] == {"projected": 40}


def test_lm_with_noise_ends_with_the_read_out_of_the_types():
    types = sinusoids(12, [1.0, 2.0])[None]
    start = GeneratorBank(Matched().weights(types, 3, [0]))
    training = Training(method=ProjectedLM(2, n_noisy=2), noise_in=0.1, goal=1e-9)
    trained = train(start, types, training, seeds=[0])
    again = train(trained.bank, types, Training(method=ProjectedAdam(0)), seeds=[0])
    torch.testing.assert_close(again.bank.weights.W_out, trained.bank.weights.W_out)
    assert 0 < trained.steps[0]["lm"] <= 2


def test_no_steps_solve_the_read_out():
    types = sinusoids(20, [1.0, 3.0])[None]
    start = GeneratorBank(Matched().weights(types, 4, [0]))
    trained = train(start, types, Training(method=ProjectedAdam(0)), seeds=[0])
    assert trained.steps == [{"projected": 0}]
    for name, tensor in trained.bank.weights.named():
        assert torch.equal(tensor, getattr(start.weights, name)) == (name not in ("W_out", "b_out"))
    assert trained.errors[0] < 0.5 * variance(types)[0]


def test_long_types_are_trained_at_a_lower_rate_whatever_the_others_are(monkeypatch):
    short = np.pad(sinusoids(40, [2.0]), ((0, 0), (0, 661), (0, 0)), constant_values=np.nan)
    types = np.stack([sinusoids(701, [3.0]), short, sinusoids(701, [5.0], seed=1)])
    start = GeneratorBank(Matched().weights(types, 3, [0, 1, 2]))
    training = Training(method=ProjectedAdam(3), noise_in=0)
    together = train(start, types, training, seeds=[0, 1, 2])

    def alone(m, own, training):
        return train(start.select(indices=[m]), own[None], training, seeds=[m]).bank

    for m, own in enumerate((types[0], short[:, :40], types[2])):
        assert alone(m, own, training) == together.bank.select(indices=[m])
    # 701 steps are more than twice 300: a quarter of the rate.
    monkeypatch.setattr(projected, "_LENGTH", 1000)
    quarter = training.replace(method=ProjectedAdam(3, learning_rate=0.0025))
    assert alone(0, types[0], quarter) == together.bank.select(indices=[0])
    assert alone(1, short, quarter) != together.bank.select(indices=[1])


def test_a_module_is_tried_again_at_twice_the_rate():
    types = sinusoids(60, [1.0, 3.0])[None]
    training = Training(method=Auto(ProjectedAdam(2), ProjectedLM(1)), noise_in=0, learned_tol=1e-9)
    assert training.method.again() == Auto(ProjectedAdam(2, learning_rate=0.02), ProjectedLM(1))
    _, (report,) = fit(types, training.replace(max_retries=1))
    assert report.attempts == 2
    best = []
    for seed, method in ((0, training.method), (100, training.method.again())):
        start = GeneratorBank(Matched().weights(types, 6, [seed]))
        best.append(train(start, types, training.replace(method=method), seeds=[seed]).errors[0])
    assert report.mse == min(best)


def test_rich_types_are_said_to_be_and_not_tried_again():
    types = np.stack([sinusoids(200, [1.0, 3.0]), noise(1)[0]])
    training = Training(method=SHORT, noise_in=0, max_retries=2)
    _, (smooth, rich) = fit(types, training)
    assert (smooth.learned, smooth.reason) == (True, "")
    assert (rich.learned, rich.attempts) == (False, 1)
    assert "hidden_size=6 holds about" in rich.reason
    # The paper's training is what it was.
    _, (rich,) = fit(types[1:], Training.paper(20, max_retries=2))
    assert rich.attempts == 3


def test_how_much_a_module_holds():
    smooth, rough = sinusoids(200, [1.0, 3.0]), noise(1)[0]
    assert held_share(smooth, 4) > 0.99 > 0.7 > held_share(rough, 4)
    assert held_share(rough, 4) < held_share(rough, 8) < held_share(rough, 30) <= 1
    needed = hidden_size_for(rough, 0.9)
    assert held_share(rough, needed - 1) < 0.9 <= held_share(rough, needed + 1)


@needs_kernel
@pytest.mark.slow
def test_long_sequences_are_learned():
    """What the paper's training can't: T = 427, five sinusoids."""
    types = np.stack([sinusoids(427, [2.0, 3.5, 7.0, 11.0, 16.5], seed=seed) for seed in range(6)])
    _, reports = fit(types, Training(noise_in=0), hidden_size=10)
    assert all(one.learned and one.attempts == 1 for one in reports)
    _, reports = fit(types, Training.paper(2000, max_retries=0), hidden_size=10)
    assert not any(one.learned for one in reports)


def test_the_report_is_a_list_that_prints():
    facts = {"label": "<a>", "module": 0, "n_samples": 9, "n_types_found": 4}
    good = ModuleReport(1, [7], 0.01, 0.02, True, "", {"projected": 500}, 0.25)
    bad = ModuleReport(2, [8, 9], np.nan, np.nan, False, "why", {"projected": 500, "lm": 12}, 0.5)
    report = TrainingReport([facts | vars(good), facts | {"module": 1} | vars(bad)])
    lines = repr(report).splitlines()
    assert lines[2].split() == ["<a>", "1", "2.00%", "projected", "500", "1", "0.25", "yes"]
    assert "projected, lm" in lines[3]
    assert "no: why" in lines[3]
    assert lines[-1] == "1 of 2 modules learned their types in 0.50 s"
    page = report._repr_html_()
    assert "&lt;a&gt;" in page
    assert "<a>" not in page
    assert report == [*report]
    assert repr(TrainingReport()).endswith("0 of 0 modules learned their types in 0.00 s")
