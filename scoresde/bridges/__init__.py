"""Bridges: models of other code bases in, models and samplers of this package out; one module per origin.

No module imports the other package before it is needed.
"""
