"""One request on its way through a world, and the events of its reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from latdiag.model.records import Kind

from .truth import Ledger

#: Bytes of a request besides its prompt, of a token in it, and of one event of a stream.
HEAD_BYTES, TOKEN_BYTES, EVENT_BYTES = 420, 5, 210
GENERATE, GET, REFUSED = "generate", "get", "refused"


class Turned(Exception):
    """A request was answered with ``status`` and went no further."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(slots=True)
class Event:
    """``tokens``: that its text brings. ``last``: with it the reply ends. ``head``: of a reply, no
    event of a stream. ``status``: of the head."""

    kind: Kind
    tokens: int = 0
    last: bool = False
    head: bool = False
    status: int = 200

    @property
    def size(self) -> int:
        return EVENT_BYTES * max(1, self.tokens) // (1 if self.tokens < 2 else 2)


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
