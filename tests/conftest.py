"""Every test, and every example of a hypothesis test, starts from the same random numbers."""

import functools
import http.server
import os
import random
import threading

import hypothesis
import numpy as np
import pytest
import torch

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


def pytest_configure(config):
    TORCH_GENERATOR.offset = config.getoption("--torch-seed")


@pytest.fixture(autouse=True)
def _seeded():
    TORCH_GENERATOR.seed(0)
    random.seed(TORCH_GENERATOR.offset)
    np.random.seed(TORCH_GENERATOR.offset)  # noqa: NPY002


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
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()
