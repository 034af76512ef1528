"""How wrong the client is, at what cost, beside other tools: one table, and the goals.

``pytest -m bench tests/bench/client/test_accuracy.py -s``. Alone on the machine, as root where
the server shall have real-time priority. LATDIAG_BENCH_RUNS (3), LATDIAG_BENCH_PEERS=0 to leave
the peers out, LATDIAG_BENCH_OUT=FILE for all outcomes as JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import peers
from .board import READER, Board, Goal
from .harness import Client, Load, Setting, run_valid, stop_and_go

pytestmark = pytest.mark.bench

RUNS = int(os.environ.get("LATDIAG_BENCH_RUNS", "3"))
FREE = ("--ttft-spread-ms", "20")
LOCKSTEP = ("--lockstep-ms", "20")

SMALL, MIDDLE, LARGE = Load(10, 120), Load(100, 800), Load(400, 4000, ramp_s=1.0)
STALLED = Load(200, 1600)
PREFLIGHT = 8

#: Settings that peers run too.
SHARED = (
    Setting("10 free", SMALL, FREE),
    Setting("100 free", MIDDLE, FREE),
    Setting("400 free", LARGE, FREE),
    Setting("100 lockstep", MIDDLE, LOCKSTEP),
)
OWN = (
    Setting("10 lockstep", SMALL, LOCKSTEP),
    Setting("400 lockstep", LARGE, LOCKSTEP),
    Setting("100 role early", MIDDLE, (*FREE, "--role", "early")),
    Setting("100 no role", MIDDLE, (*FREE, "--role", "none")),
    Setting("100 headers withheld", MIDDLE, (*FREE, "--headers", "withheld")),
    Setting("100 4 tokens/chunk", Load(100, 800, 200), (*FREE, "--tokens-per-chunk", "4")),
    Setting("100 end apart", MIDDLE, (*FREE, "--tail", "separate")),
    Setting("100 TLS", MIDDLE, FREE, tls=True),
    Setting("400 TLS", LARGE, FREE, tls=True),
)
ONE_READER = Setting("600 one reader", Load(600, 6000, ramp_s=2.0), FREE)
#: latdiag's readers take real-time priority where the server is near and they may (``auto``);
#: these rows show it without.
ORDINARY = (Setting("100 ordinary", MIDDLE, FREE), Setting("400 ordinary", LARGE, FREE))
SIGNALS = Setting("200 stopped", STALLED, FREE, disturb=stop_and_go(READER, 0.05, 0.15))


def say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


@pytest.fixture(scope="module")
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """Filled by the tests of this file, printed when the last has run."""
    made = Board()
    yield made
    if not made.rows:
        return
    capture = request.config.pluginmanager.getplugin("capturemanager")
    lines = [made.table(), *ratios(made), *(g.line() for g in goals(made))]
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join(lines))
    if "LATDIAG_BENCH_OUT" in os.environ:
        made.store(Path(os.environ["LATDIAG_BENCH_OUT"]))


def measure(board: Board, client: Client, setting: Setting, folder: Path) -> None:
    for run in range(RUNS):
        outcome = run_valid(client, setting, folder / f"run{run}", say)
        board.add(setting.name, client.name, outcome)
        say(f"{setting.name}, {client.name}, run {run + 1}: exit {outcome.exit_code}")


def check_join(board: Board, setting: Setting) -> None:
    """Accuracy means nothing unless every reply was found, once, and whole."""
    outcomes = board.valid(setting.name, "latdiag")
    assert outcomes, "no valid run"
    for outcome in outcomes:
        assert outcome.exit_code in (0, 12), outcome.notes
        scores = outcome.scores
        assert scores is not None, outcome.notes
        assert (scores.unmatched, scores.duplicates, scores.length_mismatches) == (0, 0, 0)
        # Requests that size the prompts, or ask what the server can do, are no part of the run.
        assert scores.not_seen <= PREFLIGHT
        assert scores.matched == setting.load.requests


@pytest.mark.parametrize("setting", [*SHARED, *OWN], ids=lambda s: s.name)
def test_latdiag(board: Board, setting: Setting, tmp_path: Path) -> None:
    measure(board, peers.Latdiag(*tls_options(setting)), setting, tmp_path)
    check_join(board, setting)


def test_one_reader(board: Board, tmp_path: Path) -> None:
    measure(board, peers.Latdiag("--workers", "1"), ONE_READER, tmp_path)
    check_join(board, ONE_READER)


@pytest.mark.parametrize("setting", ORDINARY, ids=lambda s: s.name)
def test_ordinary_priority(board: Board, setting: Setting, tmp_path: Path) -> None:
    measure(board, peers.Latdiag("--priority", "ordinary"), setting, tmp_path)
    check_join(board, setting)


def test_stalled_reader(board: Board, tmp_path: Path) -> None:
    measure(board, peers.Latdiag("--workers", "1"), SIGNALS, tmp_path)
    check_join(board, SIGNALS)
    for outcome in board.valid(SIGNALS.name, "latdiag"):
        assert outcome.scores is not None
        # Without a stall this row would prove nothing: 50 ms hold at least two 20 ms gaps.
        assert outcome.scores.censored_share > 0.02, "the reader was not stalled"


@pytest.mark.parametrize("setting", SHARED, ids=lambda s: s.name)
@pytest.mark.parametrize("peer", peers.installed(), ids=lambda p: p.name)
def test_peer(board: Board, peer: Client, setting: Setting, tmp_path: Path) -> None:
    measure(board, peer, setting, tmp_path)
    outcomes = board.valid(setting.name, peer.name)
    assert outcomes and all(o.scores and o.scores.matched for o in outcomes)


def test_goals(board: Board) -> None:
    """Last: judges what the rows above measured."""
    missed = [g.line() for g in goals(board) if not g.met]
    assert not missed, "\n".join(missed)


def tls_options(setting: Setting) -> tuple[str, ...]:
    return ("--insecure",) if setting.tls else ()


def ratios(board: Board) -> list[str]:
    """latdiag against the best peer of the same setting."""
    lines = []
    for setting in SHARED:
        for ours, theirs in RATIOS:
            own = board.named(setting.name, "latdiag", ours)
            peer = board.best_peer(setting.name, theirs)
            if own and peer:
                lines.append(
                    f"{setting.name}, {ours}: {peer[0]} {peer[1]:,.1f} / latdiag {own:,.1f}"
                    f" = {peer[1] / own:,.1f}x"
                )
    for client in dict.fromkeys(c for _, c in board.rows):
        marginal = board.marginal_us("10 free", "400 free", client)
        if marginal is not None:
            lines.append(f"marginal CPU a chunk, all processes of {client}: {marginal:.1f} us")
    return lines


#: (figure of latdiag, figure of a peer): a peer's TTFT begins with its own start.
RATIOS = (
    ("ITL p99", "ITL p99"),
    ("TTFT p99", "user p99"),
    ("user p99", "user p99"),
    ("TPOT p99", "TPOT p99"),
    ("all us/ch", "all us/ch"),
    ("tree MB", "tree MB"),
    ("first s", "first s"),
)


def goals(board: Board) -> list[Goal]:
    """The figures that this client is held to; only of settings that ran."""

    def of(setting: str, name: str) -> float | None:
        return board.named(setting, "latdiag", name)

    found = []
    for setting, name, limit in LIMITS:
        if (setting, "latdiag") in board.rows:
            found.append(Goal(f"{setting}: {name}", limit, of(setting, name)))
    if (ONE_READER.name, "latdiag") in board.rows:
        rate = of(ONE_READER.name, "got/s")
        found.append(Goal(f"{ONE_READER.name}: got/s", 25_000, rate, at_least=True))
    if {("10 free", "latdiag"), ("400 free", "latdiag")} <= set(board.rows):
        for role, limit in ((READER, 35.0), ("", 70.0)):
            value = board.marginal_us("10 free", "400 free", "latdiag", role)
            found.append(Goal(f"marginal CPU us a chunk, {role or 'all'}", limit, value))
    return found


LIMITS = (
    ("100 free", "ITL p99", 50.0),
    ("100 free", "cens %", 0.5),
    ("100 free", "TTFT p99", 100.0),
    ("100 free", "rd MB", 80.0),
    ("100 free", "tree MB", 250.0),
    ("100 free", "first s", 1.0),
    ("100 lockstep", "ITL p99", 50.0),
    ("100 lockstep", "TTFT p99", 100.0),
    ("400 free", "ITL p99", 50.0),
    ("400 free", "late %", 0.1),
    ("400 lockstep", "ITL p99", 50.0),
    ("100 TLS", "ITL p99", 50.0),
    ("600 one reader", "ITL p99", 50.0),
    ("600 one reader", "late %", 1.0),
    ("200 stopped", "ITL p99", 50.0),
    ("200 stopped", "ITL max", 2000.0),
    ("200 stopped", "cens %", 40.0),
)
