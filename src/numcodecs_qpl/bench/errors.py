"""The error of this subpackage."""


class BenchError(Exception):
    """An expected failure, with a message for the user: the fault, and what to do."""
