"""Fast modular inverse classification: few-shot sequences classified by inverting small LSTMs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from micfast import runtime  # noqa: F401 - prepares torch for forks
from micfast.version import __version__

if TYPE_CHECKING:
    from micfast.classify.decision import Decision
    from micfast.classify.estimator import ModularInverseClassifier
    from micfast.generators.bank import GeneratorBank, generate
    from micfast.generators.files import BankFileError
    from micfast.generators.modules import Generator
    from micfast.kernels.config import config, show_config
    from micfast.kernels.decoder import Decoder
    from micfast.kernels.execution import Execution
    from micfast.kernels.weights import Weights
    from micfast.plotting import (
        CrossErrorDisplay,
        LatentPathDisplay,
        ReconstructionDisplay,
        TrainingDisplay,
    )
    from micfast.search.check import check
    from micfast.search.inversion import Inversion, invert
    from micfast.search.loss import Loss
    from micfast.search.pose import Pose
    from micfast.search.solvers.adam import Adam
    from micfast.search.solvers.levenberg_marquardt import LevenbergMarquardt
    from micfast.sequences import Sequences
    from micfast.training.fleet import Trained, train
    from micfast.training.settings import Training

# The rooms of the public names. They load on first use, so that a name costs only what it needs.
_EXPORTS = {
    "Adam": "search.solvers.adam",
    "BankFileError": "generators.files",
    "CrossErrorDisplay": "plotting",
    "Decision": "classify.decision",
    "Decoder": "kernels.decoder",
    "Execution": "kernels.execution",
    "Generator": "generators.modules",
    "GeneratorBank": "generators.bank",
    "Inversion": "search.inversion",
    "LatentPathDisplay": "plotting",
    "LevenbergMarquardt": "search.solvers.levenberg_marquardt",
    "Loss": "search.loss",
    "ModularInverseClassifier": "classify.estimator",
    "Pose": "search.pose",
    "ReconstructionDisplay": "plotting",
    "Sequences": "sequences",
    "Trained": "training.fleet",
    "Training": "training.settings",
    "TrainingDisplay": "plotting",
    "Weights": "kernels.weights",
    "check": "search.check",
    "config": "kernels.config",
    "generate": "generators.bank",
    "invert": "search.inversion",
    "show_config": "kernels.config",
    "train": "training.fleet",
}

__all__ = [
    "Adam",
    "BankFileError",
    "CrossErrorDisplay",
    "Decision",
    "Decoder",
    "Execution",
    "Generator",
    "GeneratorBank",
    "Inversion",
    "LatentPathDisplay",
    "LevenbergMarquardt",
    "Loss",
    "ModularInverseClassifier",
    "Pose",
    "ReconstructionDisplay",
    "Sequences",
    "Trained",
    "Training",
    "TrainingDisplay",
    "Weights",
    "__version__",
    "check",
    "config",
    "generate",
    "invert",
    "show_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f"micfast.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'micfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
