"""The error of this subpackage."""


class BenchError(Exception):
    """What a user can be told in a sentence: what happened and, where something can be done, what."""
