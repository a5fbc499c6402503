"""The package as a whole: what an import costs and brings in, and what it offers."""

import subprocess
import sys
from importlib import metadata

import pytest

import micfast


def imported_after(code):
    """Top-level modules that the code brings into a fresh interpreter that holds torch."""
    modules = "{m.split('.')[0] for m in sys.modules}"
    program = f"import torch, sys\nbefore = {modules}\n{code}\nprint(*({modules} - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


HEAVY = {"tensorflow", "statsmodels", "matplotlib", "tslearn", "numba", "jax"}


def test_importing_micfast_imports_nothing_heavy():
    assert not imported_after("import micfast") & (HEAVY | {"sklearn", "scipy", "tqdm", "pooch"})


def test_importing_everything_public_imports_nothing_heavy():
    assert not imported_after("from micfast import *; import micfast.data, micfast.types") & HEAVY


@pytest.mark.parametrize("name", micfast.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(micfast, name).__doc__


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'inverted'"):
        _ = micfast.inverted


def test_version():
    try:
        installed = metadata.version("micfast")
    except metadata.PackageNotFoundError:
        pytest.skip("micfast is not installed, only on the path")
    assert installed == micfast.__version__
