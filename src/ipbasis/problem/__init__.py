"""Equations and their declaration: what a user writes, parsed and checked.

Data only: nothing here evaluates features, reads observations or solves an equation.
"""
