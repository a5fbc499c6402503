"""The CUDA kernels as a Python module for the CPU: tests/cpp/emulated_device.h plays the device."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from micfast.kernels import calls, launch

ROOT = Path(__file__).resolve().parent.parent
# Of the threads between two barriers; a barrier that is missing shows in one of them.
ORDERS = ("forward", "backward", "ahead", "shuffle:1", "shuffle:2")


def compile_module(path: Path, root: Path = ROOT) -> None:
    """Compile the sources below ``root``; the file's stem is the module's name.

    Raises
    ------
    FileNotFoundError
        If there is no g++ or there are no sources.
    """
    compiler = shutil.which("g++")
    sources = [root / "csrc/cuda/kernels.cu", root / "csrc/bindings/cuda_module.cpp"]
    header = root / "tests/cpp/emulated_device.h"
    if compiler is None or not all(file.exists() for file in [*sources, header]):
        raise FileNotFoundError("needs g++ and the sources in csrc")
    includes = subprocess.run(
        [sys.executable, "-m", "pybind11", "--includes"], check=True, capture_output=True, text=True
    )
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"),
            *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fvisibility=hidden"),
            f'-DMICFAST_EMULATED_DEVICE="{header}"',
            f"-DMICFAST_CUDA_MODULE={path.name.partition('.')[0]}",
            '-DMICFAST_VERSION="emulated"',
            '-DMICFAST_CUDA_COMPILER="emulated"',
            *includes.stdout.split(),
            *("-x", "c++", *map(str, sources), "-o", str(path)),
        ],
        check=True,
    )


def load_module(path: Path) -> ModuleType:
    """The module, its kernels prepared."""
    spec = importlib.util.spec_from_file_location(path.name.partition(".")[0], path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.prepare(0)
    return module


@contextlib.contextmanager
def emulated(module: ModuleType, **settings: object) -> Iterator[None]:
    """Let the kernels of the CPU's tensors run on the emulated device inside.

    ``settings``: those of emulated_device.h, ``order="backward"`` for MICFAST_EMULATED_ORDER.
    """

    def run(name: str, tensor: Tensor, *arguments: object) -> None:
        kernel = f"{name}_{str(tensor.dtype).removeprefix('torch.')}"
        launch.launch_cuda(module, kernel, arguments, torch.device("cpu"), 0, report())

    report = launch.current_report
    before = {launch: launch.run, calls: calls.resolve_backend}
    environment = {f"MICFAST_EMULATED_{key.upper()}": str(v) for key, v in settings.items()}
    kept = {key: os.environ.get(key) for key in environment}
    os.environ.update(environment)
    launch.run = run
    # The CPU's own kernels may be missing in this installation.
    calls.resolve_backend = lambda backend, device="cpu": backend
    try:
        yield
    finally:
        launch.run, calls.resolve_backend = before[launch], before[calls]
        for key, value in kept.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def barriers_of_steps(root: Path = ROOT) -> list[str]:
    """The barriers after a step forward and after one back, as "file:line"."""
    found = []
    for file, line, below in (
        ("sequence.h", "      before = now;", 0),
        ("backward.h", "      h_before -= h_step;", 2),
    ):
        lines = (root / "csrc/cuda" / file).read_text().splitlines()
        number = lines.index(line) + below
        assert lines[number - 1].strip() == "place.sync();"
        found.append(f"{file}:{number}")
    return found


def barriers_of_weights(root: Path = ROOT) -> list[str]:
    """Those before and after a module's weights are set for threads with whole sequences."""
    lines = (root / "csrc/cuda/thread_sequence.h").read_text().splitlines()
    found = [number for number, line in enumerate(lines, 1) if line.strip() == "block_sync();"]
    return [f"thread_sequence.h:{number}" for number in found]
