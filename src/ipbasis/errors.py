"""The one error a user can cause."""


class InputError(ValueError):
    """Something the user gave is wrong; the message says what, where, and what would be right."""
