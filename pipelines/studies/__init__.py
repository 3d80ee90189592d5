"""Sweeps by Hydra multirun, and what the studies of all problems share.

A study adds no way of training or estimating of its own.
"""
