"""Metrics, tables and figures of results that are there already.

Nothing is estimated or trained here.
"""
