"""Whether the first arrival is the first token: from counts, against replies with known ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latdiag.attribution.laws.delivery import Delivery, delivery_of

from .probe_rows import Reply, reply, seen

STEP, PROMPT = 10.0, 30.0


def sent(
    stage: str, at: float, osl: int, chunk: int, hidden: int = 0, first_alone: bool = False
) -> Reply:
    """``osl`` tokens stated, ``hidden`` of them made first and never sent, the others ``chunk`` an
    event; arrivals bear an even share of what is stated, as where nobody counts them."""
    hidden = min(hidden, osl - 1)
    shown = osl - hidden
    sizes = ([1] if first_alone else []) + [chunk] * shown
    ends = np.minimum(np.cumsum(sizes), shown)
    ends = ends[: int(np.searchsorted(ends, shown)) + 1]
    times = PROMPT + STEP * (hidden + ends - 1)
    made = reply(stage, 64, at, float(times[0]), np.diff(times).tolist())
    each = osl / len(ends)
    return replace(made, brought=tuple([each] * len(ends)))  # type: ignore[arg-type]


def told(**how: object) -> tuple[Delivery, np.ndarray]:
    random = np.random.default_rng(3)
    rows = [sent("S2", 0.0, 240, **how)]  # type: ignore[arg-type]
    for k in range(18):
        rows.append(sent("S3", 10_000.0 + 2000 * k, int(random.integers(12, 60)), **how))  # type: ignore[arg-type]
    rows += [sent("S5", 90_000.0 + 4000 * k, 96, **how) for k in range(2)]  # type: ignore[arg-type]
    observed = seen(rows)
    observed = replace(observed, osl=np.rint(observed.osl).astype(np.int64))
    return delivery_of(observed), observed.osl


def test_tokens_that_come_one_by_one_hide_and_gather_nothing() -> None:
    found, _ = told(chunk=1)
    assert found.chunk == 1 and not found.hidden.any() and not found.gathered.any()
    assert not found.open and found.bursts_ns == 0


@pytest.mark.parametrize("chunk", [2, 4, 8])
def test_chunks_from_the_first_on_gather_all_but_one_token(chunk: int) -> None:
    found, _ = told(chunk=chunk)
    assert found.chunk == chunk and not found.hidden.any() and not found.open
    assert (found.gathered == chunk - 1).all()


def test_a_first_token_alone_gathers_nothing() -> None:
    found, _ = told(chunk=8, first_alone=True)
    assert found.chunk == 8 and not found.gathered.any() and not found.open


@pytest.mark.parametrize("hidden", [6, 100])
def test_tokens_that_are_never_sent_are_counted_by_request(hidden: int) -> None:
    """100 of a reply of 12 leave but the one token that ends it."""
    found, osl = told(chunk=1, hidden=hidden)
    truth = np.minimum(hidden, osl - 1)
    assert found.chunk == 1 and np.abs(found.hidden - truth).max() <= 3


def test_larger_chunks_in_some_requests_are_no_hidden_tokens() -> None:
    """Speculative decoding: as many tokens a step as were accepted, and none of them late."""
    random = np.random.default_rng(5)
    rows = []
    for k in range(24):
        osl = int(random.integers(12, 120))
        sizes = random.integers(1, 5, osl)
        steps = int(np.searchsorted(np.cumsum(sizes), osl - 1)) + 1
        made = reply("S3", 64, 3000.0 * k, PROMPT, [STEP] * steps)
        rows.append(replace(made, brought=(osl / (steps + 1),) * (steps + 1)))  # type: ignore[arg-type]
    observed = seen(rows)
    found = delivery_of(replace(observed, osl=np.rint(observed.osl).astype(np.int64)))
    assert not found.hidden.any()
    assert found.open, "whether the first event brings as many as the others is not known"
