"""Helpers for every layer of the package.

Elementwise functions, tensor helpers, argument checks, sources of noise, name suggestions, progress bars and atomic
files.
"""
