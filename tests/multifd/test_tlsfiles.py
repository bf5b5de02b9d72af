"""TLS files that are not what they should be."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from tls_files import issue

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.transport.address import parse_address
from numcodecs_qpl.multifd.transport.listener import Listener
from numcodecs_qpl.multifd.transport.tlsfiles import TLSFiles, tls_context


@pytest.fixture
def files(tmp_path: Path) -> TLSFiles:
    return issue(tmp_path, trustme.CA())


def use(address: str, tls: TLSFiles | None, *, server: bool) -> None:
    if server:
        Listener(parse_address(address), tls).close()
    else:
        tls_context(parse_address(address), tls, server=False)


SIDES = pytest.mark.parametrize("server", [True, False], ids=["listening", "connecting"])
NAMES = {"cert": "here.pem and .*here.key", "key": "here.pem and .*here.key", "ca": "ca.pem"}


@SIDES
def test_tls_without_files_is_an_error(server: bool) -> None:
    with pytest.raises(MultiFDError, match=r"tls:127.0.0.1:1 needs a certificate, its key and an authority's"):
        use("tls::1", None, server=server)


@SIDES
@pytest.mark.parametrize("missing", NAMES)
def test_a_tls_file_that_is_missing_is_named(files: TLSFiles, server: bool, missing: str) -> None:
    path = getattr(files, missing)
    path.unlink()
    with pytest.raises(MultiFDError, match=f"TLS cannot use {path}: No such file or directory"):
        use("tls::1", files, server=server)


@SIDES
@pytest.mark.parametrize("wrong", NAMES)
@pytest.mark.parametrize("content", ["", "junk\n"])
def test_a_tls_file_of_another_kind_is_named(files: TLSFiles, server: bool, wrong: str, content: str) -> None:
    getattr(files, wrong).write_text(content)
    with pytest.raises(MultiFDError, match=f"TLS cannot use .*{NAMES[wrong]}: .+"):
        use("tls::1", files, server=server)


@SIDES
def test_a_key_of_another_certificate_is_named(files: TLSFiles, server: bool) -> None:
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(files.key)
    with pytest.raises(MultiFDError, match=r"TLS cannot use .*here.key: .*mismatch"):
        use("tls::1", files, server=server)


@SIDES
def test_a_key_with_a_passphrase_is_refused_without_asking(files: TLSFiles, server: bool) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(MultiFDError, match=f"TLS refuses the key {files.key}: it is encrypted with a passphrase"):
        use("tls::1", files, server=server)


@SIDES
@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o660, 0o666])
def test_a_key_that_others_can_read_or_change_is_refused_with_the_chmod_to_run(
    files: TLSFiles, server: bool, mode: int
) -> None:
    files.key.chmod(mode)
    with pytest.raises(MultiFDError, match=rf"\(mode {mode:04o}\); run `chmod 600 {files.key}`$") as caught:
        use("tls::1", files, server=server)
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    assert files.context(server=server)


@pytest.mark.parametrize("owner", [0, 1234])
def test_a_group_can_read_a_key_of_root_alone(files: TLSFiles, monkeypatch: pytest.MonkeyPatch, owner: int) -> None:
    files.key.chmod(0o640)
    status = files.key.stat()
    owned = os.stat_result((*status[:4], owner, *status[5:10]))
    monkeypatch.setattr(Path, "stat", lambda path: owned)
    if owner == 0:
        assert files.context(server=True)
    else:
        with pytest.raises(MultiFDError, match=r"mode 0640"):
            files.context(server=True)


@pytest.mark.parametrize("kind", ["unix:/nowhere/s", "tcp::1"])
def test_without_tls_the_files_are_not_looked_at(kind: str) -> None:
    none = TLSFiles(Path("/no"), Path("/no"), Path("/no"))
    assert tls_context(parse_address(kind), none, server=True) is None


class LenientContext(ssl.SSLContext):
    """Make a context as Python does if it, or OpenSSL, is configured to allow old versions of TLS."""

    def __init__(self, protocol: int) -> None:
        self.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED


def test_the_context_asks_for_tls_1_2_and_certificates(files: TLSFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not in the module itself: ssl.SSLContext's own setters look for the class under this name.
    lenient = SimpleNamespace(**{**vars(ssl), "SSLContext": LenientContext})
    monkeypatch.setattr("numcodecs_qpl.multifd.transport.tlsfiles.ssl", lenient)
    for server in (True, False):
        context = files.context(server=server)
        assert context.verify_mode.name == "CERT_REQUIRED"
        assert context.minimum_version.name == "TLSv1_2"
        assert context.check_hostname == (not server)
    without_peer = TLSFiles(files.cert, files.key, files.ca, verify_peer=False)
    assert without_peer.context(server=True).verify_mode.name == "CERT_NONE"
    assert without_peer.context(server=False).verify_mode.name == "CERT_REQUIRED"
