"""Every test, and every example of a hypothesis test, starts from the same random numbers."""

import functools
import http.server
import os
import random
import threading
from pathlib import Path

import checkout
import emulation
import hypothesis
import numpy as np
import pytest
import torch
from helpers import ISAS

from micfast.kernels import backend

# Python started by a test sees the installed micfast, not the source folder it may stand in.
os.environ["PYTHONSAFEPATH"] = "1"


class TorchGenerator:
    """torch's global generators, as hypothesis wants them: it seeds with 0 before an example."""

    offset = 0

    def seed(self, seed):
        torch.manual_seed(seed + self.offset)

    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


# Python's and numpy's generators are in hypothesis's care anyway. It keeps a weak reference only.
TORCH_GENERATOR = TorchGenerator()
hypothesis.register_random(TORCH_GENERATOR)


def pytest_addoption(parser):
    parser.addoption(
        "--torch-seed", type=int, default=0, help="other random tensors, the same in every run"
    )


# Where the slow tests run, hypothesis tries more examples as well. The same in every run; what
# explores is tests/fuzz.py and tests/differential.py.
PROFILE = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [hypothesis.HealthCheck.function_scoped_fixture],
}
hypothesis.settings.register_profile("quick", max_examples=6, **PROFILE)
hypothesis.settings.register_profile("thorough", max_examples=40, **PROFILE)


def pytest_configure(config):
    TORCH_GENERATOR.offset = config.getoption("--torch-seed")
    is_quick = "not slow" in config.getoption("markexpr")
    hypothesis.settings.load_profile("quick" if is_quick else "thorough")


@pytest.fixture(autouse=True)
def _seeded():
    TORCH_GENERATOR.seed(0)
    random.seed(TORCH_GENERATOR.offset)
    np.random.seed(TORCH_GENERATOR.offset)  # noqa: NPY002


# The best one always, the others among the slow tests.
@pytest.fixture(
    params=[*ISAS[:1], *(pytest.param(name, marks=pytest.mark.slow) for name in ISAS[1:])]
)
def isa(request, monkeypatch):
    """Each of this machine's instruction sets in turn."""
    monkeypatch.setenv("MICFAST_ISA", request.param)
    assert backend.extension.active_isa() == request.param
    return request.param


@pytest.fixture(scope="session")
def emulated_module(tmp_path_factory):
    """The CUDA kernels for the CPU; ``MICFAST_EMULATED_MODULE`` names one that is compiled."""
    compiled = os.environ.get("MICFAST_EMULATED_MODULE")
    path = Path(compiled or tmp_path_factory.mktemp("emulated") / "_cuda.so")
    try:
        if not compiled:
            emulation.compile_module(path)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return emulation.load_module(path)


@pytest.fixture
def server(tmp_path):
    """A local web server: its folder and its address."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def pytest_report_header():
    return f"micfast: {checkout.package_under_test()}"
