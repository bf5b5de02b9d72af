"""The two errors of this package that speak of libqpl, or of ISA-L where that does the work."""

from __future__ import annotations


class QplError(RuntimeError):
    """libqpl, or ISA-L in its place, could not do what was asked.

    Attributes
    ----------
    status : int or None
        libqpl's status number (``qpl/c_api/status.h``); None where the fault was found by our own checks, or by
        ISA-L.
    name : str or None
        libqpl's name for that number.
    """

    def __init__(self, message: str, status: int | None = None, name: str | None = None) -> None:
        super().__init__(message, status, name)
        self.message = message
        self.status = status
        self.name = name

    def __str__(self) -> str:
        if self.status is None:
            return self.message
        return f"{self.message} (libqpl status {self.status}, {self.name})"


class CorruptDataError(QplError, ValueError):
    """Data to decode is damaged, truncated, or not of the format that was asked for."""
