"""Who owns each nanosecond, against a painter that goes through them one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from latdiag.attribution.nest import Intervals, narrower
from latdiag.attribution.sweep import sweep
from tests.profiles import examples

#: row, start, length, covers (of five leaves)
ONE = st.tuples(st.integers(0, 3), st.integers(-5, 20), st.integers(0, 15), st.integers(1, 31))
MANY = st.lists(ONE, max_size=14)


def claims_of(found: list[tuple[int, int, int, int]]) -> Intervals:
    found = sorted(found, key=lambda one: one[0])
    columns = np.array(found, dtype=np.int64).reshape(-1, 4)
    row, start, length, covers = columns.T
    none, all_ = np.zeros(len(row), dtype=np.int64), np.ones(len(row), dtype=np.int64)
    return Intervals(row, start, start + length, covers, none, all_, all_)


def painted(found: list[tuple[int, int, int, int]]) -> dict[tuple[int, int], int]:
    """(row, instant) -> leaves of the owner: the rules of the module, an instant at a time."""
    owner: dict[tuple[int, int], int] = {}
    for row in {one[0] for one in found}:
        mine = [c for c in found if c[0] == row]
        simple = {c for c in mine if not any(o[3] != c[3] and o[3] & ~c[3] == 0 for o in mine)}
        for at in range(-5, 40):
            active = [c for c in found if c[0] == row and c[1] <= at < c[1] + c[2]]
            minimal = [
                c for c in active if not any(o[3] != c[3] and o[3] & ~c[3] == 0 for o in active)
            ]
            if minimal:
                best = max(minimal, key=lambda c: (c in simple, c[1] + c[2], c[1], c[3]))
                owner[row, at] = best[3]
    return owner


@examples(300)
@given(MANY, st.integers(-5, 30))
def test_every_instant_has_the_owner_that_a_painter_finds(
    found: list[tuple[int, int, int, int]], cut: int
) -> None:
    claims = claims_of(found)
    owned = sweep(claims, np.full(4, cut))
    amounts: dict[tuple[int, int], list[int]] = {}
    for claim, ns, before in zip(owned.claim, owned.ns, owned.before, strict=True):
        key = int(claims.row[claim]), int(claims.covers[claim])
        both = amounts.setdefault(key, [0, 0])
        both[0] += int(ns)
        both[1] += int(before)
    wanted: dict[tuple[int, int], list[int]] = {}
    for (row, at), covers in painted(found).items():
        both = wanted.setdefault((row, covers), [0, 0])
        both[0] += 1
        both[1] += at < cut
    assert amounts == wanted


@given(MANY, st.randoms())
def test_the_order_of_claims_does_not_matter(
    found: list[tuple[int, int, int, int]], random: object
) -> None:
    other = list(found)
    random.shuffle(other)  # type: ignore[attr-defined]

    def summed(some: list[tuple[int, int, int, int]]) -> dict[tuple[int, int], int]:
        claims = claims_of(some)
        owned = sweep(claims, np.zeros(4, dtype=np.int64))
        sums: dict[tuple[int, int], int] = {}
        for claim, ns in zip(owned.claim, owned.ns, strict=True):
            key = int(claims.row[claim]), int(claims.covers[claim])
            sums[key] = sums.get(key, 0) + int(ns)
        return sums

    assert summed(found) == summed(other)


@given(MANY)
def test_narrower_is_the_union_of_what_covers_less_in_the_same_row(
    found: list[tuple[int, int, int, int]],
) -> None:
    claims = claims_of(found)
    for at, union in enumerate(narrower(claims).tolist()):
        wanted = 0
        for row, covers in zip(claims.row, claims.covers, strict=True):
            mine = claims.covers[at]
            if row == claims.row[at] and covers != mine and covers & ~mine == 0:
                wanted |= int(covers)
        assert union == wanted
