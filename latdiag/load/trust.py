"""Whom a client trusts over TLS, and how it shows who it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Trust:
    """``verify``: whether certificates are verified at all. ``ca_file``: authorities to trust
    beside the system's; ``cert_file``, ``key_file``: the client's own certificate, with its key in
    the same file where no other is named. Files are PEM.
    """

    verify: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP/1.1. OSError or ssl.SSLError for files that are not what they should be."""
        import ssl  # who reads a plan back verifies nobody

        context = ssl.create_default_context()
        if self.ca_file is not None:
            context.load_verify_locations(self.ca_file)
        if self.cert_file is not None:
            # Without a password here OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        return context

    def for_others(self) -> Trust:
        """For servers that are not the target: the client's certificate is not for them, and
        theirs are verified."""
        return replace(self, verify=True, cert_file=None, key_file=None)


#: The system's authorities, and no certificate of the client's own.
USUAL = Trust()
