"""The blocks of docs/ecosystem.md run as they stand, and its tables are those of the tests."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import test_adapters
import test_estimator
import torch
from helpers import needs_kernel

PAGE = Path(__file__).resolve().parent.parent / "docs" / "ecosystem.md"
SECTIONS = ["scikit-learn", "tslearn", "aeon", "sktime", "torch", "JAX and other arrays", "Files"]
NEEDED = ("aeon", "sktime", "jax", "skops")


@pytest.fixture(scope="module")
def sections():
    """Text by heading; the part before the first heading is under ''."""
    if not PAGE.is_file():
        pytest.skip("docs/ecosystem.md is not beside the tests")
    parts = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def defined(sections):
    """What the first block defines, and the bank that the torch section makes."""
    names = {}
    (first,) = blocks(sections[""])
    exec(first, names)
    return names


def run(code, names):
    missing = [
        library
        for library in NEEDED
        if re.search(rf"^(import|from) {library}\b", code, re.MULTILINE)
        and importlib.util.find_spec(library) is None
    ]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    exec(code, names)


def test_every_block_is_run(sections):
    with_code = [heading for heading, text in sections.items() if heading and blocks(text)]
    assert with_code == SECTIONS


@needs_kernel
def test_sklearn(sections, defined):
    names = dict(defined)
    run(*blocks(sections["scikit-learn"]), names)
    assert names["search"].best_score_ > 0.9
    assert names["stacked"].score(defined["X"], defined["y"]) > 0.9
    assert names["features"].shape == (24, 3 * 2 * (1 + 2))


@needs_kernel
def test_tslearn(sections, defined):
    from micfast import ModularInverseClassifier

    names = dict(defined, ModularInverseClassifier=ModularInverseClassifier)
    run(*blocks(sections["tslearn"]), names)
    assert names["scaled"].shape == (24, 30, 2)


@needs_kernel
def test_aeon(sections, defined):
    names = dict(defined)
    run(*blocks(sections["aeon"]), names)
    assert names["clf"].score(names["collection"], names["y"]) > 0.9


@needs_kernel
def test_sktime(sections, defined):
    names = dict(defined)
    run(*blocks(sections["sktime"]), names)
    assert (names["pipeline"].predict(names["panel"]) == names["y"]).mean() > 0.9


@pytest.fixture(scope="module")
def after_torch(sections, defined):
    from micfast import ModularInverseClassifier

    torch.compiler.reset()
    names = dict(defined, ModularInverseClassifier=ModularInverseClassifier)
    run(*blocks(sections["torch"]), names)
    return names


@needs_kernel
def test_torch(after_torch):
    names = after_torch
    draw, latents = names["draw"], names["latents"]
    assert names["errors"].shape == (24, 2)
    torch.testing.assert_close(names["compiled"](latents), draw(latents))
    torch.testing.assert_close(names["each"][0], names["gradient"])
    assert names["gradient"].abs().max() > 0


@needs_kernel
def test_jax(sections, after_torch):
    names = dict(after_torch)
    run(*blocks(sections["JAX and other arrays"]), names)
    np.testing.assert_allclose(names["found"].errors, names["errors"], rtol=1e-4)


@needs_kernel
def test_files(sections, defined):
    from micfast import ModularInverseClassifier

    names = dict(defined, ModularInverseClassifier=ModularInverseClassifier)
    first, second = blocks(sections["Files"])
    run(first, names)
    np.testing.assert_array_equal(
        names["again"].predict_proba(names["X"]), names["model"].predict_proba(names["X"])
    )
    run(second, names)
    assert len(names["types"]) == 4


@pytest.mark.parametrize(
    ("section", "excluded"),
    [
        ("scikit-learn", test_estimator.EXPECTED_FAILED_CHECKS),
        ("aeon", test_adapters.EXCLUDED_AEON),
        ("sktime", test_adapters.EXCLUDED_SKTIME),
    ],
)
def test_tables_are_those_of_the_tests(sections, section, excluded):
    rows = re.search(r"\| check left out \|.*\n\|.*\n((?:\|.*\n)+)", sections[section])[1]
    cells = [
        [cell.strip(" `") for cell in row.strip("|\n").split("|")] for row in rows.splitlines()
    ]
    listed = {name: reason for name, reason in cells if name != "none"}
    assert listed == excluded
