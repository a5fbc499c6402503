"""The check for machines with a GPU fails where it should: five faults are planted."""

from __future__ import annotations

import os
from pathlib import Path

import emulation
import pytest
import torch

from bench import gpu_check, gpu_stages
from micfast.kernels import backend

pytestmark = [
    pytest.mark.slow,  # compiled first
    pytest.mark.skipif(backend.extension is None, reason="no CPU kernels here"),
]


@pytest.fixture
def check(tmp_path, emulated_module):
    """A rehearsal whose package is built."""
    check = gpu_check.Check(True, 3600, tmp_path)
    check.step("build", lambda: gpu_check.build(check, Path(emulated_module.__file__)))
    assert not check.failed
    return check


def result_of(check, run):
    """The row of a step, which fails if it raises."""
    check.step("planted", run)
    return check.rows[-1]["result"]


class PlayedByTheCpu(gpu_stages.Device):
    """A device on which the CPU's own kernels run, that says it used global memory."""

    most_wanted = property(lambda self: self.wanted, lambda self, value: None)
    wanted = 2**30


def test_the_checkout_on_the_path(check, monkeypatch):
    assert "kernels by emulated" in gpu_check.stage(check, "origin", 300)
    path = f"{emulation.ROOT}{os.pathsep}{check.folder}"
    monkeypatch.setattr(gpu_check, "environment", lambda check: os.environ | {"PYTHONPATH": path})
    result = result_of(check, lambda: gpu_check.stage(check, "origin", 300))
    assert check.failed
    assert "where the package was built" in result


def test_a_skipped_test(check, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("no test is skipped here")
    result = result_of(check, lambda: gpu_check.tests(check, "opcheck_on_the_gpu"))
    assert check.failed
    assert "1 of 1 tests were skipped" in result


def test_one_wrong_bit(check, monkeypatch):
    device = PlayedByTheCpu(True)
    assert "equal bit for bit" in result_of(check, lambda: gpu_stages.verify(device, 10, 2))
    search = gpu_stages.search

    def wrong(solver, weights, targets, init):
        found = search(solver, weights, targets, init)
        if len(targets) > 1000:
            bits = found.latents.view(torch.int32)
            bits[1, 700, 0, 2] ^= 1
        return found

    monkeypatch.setattr(gpu_stages, "search", wrong)
    assert "latents of a few targets" in result_of(check, lambda: gpu_stages.verify(device, 10, 2))
    assert check.failed


def test_only_small_jobs(check, monkeypatch):
    device = PlayedByTheCpu(True)
    device.wanted = 1000  # a tape that fits on the chip
    result = result_of(check, lambda: gpu_stages.verify(device, 10, 2))
    assert "not how serious work runs" in result
    monkeypatch.setattr(gpu_stages, "LARGE_TARGETS", 100)
    result = result_of(check, lambda: gpu_stages.verify(PlayedByTheCpu(True), 10, 2))
    assert "200 pairs of 40 steps" in result
    assert check.failed


def test_a_missing_barrier(check, emulated_module, monkeypatch):
    device = gpu_stages.Device(True, emulated_module)
    monkeypatch.setenv("MICFAST_EMULATED_WITHOUT", emulation.barriers_of_steps()[0])
    result = result_of(check, lambda: gpu_stages.orders(device))
    assert check.failed
    assert "other bits" in result or "different barriers" in result


def test_a_step_that_is_cut_off_has_failed(check):
    check.total_seconds = 0
    assert "left out" in result_of(check, lambda: "done")
    assert check.failed
