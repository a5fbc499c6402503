"""The blocks of docs/ecosystem.md run as they stand, and its tables are those of the tests."""

import contextlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import test_adapters
import test_estimator
from helpers import needs_kernel

PAGE = Path(__file__).resolve().parent.parent / "docs" / "ecosystem.md"
# Sections that go on with what another one defines.
AFTER = {"JAX and other arrays": "torch"}


def read_sections():
    """Text by heading; the part before the first heading is under ''."""
    if not PAGE.is_file():
        return {}
    parts = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


SECTIONS = read_sections()
SLOW = {"torch", "JAX and other arrays", "scikit-learn"}  # torch's compiler, grid searches
WITH_CODE = [heading for heading, text in SECTIONS.items() if heading and blocks(text)]
pytestmark = pytest.mark.skipif(not SECTIONS, reason="docs/ecosystem.md is not beside the tests")


def missing_library(code):
    """A library that a block imports and that is not installed."""
    for library in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE):
        if importlib.util.find_spec(library) is None:
            return library
    return None


@pytest.fixture(scope="module")
def results():
    """What the sections define, run once each: the first blocks, and the package, are known."""
    import micfast

    start, done = {name: getattr(micfast, name) for name in micfast.__all__}, {}
    for block in blocks(SECTIONS[""]):
        exec(block, start)

    def names_of(heading):
        if heading not in done:
            names = dict(names_of(AFTER[heading]) if heading in AFTER else start)
            for block in blocks(SECTIONS[heading]):
                names["missing"] = missing_library(block)
                if names["missing"]:
                    break
                exec(block, names)
            done[heading] = names
        return done[heading]

    return names_of


@needs_kernel
@pytest.mark.parametrize(
    "heading", [pytest.param(h, marks=[pytest.mark.slow] * (h in SLOW)) for h in WITH_CODE]
)
def test_section_runs(heading, results):
    names = results(heading)
    check = CHECKS.get(heading, lambda names: None)
    if names["missing"]:
        with contextlib.suppress(KeyError):  # of what an earlier block defines
            check(names)
        pytest.skip(f"{names['missing']} is not installed")
    check(names)


def check_sklearn(names):
    assert names["search"].best_score_ > 0.9
    assert names["stacked"].score(names["X"], names["y"]) > 0.9
    assert len(names["features"]) == len(names["X"])


def check_aeon(names):
    assert names["clf"].score(names["collection"], names["y"]) > 0.9


def check_sktime(names):
    assert (names["pipeline"].predict(names["panel"]) == names["y"]).mean() > 0.9


def check_torch(names):
    import torch

    draw, latents = names["draw"], names["latents"]
    assert names["errors"].shape == (len(names["X"]), 2)
    torch.testing.assert_close(names["compiled"](latents), draw(latents))
    torch.testing.assert_close(names["each"][0], names["gradient"])
    assert names["gradient"].abs().max() > 0


def check_jax(names):
    np.testing.assert_allclose(names["found"].errors, names["errors"], rtol=1e-4)


def check_files(names):
    np.testing.assert_array_equal(
        names["again"].predict_proba(names["X"]), names["model"].predict_proba(names["X"])
    )


CHECKS = {
    "scikit-learn": check_sklearn,
    "aeon": check_aeon,
    "sktime": check_sktime,
    "torch": check_torch,
    "JAX and other arrays": check_jax,
    "Files": check_files,
}


def test_no_check_is_forgotten():
    assert set(CHECKS) | set(AFTER) | set(AFTER.values()) <= set(WITH_CODE)


@pytest.mark.parametrize(
    ("section", "excluded"),
    [
        ("scikit-learn", test_estimator.EXPECTED_FAILED_CHECKS),
        ("aeon", test_adapters.EXCLUDED_AEON),
        ("sktime", test_adapters.EXCLUDED_SKTIME),
    ],
)
def test_tables_are_those_of_the_tests(section, excluded):
    rows = re.search(r"\| check left out \|.*\n\|.*\n((?:\|.*\n)+)", SECTIONS[section])[1]
    cells = [
        [cell.strip(" `") for cell in row.strip("|\n").split("|")] for row in rows.splitlines()
    ]
    listed = {name: reason for name, reason in cells if name != "none"}
    assert listed == excluded
