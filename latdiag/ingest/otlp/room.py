"""One bound over all connections together: bytes of bodies that are not decoded yet."""

from __future__ import annotations

from collections.abc import Callable

from latdiag.ingest.otlp.limits import FOR_SMALL, MAX_HELD, MAX_READ, RETRY_S, SMALL, Refusal


class Room:
    """The bytes that all bodies together may hold.

    Where there are too many, the largest body that is still on its way makes room: that is never
    one of a sender that behaves, and nobody who sends little is held up by those who send much.
    """

    def __init__(self, read: int = MAX_READ, held: int = MAX_HELD) -> None:
        self._read, self._most = read, held
        self.held = 0
        self._claims: set[Claim] = set()

    def claim(self, give_way: Callable[[Refusal], None] | None = None) -> Claim:
        """A body's share, empty. ``give_way`` is called with the refusal if it has to go before
        it is whole; None for what is whole."""
        claim = Claim(self, give_way)
        self._claims.add(claim)
        return claim

    def _grow(self, claim: Claim, size: int) -> None:
        claim.size += size
        self.held += size
        most = self._read if claim.give_way is not None else self._most
        if claim.size <= SMALL:
            most = self._most + FOR_SMALL
        while self.held > most and size > 0:
            coming = [one for one in self._claims if one.give_way and one.size > SMALL]
            going = max(coming, key=lambda one: one.size, default=claim)
            give_way = going.give_way
            going.release()
            text = (
                f"all bodies together have more than {most >> 20} MiB; send again in {RETRY_S} s"
            )
            full = Refusal("busy", text, retry=True)
            if going is claim:
                raise full
            if give_way is not None:
                give_way(full)

    def _release(self, claim: Claim) -> None:
        if claim in self._claims:
            self._claims.discard(claim)
            self.held -= claim.size
            claim.size = 0


class Claim:
    """One body's share of a ``Room``."""

    __slots__ = ("_room", "give_way", "size")

    def __init__(self, room: Room, give_way: Callable[[Refusal], None] | None) -> None:
        self._room = room
        self.give_way = give_way
        self.size = 0

    def grow(self, size: int) -> None:
        """``size`` bytes more. Refusal where this is the body that must go."""
        self._room._grow(self, size)

    def whole(self) -> None:
        """The body has come: it is decoded, and gives way no more."""
        self.give_way = None

    def release(self) -> None:
        self._room._release(self)
