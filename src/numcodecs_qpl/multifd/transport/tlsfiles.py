"""Files for TLS: a certificate, its key, and the authorities' certificates."""

from __future__ import annotations

import shlex
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.transport.address import Address


@dataclass(frozen=True)
class TLSFiles:
    """The certificate of this side and the trusted authorities: files in PEM format.

    Attributes
    ----------
    cert, key : Path
        The certificate (followed by intermediate certificates, if any) and its key.
    ca : Path
        Certificates of the trusted authorities. One of them must have issued the other side's certificate.
    verify_peer : bool
        True if a listener asks for the other side's certificate. The connecting side always does.
    """

    cert: Path
    key: Path
    ca: Path
    verify_peer: bool = True

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Return the context of one side, with TLS 1.2 or later.

        Raises
        ------
        MultiFDError
            If a file cannot be read or has other content, or other users can read or change the key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # even if Python's or OpenSSL's configuration allows less
        if server:
            context.verify_mode = ssl.CERT_REQUIRED if self.verify_peer else ssl.CERT_NONE
            # A client that only sends would never read the tickets, and closing with bytes unread resets the
            # connection.
            context.num_tickets = 0
        using = f"{self.cert} and {self.key}"
        try:
            for file in (self.cert, self.key, self.ca):
                file.open("rb").close()  # ssl's own error would not name the file
            _check_key(self.key)
            context.load_cert_chain(self.cert, self.key, password=self._refuse_passphrase)
            using = str(self.ca)
            context.load_verify_locations(self.ca)
        except OSError as error:  # ssl's errors are OSErrors too
            raise MultiFDError(f"TLS cannot use {error.filename or using}: {error.strerror or error}") from error
        return context

    def _refuse_passphrase(self) -> str:
        # OpenSSL would ask at the terminal, and wait there while signals wait too.
        raise MultiFDError(
            f"TLS refuses the key {self.key}: it is encrypted with a passphrase; write it without one "
            f"(`openssl pkey -in {shlex.quote(str(self.key))} -out FILE`) and protect the file by its mode, 0600"
        )


def _check_key(key: Path) -> None:
    status = key.stat()
    # Debian's ssl-cert shares root's keys with a group, which can read them.
    allowed = 0o640 if status.st_uid == 0 else 0o600
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 & ~allowed:
        raise MultiFDError(
            f"TLS refuses the key {key}: others can read or change it (mode {mode:04o}); run "
            f"`chmod 600 {shlex.quote(str(key))}`"
        )


def tls_context(address: Address, tls: TLSFiles | None, *, server: bool) -> ssl.SSLContext | None:
    """Return the TLS context for `address`; None if it is not of the kind "tls".

    Raises
    ------
    MultiFDError
        If `tls` is missing, or its files cannot be used.
    """
    if address.kind != "tls":
        return None
    if tls is None:
        raise MultiFDError(f"{address} needs a certificate, its key and an authority's certificate")
    return tls.context(server=server)
