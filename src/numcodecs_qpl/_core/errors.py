"""The errors of this package."""

from __future__ import annotations


class QplError(RuntimeError):
    """A device failed, or cannot be used.

    Attributes
    ----------
    status : int or None
        libqpl's status number (``qpl/c_api/status.h``); None if libqpl was not involved.
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
    """Data to decode is damaged, truncated, or of another format than expected."""
