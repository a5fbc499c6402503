"""Fast modular inverse classification: few-shot sequences classified by inverting small LSTMs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from micfast import _fork  # noqa: F401 - acts by being imported

__version__ = "0.1.0"

if TYPE_CHECKING:
    from micfast._config import config, show_config
    from micfast.bank import BankFileError, Generator, GeneratorBank
    from micfast.displays import CrossErrorDisplay, LatentPathDisplay, ReconstructionDisplay
    from micfast.estimator import ModularInverseClassifier
    from micfast.inversion import Inversion, invert
    from micfast.ops import generate, train

# What lives where. Modules load on first use, so that a name costs only what stands behind it.
_EXPORTS = {
    "BankFileError": "bank",
    "CrossErrorDisplay": "displays",
    "Generator": "bank",
    "GeneratorBank": "bank",
    "Inversion": "inversion",
    "LatentPathDisplay": "displays",
    "ModularInverseClassifier": "estimator",
    "ReconstructionDisplay": "displays",
    "config": "_config",
    "generate": "ops",
    "invert": "inversion",
    "show_config": "_config",
    "train": "ops",
}

__all__ = [
    "BankFileError",
    "CrossErrorDisplay",
    "Generator",
    "GeneratorBank",
    "Inversion",
    "LatentPathDisplay",
    "ModularInverseClassifier",
    "ReconstructionDisplay",
    "config",
    "generate",
    "invert",
    "show_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        from importlib import import_module

        return getattr(import_module(f"micfast.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'micfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
