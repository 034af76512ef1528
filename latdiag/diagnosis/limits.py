"""The limits that a server has shown: how many it takes, how many run, how fast in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from latdiag.attribution.behind import is_behind
from latdiag.attribution.laws.admission import Streams, streams_of
from latdiag.attribution.laws.limits import IN_FLIGHT, RATE, Refused, refused_of
from latdiag.attribution.laws.output_rate import OutputRate, output_rate_of
from latdiag.measurement.stages import WORKLOAD
from latdiag.model.document import OPTIONAL
from latdiag.model.units import GLUE, NS_PER_S, quantity
from latdiag.stacks.catalogue import Shown, flags_of, gateways_of

if TYPE_CHECKING:
    from latdiag.measurement.digest import Digest

#: The workload was sent slower than asked for, if by so much.
_SLOWER = 0.9


@dataclass(frozen=True, slots=True)
class Limit:
    """``kind``: in_flight or rate (refused beyond), refusals (by no rule that is known), streams
    (others wait), output_rate (all get slower). ``value``, in ``unit``, between ``lo`` and ``hi``;
    None where it is not known. ``refused`` of ``requests`` were refused as too many; ``burst``:
    taken at once after a pause; ``window_s``: in which requests are counted."""

    kind: str
    value: float | None
    lo: float | None
    hi: float | None
    unit: str
    sentence: str
    refused: int | None = field(default=None, metadata=OPTIONAL)
    requests: int | None = field(default=None, metadata=OPTIONAL)
    retry_after_s: float | None = field(default=None, metadata=OPTIONAL)
    burst: int | None = field(default=None, metadata=OPTIONAL)
    window_s: int | None = field(default=None, metadata=OPTIONAL)


class Asked(NamedTuple):
    """What the user of a probe asked the workload to be; None where he did not."""

    rate: float | None
    concurrency: int | None


def limits_of(found: Digest, asked: Asked, stacks: Sequence[Shown]) -> tuple[Limit, ...]:
    """All that the rows of a run show. ``stacks``: those that showed themselves."""
    return tuple(_limits(found, asked, stacks))


def _limits(found: Digest, asked: Asked, stacks: Sequence[Shown]) -> Iterator[Limit]:
    frame, seen = found.frame, found.observations
    if is_behind(frame):
        # The stages are about the server behind, and the workload is not.
        frame = frame.select(np.flatnonzero(frame.stage != WORKLOAD))
        seen = seen.select(np.flatnonzero(seen.stage != WORKLOAD)) if seen is not None else None
    if (law := refused_of(frame)) is not None:
        yield _of_refusals(law, _lowered(law, found, asked))
    if seen is not None and (streams := streams_of(seen)) is not None:
        yield _of_streams(streams, stacks)
    if seen is not None and (rate := output_rate_of(seen)) is not None:
        yield _of_rate(rate)


# ---------------------------------------------------------------------- in words
def _of_refusals(law: Refused, lowered: str) -> Limit:
    codes = " or ".join("an error event" if code == 200 else str(code) for code in law.statuses)
    asks = f", Retry-After {law.wait_s:.3g} s" if law.wait_s is not None else ""
    counted = f"({law.refused} of {law.requests} requests refused{asks})"
    value: float | None = law.value if law.known else None
    kind, unit, burst = law.rule, "requests/s", None
    if law.rule == IN_FLIGHT:
        unit = "requests"
        told = f"The server takes {_requests(law.value)} at once and answers {codes} beyond that"
    elif law.rule == RATE:
        burst = law.burst
        pace = f"{law.value:.3g} requests/s in the long run ({law.burst} at once after a pause)"
        if law.window_s is not None and law.known:
            pace = f"{_requests(law.burst)} in each {law.window_s} s"
        elif not law.known:
            most = f" and at most {law.hi:.2g}" if np.isfinite(law.hi) else ""
            pace = f"at least {law.lo:.2g}{most} requests/s in the long run"
        told = f"The server takes {pace} and answers {codes} beyond that"
    else:
        kind, unit = "refusals", "requests"
        told = (
            f"The server answers {codes}, too many requests, and neither how many are in flight"
            " nor how many come in a time explains when"
        )
    lo, hi = (law.lo, law.hi) if kind != "refusals" else (None, None)
    return Limit(
        kind,
        value,
        lo,
        hi if hi is None or np.isfinite(hi) else None,
        unit,
        f"{told} {counted}.{lowered}",
        refused=law.refused,
        requests=law.requests,
        retry_after_s=law.wait_s,
        burst=burst,
        window_s=law.window_s if law.known else None,
    )


def _requests(number: float) -> str:
    return f"{number:.0f} request{'s' * (number != 1)}"


def _lowered(law: Refused, found: Digest, asked: Asked) -> str:
    """What the probe sent instead of what the user asked for; empty where it sent that."""
    rows = np.flatnonzero(found.frame.stage == WORKLOAD)
    slots, rate = asked.concurrency, asked.rate
    if slots and law.rule == IN_FLIGHT and slots > law.value:
        return f" The workload therefore had {_requests(law.value)} at once, not {slots}."
    if not rate or len(rows) < 2:
        return ""
    begin, segment = found.frame.begin[rows], found.frame.scenario[rows].astype(str)
    parts = [begin[segment == name] for name in np.unique(segment)]
    seconds = sum(float(np.ptp(part)) for part in parts) / NS_PER_S
    sent = (len(rows) - len(parts)) / max(seconds, 1e-9)
    if sent >= _SLOWER * rate:
        return ""
    return f" The workload therefore came at {sent:.3g}/s, not at {rate:.3g}/s."


def _of_streams(found: Streams, stacks: Sequence[Shown]) -> Limit:
    n = found.value
    # The options below are the engine's; what stands before it may be what lets no more in.
    before = gateways_of(stacks)
    doubt = f"; {before} may be what limits it" if before else ""
    if found.of_workload:
        told = (
            f"At most {n} requests streamed at once while up to {found.most} were in flight: the"
            f" server's limit is {n}"
        )
    elif n == 1:
        told = f"One request runs at a time, and the next of {found.most} begins when it has ended"
    else:
        told = f"{n} requests run at once, and the others of {found.most} wait for one to end"
    named = flags_of("admitted", stacks)
    options = f" ({named})" if named else ""
    return Limit("streams", n, n, n, "requests", f"{told}{options}{doubt}.")


def _of_rate(found: OutputRate) -> Limit:
    *sizes, last = ((1,) if found.alone else ()) + found.sizes
    or_else = (
        "a server that decodes one stream at a time"
        if found.alone
        else "all that the server computes"
    )
    value = quantity(found.rate, "tok/s").replace(GLUE, " ")
    return Limit(
        "output_rate",
        found.rate,
        found.lo,
        found.hi,
        "tok/s",
        f"All streams together get {value}, be they {', '.join(map(str, sizes))} or {last}: a rate"
        f" limit on tokens, or {or_else}.",
    )
