"""Studies on the paper's data: ways to decide (``better``), and disturbances (``robustness``)."""
