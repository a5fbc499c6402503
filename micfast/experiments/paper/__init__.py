"""The experiments of the paper, run anew: ``micfast reproduce``."""
