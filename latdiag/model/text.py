"""Strings from outside pass here before they meet a terminal, a log or a run.

Hostile text can move the cursor, reorder what is read, or hide credentials in a URL.
"""

from __future__ import annotations

import unicodedata
from urllib.parse import urlsplit, urlunsplit

#: Categories that change how the rest is shown: control, format (bidi, zero width), surrogates,
#: private use, line and paragraph separators.
_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def shown(text: object, limit: int = 200) -> str:
    """``text`` without control, escape or bidi characters, at most ``limit`` characters long."""
    raw = str(text)
    # A bound before the scan: a hostile string may be megabytes.
    clean = raw[: 4 * limit]
    if not clean.isprintable():
        clean = "".join(
            " " if c in "\n\r\t" else c
            for c in clean
            if c in "\n\r\t" or unicodedata.category(c) not in _UNSHOWN
        )
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit and len(raw) <= 4 * limit else clean[: limit - 1] + "…"


def without_credentials(url: str) -> str:
    """``url`` with user, password, query and fragment removed: all four may bear a secret."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if parts.port is not None:
        host = f"{host}:{parts.port}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by its name or address alone."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
