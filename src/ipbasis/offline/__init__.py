"""From features to a basis: forward problems, training, compression, measured accuracy, the artefact on disk.

A basis is made here and never changed elsewhere; no estimate of a query is known here.
"""
