"""The classifier: the scikit-learn estimator, its decisions, calibration and files."""
