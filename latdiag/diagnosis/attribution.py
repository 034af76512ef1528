"""Everything that is said of where the time went: rows in, breakdowns and a verdict out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.laws import explain as blackbox
from latdiag.attribution.laws.admission import admitted
from latdiag.diagnosis.breakdown import breakdown, leaves
from latdiag.diagnosis.health import health
from latdiag.diagnosis.verdict import Case, verdict
from latdiag.model.units import ms

if TYPE_CHECKING:
    from latdiag.attribution.laws.laws import Laws
    from latdiag.attribution.parts import Parts
    from latdiag.measurement.observations import Observations

#: What evidence of a request's own must tell apart to be better than that of all together.
_PHASES = ("queue", "prefill")
POPULATIONS = ("mean", "p95_tail")
#: Input lengths at which a law is shown, tokens.
_SHOWN_AT = (128, 512, 1024)
_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Rungs:
    """The workload as servers tell it, None where they do not. ``spoken``: by the spans of each
    request; ``replied``: in the reply to each; ``scraped``: by metrics of all together."""

    spoken: Parts | None = None
    replied: Parts | None = None
    scraped: Parts | None = None


@dataclass(frozen=True, slots=True)
class Attribution:
    """The entries of ``--json``. ``learned``: the laws behind them, None without a probe."""

    breakdown: dict[str, Any]
    leaves: dict[str, Any]
    by: dict[str, Any]
    verdict: dict[str, Any]
    learned: dict[str, Any] | None
    claims: dict[str, list[dict[str, Any]]]
    parts: Parts


def attribute(
    whole: Parts,
    seen: Observations | None,
    valid: bool,
    failed: float = 0.0,
    servers: Rungs = Rungs(),
) -> Attribution:
    """``whole``: the workload as any load proves it. ``seen``: all rows of a designed probe.
    ``failed``: share of the workload's requests that failed.

    The best rung is used: servers before a probe, a probe before the client alone. Metrics come
    after a probe, since those that were scraped around one are not of the workload; and so do
    replies that do not tell queue from prefill. What a rung cannot tell stays merged as in the
    one below.
    """
    explained = blackbox.explain(seen) if seen is not None else None
    probed, laws = explained if explained is not None else (whole, None)
    probe = probed if laws is not None else None
    parts, *lower = _rungs(servers, probe, whole)
    shares = _populations(parts, "client_e2e")
    fine = {p: found for p in POPULATIONS if p in shares and (found := leaves(parts, p))}
    others = ("client_ttft", "decode") if parts.interval == "client_e2e" else ()
    by = {interval: _populations(parts, interval) for interval in others}
    well = health(seen, probed) if seen is not None and laws is not None else None
    limit = admitted(seen) if seen is not None else None
    return Attribution(
        breakdown=shares,
        leaves=fine,
        by=by,
        verdict=verdict(Case(shares, parts, valid, fine, well, failed, limit)),
        learned=_learned(laws, seen) if laws is not None and seen is not None else None,
        claims=_claims(shares, [_populations(each, "client_e2e") for each in lower]),
        parts=parts,
    )


def _rungs(servers: Rungs, probe: Parts | None, whole: Parts) -> list[Parts]:
    """What there is, the best first."""
    said = servers.replied
    parted = said is not None and all(
        name in said.parts and not said.sources[name].members for name in _PHASES
    )
    best = (servers.spoken, said if parted else None, probe, servers.scraped)
    rungs = (*best, None if parted else said, whole)
    return [each for each in rungs if each is not None]


def _populations(parts: Parts, interval: str) -> dict[str, Any]:
    found = {population: breakdown(parts, interval, population) for population in POPULATIONS}
    return {population: entry for population, entry in found.items() if entry is not None}


def _claims(
    best: Mapping[str, Any], bounds: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Per component every statement that evidence makes of it: the one used, and those that lost.

    What the client alone proves of everything behind the hop holds whatever else is said.
    """
    claims: dict[str, list[dict[str, Any]]] = {}
    for entries, used in ((best, True), *((each, False) for each in bounds)):
        for population, shares in entries.items():
            for name, entry in shares.items():
                if not isinstance(entry, dict):
                    continue
                if not used and "members" not in entry and _same(best, population, name, entry):
                    continue
                for member in entry.get("members") or [name]:
                    claims.setdefault(member, []).append(_claim(population, name, entry, used))
    return claims


def _claim(population: str, name: str, entry: Mapping[str, Any], used: bool) -> dict[str, Any]:
    merged = bool(entry.get("members"))
    lost = "a lower rung: more is merged in it" if merged else "a lower rung of evidence"
    return {
        "population": population,
        "of": entry.get("members") or [name],
        "share": entry["share"],
        "lo": entry["lo"],
        "hi": entry["hi"],
        "grade": entry["grade"],
        "evidence": entry["evidence"],
        "used": used,
        "why": None if used else lost,
    }


def _same(best: Mapping[str, Any], population: str, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a bound says nothing that the used claim does not say."""
    other = (best.get(population) or {}).get(name)
    said = ("sum_ns", "grade")  # of another rung it is another witness
    return isinstance(other, dict) and all(other[key] == entry[key] for key in said)


# ---------------------------------------------------------------------- what the probe learned
def _learned(laws: Laws, seen: Observations) -> dict[str, Any]:
    """The laws in words of the field, with 95 % intervals where the laws were drawn again."""
    tokens = np.array(_SHOWN_AT)
    random = np.random.default_rng(1)
    again = laws.drawn(random, _DRAWS)
    prefill = _band(laws.own.at(tokens), [each.own.at(tokens) for each in again])
    found: dict[str, Any] = {
        "alone_ms": [{"isl": int(n), **band} for n, band in zip(_SHOWN_AT, prefill, strict=True)],
        "alone_n": len(laws.own.tokens),
        "step_ms": ms(laws.step.base),
        "step_per_stream_ms": ms(laws.step.stream),
        "step_per_1000_context_ms": ms(1000 * laws.step.context),
        "step_blocks": laws.step.n,
        "let_in": admitted(seen),
        "prefill_stops_decode": laws.sharing.verdict,
        "prefill_stops_decode_share": laws.sharing.lost if laws.sharing.n else None,
        "prefill_pause_share": laws.sharing.pause if laws.sharing.n else None,
        "connect_ms": _middle(seen.connect),
        "round_trip_ms": _middle(seen.trip),
        "bursts_ms": ms(laws.bursts_ns) if laws.bursts_ns else None,
        "path_ms": None,
        "frontend_ms": None,
        "transfer_ms": None,
    }
    if laws.path is not None:
        floors = [[each.path.floor_ns] for each in again if each.path is not None]
        (band,) = _band(np.array([laws.path.floor_ns]), [np.array(each) for each in floors])
        found["path_ms"] = {**band, "n": len(laws.path.values), "is_way": laws.path.is_way}
    if laws.frontend is not None:
        parse = [each.frontend.at(tokens) for each in again if each.frontend is not None]
        bands = _band(laws.frontend.at(tokens), parse)
        found["frontend_ms"] = [
            {"isl": int(n), **band} for n, band in zip(_SHOWN_AT, bands, strict=True)
        ]
    if laws.transfer is not None:
        found["transfer_ms"] = {
            "value": ms(laws.transfer.extra_ns),
            "per_1000_tokens": ms(1000 * laws.transfer.per_token_ns),
            "n": laws.transfer.n,
            "proven": laws.transfer.proven,
        }
    return found


def _middle(values: NDArray[np.int64] | None) -> dict[str, float] | None:
    """Median and range, ms, of what is known (-1 is not); None where nothing is."""
    known = values[values >= 0] if values is not None else np.zeros(0)
    if not len(known):
        return None
    lo, middle, hi = (ms(float(v)) for v in np.quantile(known, [0.0, 0.5, 1.0]))
    return {"value": middle, "least": lo, "most": hi, "n": len(known)}


def _band(
    values: np.ndarray[Any, Any], again: list[np.ndarray[Any, Any]]
) -> list[dict[str, float]]:
    lo, hi = np.quantile(np.array(again), [0.025, 0.975], axis=0)
    return [
        {"value": ms(float(v)), "lo": ms(float(a)), "hi": ms(float(b))}
        for v, a, b in zip(values, lo, hi, strict=True)
    ]
