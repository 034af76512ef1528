"""What each piece of time rests on, and what excludes a component from it.

One table of exclusions, so that "what excludes X here?" has an answer for every component X and
every piece, and a test can ask it (``tests/unit/test_pieces.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws.laws import Laws
from latdiag.attribution.laws.line import Line
from latdiag.attribution.laws.path import HTTP_LAYER_NS
from latdiag.attribution.laws.pauses import Pauses
from latdiag.attribution.laws.pieces import BEFORE_FIRST, Piece, piece
from latdiag.attribution.ledger import Origin

#: Tokens that the step law says were made before the first arrival.
MADE = Origin(
    "C", "decode steps before the first arrival: tokens that came with it, or were never sent"
)

_NO_GATEWAY = "no GET, refused POST, burst or constant shows a gateway"
_ONE_ENGINE = "prompts slow running streams: prefill and decode share an engine"
_SEEN_LATE = "the second token shows the transfer"
_WORKING = "running streams show when the engine works on a prompt"
_TOKENISED = "refused POSTs grow with the prompt: that part is taken off"
_QUICK_GETS = "cheap GETs take no longer beside the workload"
_QUICK_POSTS = "refused POSTs take no longer beside the workload"
_KNOWN = "refused in the words of an engine whose frontend keeps nobody waiting"
_CONSTANT = "the same for a request alone, whatever came before"
_TURNS = "of two prompts at once the first is as fast as alone, and so is one beside streams"
_PUSHED_OUT = "other streams go on, and it pauses for as long as computing it again takes"
#: Who is no part of a wait takes so much of it longer at most.
_QUICK = 0.25
#: What is more than this share of the whole is too much for an interval to hold.
_LARGE = 0.1
#: Running streams may add so much to a prompt's own work without being a part of its prefill.
_BESIDE = 0.1


def gateway_shows(laws: Laws) -> bool:
    """Whether anything was seen that a gateway would explain."""
    return laws.way_ns > 0 or laws.at_once or _holds_posts(laws)


def pieces_of(
    laws: Laws,
    columns: Mapping[str, NDArray[np.int64]],
    gaps: NDArray[np.float64],
    paced: NDArray[np.int64],
    line: Line | None = None,
    pauses: Pauses | None = None,
) -> list[Piece]:
    """All pieces of the workload's rows whose owner may be in doubt, and those of one suspect.

    ``paced``: ns of each stream that whoever sends events one by one may have taken.
    """
    # One rate for all streams may be a limit before the engine, which makes all else wait as well.
    limited = laws.pacing is not None or laws.one_rate
    gateway = {} if gateway_shows(laws) or limited else {"gateway": _NO_GATEWAY}
    link = {"interconnect": _ONE_ENGINE} if laws.sharing.verdict == "shared" else {}
    if laws.transfer is not None:
        link = {"interconnect": _SEEN_LATE}
    prompt = link | {"queue": _CONSTANT}
    if laws.before is not None:
        prompt |= dict.fromkeys(("gateway", "frontend", "interconnect"), _WORKING)
    elif _read(laws):
        prompt |= {"frontend": _TOKENISED, "gateway": _TOKENISED}
    # What holds tokens back or sends them one by one makes the first one wait as well.
    delayed = limited or laws.delivery.held is not None
    waits = float((columns["full"] + columns["wait"]).mean()) if len(paced) else 0.0
    loaded = _excluded_by_load(laws, waits, line)
    crowd = {} if delayed else loaded | gateway
    # Whoever lets so many in at once may let a refused POST pass, unless it was refused behind.
    places = loaded if _passed(laws) and not delayed else {}
    read = {"gateway": _TOKENISED, "frontend": _TOKENISED} if _read(laws) else {}
    early = BEFORE_FIRST | ({"decode"} if laws.at_once else frozenset())
    waited = _who_waits(laws, columns, waits)
    found = [
        piece("way", columns["way"], {}, ("network",), ("network", "gateway")),
        piece("refusal", columns["refusal"], gateway, ("frontend",), ("frontend", "gateway")),
        piece(
            "before",
            columns["before"],
            gateway,
            ("frontend", "queue"),
            ("gateway", "frontend", "queue"),
        ),
        piece(
            "launch", columns["launch"], _let_go(laws, gateway | link | read), ("prefill",), early
        ),
        piece("prompt", columns["prompt"], _let_go(laws, gateway | prompt), ("prefill",), early),
        piece("crowd", columns["crowd"], gateway, ("frontend",), ("gateway", "frontend")),
        piece("door", columns["door"], _keeps_door(laws), ("gateway",), ("gateway", "frontend")),
        piece("misfit", columns["misfit"], gateway | link, ("queue",), waited),
        piece("full", columns["full"], places, ("queue",), ("queue", "gateway")),
        piece("wait", columns["wait"], crowd | link | _in_turn(laws), ("queue",), waited),
    ]
    late = _after_the_first(laws, columns, gaps)
    if pauses is not None:
        late.append(_lone(columns.get("lone", pauses.lone), pauses.preempts))
    among = ("decode", "gateway", "frontend")
    return [*found, *late, piece("paced", paced, {}, ("decode",), among)]


def _who_waits(
    laws: Laws, columns: Mapping[str, NDArray[np.int64]], waits: float
) -> frozenset[str]:
    """Whose stream is over with its first arrival was slowed by others before it. ``waits``: ns,
    the mean."""
    whole = sum(float(ns.mean()) for ns in columns.values()) if waits else 0.0
    slowed = laws.unseen and waits > _LARGE * whole
    return BEFORE_FIRST | ({"decode"} if slowed else frozenset())


def _after_the_first(
    laws: Laws, columns: Mapping[str, NDArray[np.int64]], gaps: NDArray[np.float64]
) -> list[Piece]:
    """The pieces of the stream that are found by their place in it."""
    found = []
    if laws.transfer is not None:
        both = ("interconnect", "decode") if not laws.transfer.proven else ("interconnect",)
        late = columns.get("interconnect", np.maximum(np.rint(gaps), 0).astype(np.int64))
        found.append(piece("interconnect", late, {}, both[-1:], both))
    found.append(piece("end", columns["end"], {}, ("frontend",), ("gateway", "frontend")))
    if "held" in columns:
        found.append(piece("held", columns["held"], {}, ("gateway",), ("gateway",)))
    return found


def _lone(ns: NDArray[np.int64], preempts: bool) -> Piece:
    """Who is pushed out of the batch waits again, and is computed again."""
    excluded = {"decode": _PUSHED_OUT} if preempts else {}
    return piece("lone", ns, excluded, ("decode", "queue"), ("queue", "prefill", "decode"))


def _excluded_by_load(laws: Laws, waits: float, line: Line | None) -> dict[str, str]:
    """Whom GETs and refusals beside the workload exclude from what requests wait for: what these
    took more is a piece of its own. ``waits``: ns that a request waits on average; these must be
    quick beside it, all of them or each at its moment."""
    loaded = laws.loaded
    most = max(_QUICK * waits, HTTP_LAYER_NS)
    quick = loaded is not None and loaded.room_ns <= most
    posts = quick and loaded is not None and loaded.post_ns is not None
    posts = posts or (line is not None and line.hi <= _QUICK)
    if posts and (_passed(laws) or not _holds_posts(laws)):
        return {"gateway": _QUICK_POSTS, "frontend": _QUICK_POSTS}
    return {"frontend": _QUICK_GETS} if quick and not gateway_shows(laws) else {}


def _read(laws: Laws) -> bool:
    """Whether refused POSTs were read first."""
    return laws.refusals is not None and laws.refusals.curve is not None


def _let_go(laws: Laws, excluded: dict[str, str]) -> dict[str, str]:
    """Whoever lets a reply go when it is whole may be before the server, or its frontend, however
    quick they were with the request."""
    held = ("gateway", "frontend") if laws.at_once else ()
    return {name: why for name, why in excluded.items() if name not in held}


def _keeps_door(laws: Laws) -> dict[str, str]:
    """The engines that are known by their words take all who come at once."""
    known = laws.refusals is not None and laws.refusals.engine
    return {"frontend": _KNOWN} if known else {}


def _passed(laws: Laws) -> bool:
    """Whether refused POSTs came as far as the server: they were read, or refused in its words."""
    return laws.refusals is not None and laws.refusals.behind


def _holds_posts(laws: Laws) -> bool:
    """Whether something before the server shows that a GET does not meet."""
    refused = laws.refusals.constant_ns if laws.refusals is not None else 0.0
    before = laws.before.constant_ns if laws.before is not None else laws.launch_ns
    crowd = laws.loaded.most_ns if laws.loaded is not None else 0.0
    return max(refused, before) > HTTP_LAYER_NS or crowd > 0 or laws.delivery.bursts_ns > 0


def _in_turn(laws: Laws) -> dict[str, str]:
    """Whether prompts that meet wait for each other, and streams do not slow them."""
    turns = laws.turns
    quick = turns.beside is not None and turns.beside <= _BESIDE
    return {"prefill": _TURNS} if turns.in_turn and quick else {}


# ---------------------------------------------------------------------- what they rest on
def _way(laws: Laws, _piece: Piece) -> Origin:
    n = len(laws.path.values) if laws.path is not None else 0
    return Origin("C", f"and {n} cheap GETs (S1), which take longer than an HTTP layer does")


def _refusal(_laws: Laws, _piece: Piece) -> Origin:
    return Origin(
        "C",
        "refused requests of growing length (S1): a lower bound, because a request may be refused"
        " before the frontend is done",
    )


def _before(laws: Laws, _piece: Piece) -> Origin:
    n = len(laws.before.values) if laws.before is not None else 0
    return Origin("C", f"{n} prompts beside running streams (S8), which slow down later")


def _prompt(_laws: Laws, each: Piece) -> Origin:
    grade = "E" if len(each.suspects) > 1 else "C"
    return Origin(grade, "designed prompts, alone (S3, S5), by input length")


def _launch(_laws: Laws, _piece: Piece) -> Origin:
    return Origin("E", "what the shortest prompt takes alone beyond a step and a refusal (S3)")


def _crowd(_laws: Laws, _piece: Piece) -> Origin:
    return Origin("C", "GETs and refused requests beside the workload (S7)")


def _door(_laws: Laws, _piece: Piece) -> Origin:
    return Origin("C", "refused requests that wait as long as those beside them for a place (S7)")


def _misfit(_laws: Laws, _piece: Piece) -> Origin:
    return Origin("E", "requests that met no other take longer than the laws of S3 say")


def _wait(_laws: Laws, each: Piece) -> Origin:
    return Origin(
        "C",
        "time to the first token beyond what the same prompt takes alone: admission and other"
        " requests' work",
    )


def _end(_laws: Laws, _piece: Piece) -> Origin:
    return Origin(
        "C",
        "from the last token to the end of the stream, more than a step or the network explain",
    )


def _held(laws: Laws, _piece: Piece) -> Origin:
    period = laws.delivery.bursts_ns / 1e6
    return Origin("C", f"tokens that wait for a burst, about each {period:.0f} ms")


def _preempted(_laws: Laws, _piece: Piece) -> Origin:
    return Origin(
        "C",
        "pauses of one stream while others go on, no shorter than computing it again takes:"
        " preemption",
    )


def _interconnect(laws: Laws, _piece: Piece) -> Origin:
    n = laws.transfer.n if laws.transfer is not None else 0
    return Origin(
        "C",
        "from the first token to the second, beyond one step; seen alone in"
        f" {n} designed requests too (S3, S5)",
    )


PIECES: Mapping[str, Callable[[Laws, Piece], Origin]] = {
    "way": _way,
    "refusal": _refusal,
    "before": _before,
    "launch": _launch,
    "prompt": _prompt,
    "crowd": _crowd,
    "door": _door,
    "misfit": _misfit,
    "full": _wait,
    "wait": _wait,
    "end": _end,
    "held": _held,
    "lone": _preempted,
    "interconnect": _interconnect,
}
