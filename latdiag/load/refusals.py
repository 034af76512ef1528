"""What a reply is that is no stream of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from latdiag.load.plan import TOO_MANY
from latdiag.model.records import Outcome
from latdiag.model.text import without_credentials


def refused(
    status: int, said: str, headers: Mapping[bytes, bytes], clean: Callable[[str], str]
) -> tuple[Outcome, str]:
    """How an attempt ended whose status is not 200, and the sentence for it. ``said``: what may be
    shown of the body."""
    text = f"HTTP {status}" + (f": {said}" if said else "")
    if 300 <= status < 400:
        place = headers.get(b"location", b"").decode("latin-1")
        try:
            place = clean(without_credentials(place))
        except ValueError:
            place = "no URL"
        text = f"HTTP {status}: redirect to {place or 'nowhere'} not followed"
    limited = status in (429, 529) or (status == 503 and b"retry-after" in headers)
    return (Outcome.RATE_LIMITED if limited else Outcome.HTTP_ERROR), text


def no_stream(document: bytes, said: str, page: bool) -> tuple[Outcome, str]:
    """The same of a page (``page``: by its label) or a document under 200. Some gateways refuse
    that way."""
    if page or document.lstrip()[:1] == b"<":
        what = "an HTML page"
    elif _is_error(document):
        limited = TOO_MANY.search(said)
        text = "HTTP 200 with an error" + (f": {said}" if said else "")
        return (Outcome.RATE_LIMITED if limited else Outcome.HTTP_ERROR), text
    else:
        what = "one JSON document"
    text = f"the server sent {what} instead of an event stream"
    return Outcome.PROTOCOL, text + (f": {said}" if said else "")


def _is_error(document: bytes) -> bool:
    """Whether a document says that something went wrong."""
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and bool(found.get("error"))
