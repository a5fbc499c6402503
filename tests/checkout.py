"""Lets tests that are started in the checkout see the installed micfast.

``conftest.py`` imports it before anything of micfast. ``python -m pytest`` puts the folder it is
started in first on the path, where the sources without kernels would hide the installed package.
They move to the end, because ``bench`` lies there. A checkout named by ``PYTHONPATH`` stays first.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def is_root(folder):
    return Path(folder or ".").resolve() == ROOT


if not any(map(is_root, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))):
    sys.path[:] = [folder for folder in sys.path if not is_root(folder)]
    sys.path.append(str(ROOT))


def package_under_test():
    """The folder of micfast, without importing it."""
    spec = find_spec("micfast")
    return "not found" if spec is None else str(Path(spec.origin).parent)
