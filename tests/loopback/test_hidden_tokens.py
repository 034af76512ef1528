"""What decode took before the first arrival is in the intervals, where replies count tokens that
they do not send, or send several at a time."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from tests.loopback.invoke import loaded
from tests.loopback.peers import DONE, Asked, Wire, delta, event, serving

#: What the server does before it decodes, and for each token.
_BEFORE_S, _STEP_S = 0.06, 0.006


@dataclass(frozen=True, slots=True)
class Kind:
    """``hidden``: least and most tokens that are made first; ``field``: where these are sent, if
    anywhere; ``chunk``: tokens sent at a time; ``details``: hidden ones are counted apart."""

    hidden: tuple[int, int] = (0, 0)
    field: str = ""
    chunk: int = 1
    details: bool = False
    whole: bool = False


KINDS = {
    "withheld, counted apart": Kind((40, 40), details=True),
    "withheld and drawn, counted apart": Kind((10, 80), details=True),
    "withheld": Kind((40, 40)),
    "withheld and drawn": Kind((10, 80)),
    "sent in another field": Kind((40, 40), "reasoning_content", details=True),
    "sent in a field that nobody knows": Kind((40, 40), "thinking_text", details=True),
    "several to a chunk": Kind(chunk=4),
    "withheld, and several to a chunk": Kind((40, 40), chunk=4),
    "all at once": Kind(whole=True),
}


@dataclass(slots=True)
class Truth:
    """Seconds over all replies of the load: in all, and in which it decoded; ``steps``: it made
    that many tokens in all, and ``sent`` as many."""

    whole: float = 0.0
    decode: float = 0.0
    steps: int = 0
    sent: int = 0
    lock: Any = field(default_factory=threading.Lock)


def server(kind: Kind, truth: Truth) -> Callable[[Wire, Asked], None]:
    draw = random.Random(5)

    def script(wire: Wire, asked: Asked) -> None:
        if asked.method == "GET":
            there = asked.target.endswith("/v1/models")
            wire.reply(200 if there else 404, '{"data": [{"id": "m"}]}' if there else "{}")
            return
        fields = asked.document
        if any(name in fields for name in ("ignore_eos", "min_tokens", "return_token_ids")) or (
            "continuous_usage_stats" in (fields.get("stream_options") or {})
        ):
            wire.reply(400, json.dumps({"error": {"message": "unknown parameter"}}))
            return
        with truth.lock:
            shown = draw.randint(12, 36) if kind.chunk > 1 else fields.get("max_tokens", 8)
            hidden = draw.randint(*kind.hidden)
        _reply(wire, asked, kind, shown, hidden, truth)

    return script


def _reply(wire: Wire, asked: Asked, kind: Kind, shown: int, hidden: int, truth: Truth) -> None:
    begun = time.monotonic()
    wire.head()
    for at, parts in _events(kind, shown, hidden):
        time.sleep(max(0.0, begun + at - time.monotonic()))
        wire.chunk(*parts)
    ended = time.monotonic()
    counts: dict[str, Any] = {"prompt_tokens": 20, "completion_tokens": shown + hidden}
    if kind.details:
        counts["completion_tokens_details"] = {"reasoning_tokens": hidden}
    wire.chunk(event(id="x", choices=[], usage=counts), DONE)
    wire.end()
    if asked.number is not None:
        with truth.lock:
            truth.whole += ended - begun
            truth.decode += ended - begun - _BEFORE_S - _STEP_S
            truth.steps += shown + hidden
            truth.sent += shown + (hidden if kind.field else 0)


def _events(kind: Kind, shown: int, hidden: int) -> Iterator[tuple[float, list[bytes]]]:
    """(seconds since it came in, what is sent then)."""
    held: list[bytes] = []
    for step in range(1, hidden + shown + 1):
        at = _BEFORE_S + _STEP_S * step
        if step <= hidden and kind.field:
            yield at, [delta(**{kind.field: f"t{step} "})]
        elif step > hidden:
            held.append(f"w{step} ".encode())
            ends = step == hidden + shown
            if ends or (len(held) >= kind.chunk and not kind.whole):
                yield at, [delta(content=b"".join(held).decode())]
                held.clear()


@pytest.mark.parametrize("name", KINDS)
def test_decode_before_the_first_arrival_is_in_the_intervals(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, truth = KINDS[name], Truth()
    # More than the 30 that an interval takes: a busy client may lose the stamps of some.
    with serving(server(kind, truth)) as peer:
        ended = loaded(
            *(tmp_path, peer.url, "--requests", "40", "--concurrency", "4", "--osl", "24")
        )
    assert ended.code in (0, 12), ended.err
    assert run(["diagnose", str(ended.run), "--json"]) == ended.code
    result = json.loads(capsys.readouterr().out)
    shares = result["breakdown"]["mean"]
    decode, true = shares["decode"], truth.decode / truth.whole
    # What the way to the client and back adds to the whole is no part of the server's truth.
    assert decode["lo"] - 0.03 <= true <= decode["hi"] + 0.03, (decode, true)
    verdict = result["verdict"]
    assert verdict["dominant"] in (None, "decode"), verdict["sentence"]
    step = 1e3 * _STEP_S
    tpot = result["metrics"]["tpot"]
    told = tpot["mean"]["value"]
    # Where nobody counts a chunk's tokens, the first chunk's are among those of the time after it.
    least = 0.75 if kind.chunk > 1 else 0.9
    assert told is None or least * step <= told <= 1.15 * step, tpot
    if kind.field or kind.details or name == "several to a chunk":
        assert told is not None
    notes = {caveat["code"]: caveat for caveat in result["caveats"]}
    assert ("LD144" in notes) == (truth.sent < truth.steps or kind.whole), notes.get("LD144")
    if kind.details and not kind.field:
        assert "were not sent" in notes["LD144"]["text"]
        came = result["metrics"]["output_throughput"]["value"] * truth.sent / truth.steps
        assert f"and {came:.0f} tok/s arrived" in notes["LD144"]["remedy"]
