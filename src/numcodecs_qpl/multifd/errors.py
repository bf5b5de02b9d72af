"""Errors of migrations. Each class has a cause, for statistics."""

from __future__ import annotations

MAIN = "main"
"""The main channel, where another channel has its id."""


class MultiFDError(ValueError):
    """A migration stream breaks the protocol, ends too early, or cannot be followed.

    Attributes
    ----------
    cause : str
        Kind of the error, for statistics: one of a few words, the same for all errors of a class.
    reason : str
        Description of the error, without its place.
    field : str or None
        QEMU's name of the invalid field of the packet.
    channel : int, str or None
        The multifd channel's id, or ``"main"``.
    packet : int or None
        Number of the packet on that channel, from 0.
    """

    cause = "protocol"

    def __init__(
        self,
        reason: str,
        *,
        field: str | None = None,
        channel: int | str | None = None,
        packet: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.channel = channel
        self.packet = packet

    def locate(self, channel: int | str, packet: int | None = None) -> None:
        """Set the channel and the packet, unless they are set already."""
        if self.channel is None:
            self.channel = channel
        if self.packet is None:
            self.packet = packet

    def __str__(self) -> str:
        where = []
        if self.channel is not None:
            where.append("main channel" if self.channel == MAIN else f"channel {self.channel}")
        if self.packet is not None:
            where.append(f"packet {self.packet}")
        place = f"{', '.join(where)}: " if where else ""
        return f"{place}{f'{self.field}: ' if self.field else ''}{self.reason}"


class SettingsError(MultiFDError):
    """The settings of the two QEMUs and of this process differ, or a setting is not supported."""

    cause = "settings"


class DeviceError(MultiFDError):
    """Hardware failed or cannot be used, and the path setting allows hardware only."""

    cause = "device"


class UnreachableError(MultiFDError):
    """The far end does not accept a connection, or one side does not accept the other's certificate."""

    cause = "unreachable"


class PeerClosedError(MultiFDError):
    """A connection ended early."""

    cause = "connection"


class RefusedError(PeerClosedError):
    """The destination ended the migration in an orderly way: it has not accepted the guest."""

    cause = "refused"


class NoAnswerError(PeerClosedError):
    """No bytes came for too long, or the link is dead; the other side may not notice it."""

    cause = "no_answer"


class StoppedError(MultiFDError):
    """A signal has ended this process while a migration ran."""

    cause = "stopped"


class OutcomeUnknownError(MultiFDError):
    """Everything was passed on, but the destination does not answer, so the outcome is unknown."""

    cause = "no_answer"


def cause_of(error: BaseException) -> str:
    """Return the cause of `error` for statistics: "internal" unless it is a `MultiFDError`."""
    return error.cause if isinstance(error, MultiFDError) else "internal"
