"""Certificates and keys for tests of TLS."""

from __future__ import annotations

from pathlib import Path

import trustme

from numcodecs_qpl.multifd.transport.tlsfiles import TLSFiles


def issue(folder: Path, authority: trustme.CA, name: str = "here", ca: str = "ca.pem") -> TLSFiles:
    """Write a certificate for this host, its key, and the authority's certificate into `folder`."""
    files = TLSFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / ca)
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files.key.touch(mode=0o600)
    files.key.write_bytes(issued.private_key_pem.bytes())
    files.ca.write_bytes(authority.cert_pem.bytes())
    return files
