"""One bound over all connections together: bytes of bodies that are not decoded yet."""

from __future__ import annotations

from collections.abc import Callable

from latdiag.ingest.otlp.limits import MAX_HELD, RETRY_S, Refusal


class Room:
    """The bytes that all bodies together may hold.

    Where it is full, the largest body that is still on its way makes room: a body that fills it
    is never one of a sender that behaves, and those that wait never hold up one that is small.
    """

    def __init__(self, size: int = MAX_HELD) -> None:
        self._size = size
        self._held = 0
        self._claims: set[Claim] = set()

    def claim(self, give_way: Callable[[Refusal], None] | None = None) -> Claim:
        """A body's share, empty. ``give_way`` is called with the refusal if it has to go before
        it is whole; None for what is whole."""
        claim = Claim(self, give_way)
        self._claims.add(claim)
        return claim

    def _grow(self, claim: Claim, size: int) -> None:
        claim.size += size
        self._held += size
        while self._held > self._size:
            going = max(
                (one for one in self._claims if one.give_way or one is claim),
                key=lambda one: one.size,
            )
            give_way = going.give_way
            going.release()
            full = Refusal(
                "busy",
                f"all bodies together take more than {self._size} bytes;"
                f" send again in {RETRY_S} s",
                retry=True,
            )
            if going is claim:
                raise full
            if give_way is not None:
                give_way(full)

    def _release(self, claim: Claim) -> None:
        if claim in self._claims:
            self._claims.discard(claim)
            self._held -= claim.size
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
