"""The README's code runs as it stands there, and does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture(scope="module")
def blocks():
    if not README.is_file():
        pytest.skip("the README is not beside the tests")
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_drop_in_example(blocks):
    names = {}
    for block in blocks[:2]:
        exec(block, names)
    np.testing.assert_allclose(names["errors"], names["inversion"].errors, rtol=1e-3)


def test_better_search_example(blocks):
    names = {}
    for block in blocks[:3]:
        exec(block, names)
    assert (names["better"].errors <= names["inversion"].errors * 1.001).all()


def test_estimator_example(blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(blocks[3], names)
    assert names["model"].score(names["data"].X_test, names["data"].y_test) > 0.9
    assert (tmp_path / "digits.safetensors").is_file()
