"""The README's Python blocks run one after the other as they stand there, and do what it says."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def text():
    if not README.is_file():
        pytest.skip("the README is not beside the tests")
    return README.read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def names(text, tmp_path_factory):
    """What the blocks define."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        for block in blocks(text, "python"):
            exec(block, found)
        found["files"] = [path.name for path in Path.cwd().iterdir()]
    return found


def test_the_drop_in_gives_the_same_numbers(names):
    np.testing.assert_allclose(names["errors"], names["inversion"].errors, rtol=1e-3)


def test_the_other_search_finds_lower_errors(names):
    assert (names["better"].errors <= names["inversion"].errors * 1.001).all()


def test_the_estimator_classifies(names):
    assert names["model"].score(names["data"].X_test, names["data"].y_test) > 0.9
    assert any(name.endswith(".safetensors") for name in names["files"])


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
