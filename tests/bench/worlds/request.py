"""One request on its way through a world, and the events of its reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from latdiag.model.records import Kind

from .truth import Ledger

#: Bytes of a request besides its prompt, of a token, and of one event of a stream besides.
HEAD_BYTES, TOKEN_BYTES, EVENT_BYTES = 420, 5, 205
GENERATE, GET, REFUSED = "generate", "get", "refused"


class Turned(Exception):
    """A request was answered with ``status`` and went no further. ``wait_s``: when to try again,
    if the reply says so."""

    def __init__(self, status: int, wait_s: float | None = None) -> None:
        super().__init__(status)
        self.status, self.wait_s = status, wait_s


@dataclass(slots=True)
class Event:
    """``tokens``: that its text brings. ``last``: with it the reply ends. ``head``: of a reply, no
    event of a stream. ``status``, ``wait_s``: of the head. ``so_far``: tokens made until then.
    ``text``: the field that its text stands in. ``words``: of a refusal."""

    kind: Kind
    tokens: int = 0
    last: bool = False
    head: bool = False
    status: int = 200
    so_far: int = 0
    text: str = "content"
    wait_s: float | None = None
    words: str = ""

    @property
    def size(self) -> int:
        return EVENT_BYTES + TOKEN_BYTES * self.tokens


@dataclass(slots=True, eq=False)
class Request:
    """``ours``: the client's, not another tenant's. ``onward``: where events of its reply go from
    a hop, by the hop. ``notes``: what hops and engines remember of it."""

    kind: str
    isl: int
    osl: int
    ledger: Ledger
    ours: bool = True
    notes: dict[Any, Any] = field(default_factory=dict)
    receive: Callable[[Event], None] = lambda event: None
    #: set by the engine
    made: int = 0
    computed: int = 0

    @property
    def bytes(self) -> int:
        return HEAD_BYTES + TOKEN_BYTES * self.isl


class Hop(Protocol):
    """What a request passes on its way to an engine, and its reply on the way back."""

    async def there(self, request: Request) -> None:
        """Until it may go on; Turned where it may not."""

    def back(self, request: Request, event: Event, onward: Callable[[Event], None]) -> None:
        """``onward`` now or later, in order."""
