"""The verdict on a run that asked for more than the server finishes."""

from __future__ import annotations

from latdiag.diagnosis.result import Verdict
from latdiag.measurement.backlog import Backlog
from latdiag.model.units import GLUE, quantity

_WORDS = {"ttft": "TTFT", "e2e": "E2E"}


#: A verdict on more than the server finishes says how many more it takes, not that one helps.
_ONE_MORE = ", or add a replica"


def overloaded(
    found: Backlog,
    population: str,
    dominant: str | None = None,
    where: str = "",
    following: str = "",
    one_rate: bool = False,
) -> Verdict:
    """``dominant``: the component that leads, if one does; ``where``: a sentence on it, and
    ``following``: what to do about it. ``one_rate``: all streams together get the same tokens/s,
    as under a limit of an account, which more servers do not lift."""
    return Verdict(
        dominant,
        population,
        "measured",
        "overloaded",
        " ".join(filter(None, (sentence(found), where))),
        f"{advice(found, one_rate)} {following.replace(_ONE_MORE, '')}".rstrip(),
    )


def sentence(found: Backlog) -> str:
    """What is asked, what is finished, what grows, and what that makes of the percentiles."""
    grew = _WORDS[found.grew]
    first, last = (
        quantity(value, "ms").replace(GLUE, " ") for value in (found.first_ms, found.last_ms)
    )
    return (
        f"The server finishes {rate(found.served_rate)}/s [{rate(found.served_lo)},"
        f" {rate(found.served_hi)}] of the {rate(found.offered_rate)}/s that are sent. {grew} grew"
        f" from {first} to {last} in {found.sent_s:.0f} s, so percentiles and means depend on how"
        " long this run lasted."
    )


def advice(found: Backlog, one_rate: bool = False) -> str:
    """What to ask, or how many servers more it takes."""
    most = f"Send at most {found.bearable_rate:.3g}/s"
    more = f"{found.more_replicas} replica{'s' * (found.more_replicas > 1)} like this one"
    if one_rate:
        limit = "If a limit on tokens per second holds it back, raise that"
        return f"{most}. {limit}; if not, add {more}."
    return f"{most}, or add {more}."


def rate(value: float) -> str:
    """Requests/s, three digits."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:#.3g}".rstrip(".")
