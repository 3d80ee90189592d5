"""Functions of the coordinates with exact derivatives, and the points they are taken at.

Knows nothing of an equation: what a feature is good for is decided in the rooms above.
"""
