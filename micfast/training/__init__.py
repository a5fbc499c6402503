"""Training of generators, and the choice of the types they learn."""
