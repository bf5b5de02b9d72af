"""The error of this subpackage."""


class BenchError(Exception):
    """An expected failure, as a sentence for the user: what happened, and what to do."""
