"""The ids by which requests are found in the logs and spans of servers."""

from __future__ import annotations

_VERSION, _VARIANT = "4", "8"
#: 2**32 over the golden ratio: neighbours land far apart.
_SPREAD = 0x9E3779B1


def request_id(tag: str, number: int) -> str:
    """The id of request ``number`` of the run ``tag`` (8 hex digits), a UUID in form.

    Envoy traces no request whose x-request-id is not one, and tells the servers behind it not to
    either; from the first 8 digits it reads whether a request is sampled, so they differ. The
    last 12 are the number.
    """
    mixed = (int(tag, 16) + number * _SPREAD) & 0xFFFFFFFF
    return f"{mixed:08x}-{tag[:4]}-{_VERSION}{tag[4:7]}-{_VARIANT}{tag[7]}00-{number:012x}"
