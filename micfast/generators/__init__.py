"""Generators: a bank of many, torch modules, and the file that keeps them."""
