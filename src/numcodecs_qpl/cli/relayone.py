"""``numcodecs-qpl relay`` without ``--serve``: a relay of one migration."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from numcodecs_qpl.cli.common import OK, failed
from numcodecs_qpl.cli.migration import progress, say_listening, say_refused, warn
from numcodecs_qpl.cli.signals import Signals, Terminated
from numcodecs_qpl.files import write_whole
from numcodecs_qpl.multifd.errors import MultiFDError, OutcomeUnknownError
from numcodecs_qpl.multifd.relay import Relay, relay_one

if TYPE_CHECKING:
    from numcodecs_qpl.cli.relayplan import Plan


def run_one(plan: Plan, stats: Path | None) -> int:
    """Relay one migration, print its line of JSON, and return the exit status.

    Raises
    ------
    MultiFDError
        If it cannot listen.
    """
    (route,) = plan.routes
    with Signals() as signals, contextlib.closing(plan.listener(route)) as listener:
        relay = plan.relay(route, warn)
        say_listening(listener.address)
        ended, error_text, status = "failed", None, OK
        try:
            with progress(lambda: _progress(relay)):
                relay_one(relay, listener, say_refused, signals.check)
            ended = "complete"
        except MultiFDError as error:
            if isinstance(error, OutcomeUnknownError):
                ended = "unknown"
            error_text = str(error)
            status = failed(error_text)
        except Terminated as error:
            ended, status = "terminated", error.status
        except KeyboardInterrupt:
            ended = "interrupted"
            raise
        finally:
            line = json.dumps({"ended": ended, "error": error_text, **relay.statistics(), **relay.process_statistics()})
            if stats is not None:
                status = _write(stats, line + "\n") or status
            print(line, flush=True)
        return status


def _progress(relay: Relay) -> str:
    seen = relay.statistics()
    pages = seen["pages"]
    return (
        f"{pages['normal']} pages, {pages['zero']} zero pages; {seen['bytes_in'] / 1e6:.1f} MB came, "
        f"{seen['bytes_out'] / 1e6:.1f} MB went, in {seen['seconds']:.1f} s"
    )


def _write(path: Path, text: str) -> int:
    try:
        write_whole(path, lambda beside: beside.write_text(text))
    except OSError as error:
        return failed(f"{path} cannot be written: {error.strerror}")
    return OK
