"""The classifier as an estimator of other time series libraries."""
