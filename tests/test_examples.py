"""Every public name of the reference has an example, and examples do what they say."""

import doctest
import importlib
import inspect
import os
import pkgutil
import re
from pathlib import Path

import pytest

import micfast

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
FINDER = doctest.DocTestFinder(exclude_empty=True)


def public_names():
    """The names that docs/api.md lists; where it is not beside the tests, those of ``micfast``."""
    if not REFERENCE.is_file():
        return [name for name in micfast.__all__ if not name.startswith("_")]
    return re.findall(r"^   ([A-Za-z][\w.]*)$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)


def found(name):
    """The object of a dotted name within micfast."""
    *rooms, last = name.split(".")
    return getattr(importlib.import_module(".".join(["micfast", *rooms])), last)


NAMES = public_names()


def test_every_public_name_has_an_example():
    without = [name for name in NAMES if ">>> " not in (inspect.getdoc(found(name)) or "")]
    assert len(NAMES) > 20
    assert not without
    assert {*micfast.__all__} - {"__version__"} <= {*NAMES}


def run(test):
    """What a reader sees who types the example in."""
    output = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=output.append)
    assert not runner.failures, "".join(output)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_public_examples_run_as_they_stand(name, tmp_path, monkeypatch):
    """Without any other import: what stands there can be pasted into a new session."""
    monkeypatch.chdir(tmp_path)
    for test in FINDER.find(found(name), name, globs={"__name__": "__main__"}):
        if "MICFAST_DATA" in os.environ:  # what is skipped without the real data
            for example in test.examples:
                example.options.pop(doctest.SKIP, None)
        run(test)


def modules():
    for module in pkgutil.walk_packages(micfast.__path__, "micfast."):
        # Libraries that need not be there; what uses them is tested apart.
        if not re.search(r"adapters|distributed|lazily|\._|__main__", module.name):
            yield module.name


@pytest.mark.slow
def test_other_examples_run():
    pytest.importorskip("statsmodels")
    public = {id(found(name)) for name in NAMES}
    for name in modules():
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if getattr(value, "__module__", None) == name and id(value) not in public:
                for test in FINDER.find(value, f"{name}.{key}", module=module):
                    run(test)
