"""The README's Python blocks run one after the other as they stand there, and do what it says."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def text():
    if not README.is_file():
        pytest.skip("the README is not beside the tests")
    return README.read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def write_strokes(path, n, seed):
    """A table of ticks and lines of unequal length, as the README describes it."""
    rng, rows = np.random.default_rng(seed), ["id,time,x,y,gesture"]
    for i in range(n):
        steps = rng.integers(20, 30)
        for t in np.arange(steps):
            x = t / steps
            y = (abs(x - 0.4) if i % 2 else 0.5) + rng.normal(0, 0.01)
            rows.append(f"{i},{t},{x:.3f},{y:.3f},{('line', 'tick')[i % 2]}")
    Path(path).write_text("\n".join(rows))


@pytest.fixture(scope="module")
def names(text, tmp_path_factory):
    """What the blocks define."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        write_strokes("recordings.csv", 12, seed=0)
        write_strokes("new.csv", 6, seed=1)
        for block in blocks(text, "python"):
            exec(block, found)
        found["files"] = {path.name for path in Path.cwd().iterdir()}
    return found


def invert_slowly(module, target, n_iter=50):
    """The loop that the README's call replaces."""
    z, m, v = torch.full((4,), 0.25), 0.0, 0.0
    for _ in range(n_iter + 1):  # the last pass only measures the error
        z = (z.clamp(0, 1) / z.clamp(0, 1).sum()).requires_grad_()
        error = torch.nn.functional.mse_loss(module(z, len(target)), target)
        (g,) = torch.autograd.grad(error, z)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        z = z.detach() - 0.05 * m / (v.sqrt() + 1e-8)
    return error.item()


def test_the_drop_in_gives_the_same_numbers(names):
    errors = [[invert_slowly(m, target) for m in names["modules"]] for target in names["targets"]]
    np.testing.assert_allclose(errors, names["inversion"].errors, rtol=1e-3)


def test_the_other_search_finds_lower_errors(names):
    assert (names["better"].errors <= names["inversion"].errors * 1.001).all()


def test_the_estimator_classifies(names):
    assert names["decision"].labels.tolist() == ["line", "tick"] * 3
    assert {"why.png", "model.safetensors"} <= names["files"]


def test_commands_and_options_exist(text):
    """Every ``micfast`` command line of the README parses, as far as its files allow."""
    lines = [
        line.split("#")[0].strip()
        for block in blocks(text, "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    commands = [part.strip() for line in lines for part in line.split("&&")]
    commands = [command.split() for command in commands if command.startswith("micfast ")]
    assert commands
    for _, command, *options in commands:
        done = subprocess.run(
            [sys.executable, "-m", "micfast", command, "--help"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        for option in options:
            if option.startswith("-"):
                assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", done.stdout), option


def test_the_test_command_is_what_ci_runs(text):
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        pytest.skip(".ci/run is not beside the tests")
    assert re.search(r"pip install '\.\[test\]' && pytest\s", text)
    assert script.read_text(encoding="utf-8").rstrip().endswith("\npytest")
