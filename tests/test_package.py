"""The package as a whole: what an import costs and brings in, and what it offers."""

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

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


@pytest.mark.slow
def test_importing_micfast_imports_nothing_heavy():
    assert not imported_after("import micfast") & (HEAVY | {"sklearn", "scipy", "tqdm", "pooch"})


@pytest.mark.slow
def test_importing_everything_public_imports_nothing_heavy():
    assert (
        not imported_after("from micfast import *; import micfast.data, micfast.training.types")
        & HEAVY
    )


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


# -- rooms ---------------------------------------------------------------------------------------


def private_names(tree):
    """Underscore names and modules of micfast or bench that a file takes from another."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            source = node.module or ""
            names = [f"{source}.{alias.name}" for alias in node.names]
            modules |= {alias.asname or alias.name for alias in node.names if ours(source)}
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in filter(ours, names):
            parts = [part for part in name.split(".") if not part.startswith("__")]
            if any(part.startswith("_") for part in parts) and name not in COMPILED:
                yield f"line {node.lineno}: {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if private and node.value.id in modules and node.value.id.islower():
                yield f"line {node.lineno}: {node.value.id}.{node.attr}"


COMPILED = {"micfast._C", "micfast._cuda"}


def ours(name):
    return name.partition(".")[0] in ("micfast", "bench")


def test_no_private_name_is_used_across_files():
    package = Path(micfast.__file__).parent
    files = [*package.rglob("*.py"), *(Path(__file__).parents[1] / "bench").rglob("*.py")]
    found = {
        str(file): [*private_names(ast.parse(file.read_text(encoding="utf-8")))] for file in files
    }
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from micfast.io import _reason",
        "from micfast._io import reason",
        "import micfast._io",
        "from micfast import io\nio._reason(error)",
    ],
)
def test_the_search_finds_private_names(code):
    assert [*private_names(ast.parse(code))]
