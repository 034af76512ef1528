"""TLS over memory buffers, so that the raw socket keeps its kernel stamps and byte offsets."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

NAMES = ("DNS:localhost", "IP:127.0.0.1", "IP:10.77.0.2")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) as PEM files, self-signed, RSA-2048, good for a week."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        return _trustme(certificate, key)
    subprocess.run(
        f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 7 -subj /CN=truth"
        f" -addext subjectAltName={','.join(NAMES)} -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    return certificate, key


def _trustme(certificate: Path, key: Path) -> tuple[Path, Path]:
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert(*(n.partition(":")[2] for n in NAMES))
    issued.private_key_pem.write_to_path(str(key))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(certificate), append=True)
    return certificate, key


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Layer:
    """The server's end of one TLS connection."""

    __slots__ = ("done", "engine", "incoming", "outgoing")

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.engine = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.done = False

    def shake(self, data: memoryview) -> bool:
        """Feeds ciphertext to the handshake; True once it is complete. Raises ssl.SSLError."""
        self.incoming.write(data)
        try:
            self.engine.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.done = True
        return True

    def open(self, data: memoryview | None) -> bytes:
        """Plaintext of all records that are complete. b"" too at the peer's close_notify."""
        if data is not None:
            self.incoming.write(data)
        parts = []
        try:
            while part := self.engine.read(65536):
                parts.append(part)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        return b"".join(parts)

    def seal(self, data: bytes) -> bytes:
        self.engine.write(data)
        return self.outgoing.read()
