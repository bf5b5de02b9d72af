"""Which path did what, in this process."""

from __future__ import annotations

from numcodecs_qpl import _core, containers


def stats() -> dict[str, dict[str, int]]:
    """Count what this process has done since it began (or forked), or since `reset_stats`.

    Returns
    -------
    dict
        ``"hardware"`` and ``"software"``: blocks ``"compressed"`` and ``"decompressed"`` on each of libqpl's paths; in
        a build without libqpl ISA-L does all of them, as ``"software"``.
        ``"fallback"``: blocks that hardware did not do, and software did instead, by libqpl's name of the reason.
        ``"inflate"``: chunks that ISA-L read, by reason. ``"queues"``: how often they were found ``"full"``.
        ``"pool"``: libqpl jobs ``"made"``, and software ones that are ``"idle"`` now.
    """
    return {**_core.stats(), "inflate": containers.inflate_stats()}


def reset_stats() -> None:
    """Set the counts of `stats` to zero."""
    _core.reset_stats()
    containers.reset_inflate_stats()
