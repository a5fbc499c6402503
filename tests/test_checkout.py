"""A source checkout without kernels must not take the installed package's place unnoticed."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import micfast

PACKAGE = Path(micfast.__file__).parent
ROOT = Path(__file__).resolve().parent.parent
IMPORT = "import micfast; from micfast.kernels import backend; print(backend.extension is None)"


def is_editable():
    try:
        origin = metadata.distribution("micfast").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return False
    return '"editable": true' in (origin or "")


# Its finder comes before every folder.
pytestmark = pytest.mark.skipif(is_editable(), reason="an editable install is never hidden")


def copy_sources(folder):
    """The package without what was compiled."""
    shutil.copytree(
        PACKAGE, folder / "micfast", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    )
    return folder / "micfast"


@pytest.fixture
def checkout(tmp_path):
    """A folder as ``git clone`` makes it."""
    folder = tmp_path / "checkout"
    copy_sources(folder)
    (folder / "csrc").mkdir()
    return folder


@pytest.fixture
def installed(tmp_path):
    """A folder of installed packages that holds micfast and what stands for its kernels.

    A file that cannot be loaded: the package that is imported in these tests is another.
    """
    site = tmp_path / "site"
    (copy_sources(site) / f"_C{EXTENSION_SUFFIXES[0]}").touch()
    return site


def python(*arguments, folder, path=()):
    """Output and errors of Python started in a folder, with others on its path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_one_warning_names_both_folders(checkout, installed):
    done = python("-c", IMPORT, folder=checkout, path=[installed])
    assert done.stdout == "True\n", done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert f"imported from the source folder {checkout / 'micfast'}, which has no" in done.stderr
    assert f"the installed package is {installed / 'micfast'}" in done.stderr


def test_a_checkout_alone_says_how_to_install(checkout):
    code = (
        "from micfast import runtime; runtime._installed = lambda hidden_by: None; "
        "print(runtime.checkout_problem())"
    )
    done = python("-c", code, folder=checkout)
    assert done.stdout.endswith("; micfast is not installed: run `pip install .`\n"), done.stderr


@pytest.mark.slow
def test_a_build_that_asked_for_no_kernels_is_silent(checkout, tmp_path):
    site = copy_sources(tmp_path / "site").parent
    # In the checkout, too, whose sources are all that is installed.
    for folder in (tmp_path, checkout):
        done = python("-c", IMPORT, folder=folder, path=[site])
        assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.slow
def test_bench_refuses(checkout, installed):
    if not (ROOT / "bench").is_dir():
        pytest.skip("bench is not beside the tests")
    shutil.copytree(ROOT / "bench", checkout / "bench", ignore=shutil.ignore_patterns("results"))
    done = python("-m", "bench", "run", "--quick", folder=checkout, path=[installed])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"the installed package is {installed / 'micfast'}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pytest", "python -m pytest"])
def test_pytest_in_a_checkout_tests_the_installed_package(command, checkout, tmp_path):
    """With the path as ``pip install`` leaves it: no variable names the installed package."""
    (checkout / "tests").mkdir()
    for name in ("checkout.py", "conftest.py", "emulation.py", "helpers.py"):
        shutil.copy(ROOT / "tests" / name, checkout / "tests")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    (checkout / "tests" / "test_one.py").write_text(
        "import micfast\n\n\ndef test_is_installed():\n"
        f"    assert micfast.__file__ == {str(PACKAGE / '__init__.py')!r}\n"
    )
    # What ``site`` does with a folder of installed packages; PYTHONPATH would be heeded.
    program = (
        f"import sys; sys.path.insert(int(sys.path[0] == ''), {str(PACKAGE.parent)!r}); "
        "import pytest; sys.exit(pytest.main())"
    )
    options = ["-P"] if command == "pytest" else []
    done = python(*options, "-c", program, "-q", "-p", "no:cacheprovider", folder=checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
