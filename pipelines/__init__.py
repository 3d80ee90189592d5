"""Thin entries, one per DVC stage and one for multirun studies."""
