"""Inversion of banks: solvers, where they start, and the search itself."""
