"""Pictures of fitted estimators, decisions and inversions. Importing this loads no matplotlib."""

from micfast.plotting.cross_error import CrossErrorDisplay
from micfast.plotting.drawing import save_figure
from micfast.plotting.latent_path import LatentPathDisplay
from micfast.plotting.page import choose_examples, plot_reconstructions
from micfast.plotting.reconstruction import ReconstructionDisplay
from micfast.plotting.training import TrainingDisplay

__all__ = [
    "CrossErrorDisplay",
    "LatentPathDisplay",
    "ReconstructionDisplay",
    "TrainingDisplay",
    "choose_examples",
    "plot_reconstructions",
    "save_figure",
]
