"""Which stacks show themselves at a URL, by a few GETs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from latdiag.load.look import Glimpse, Headers, Origin, beside, look, origin_of
from latdiag.load.trust import Trust
from latdiag.load.work.place import locate
from latdiag.model.errors import TargetFault
from latdiag.model.text import shown, without_credentials
from latdiag.stacks import detect
from latdiag.store.header import StackShown

#: What every server is asked for, in this order.
PATHS = ("/v1/models", "/metrics", "/version")
_REMEDIES = {
    "dns": "check the host name",
    "refused": "check that the server is running, and its port",
    "tls": "check the certificate; --insecure skips verification",
    "timeout": "check that the host can be reached from this machine",
}
_WHY = {
    "dns": "its name cannot be resolved",
    "refused": "it refuses the connection",
    "tls": "the TLS handshake failed",
    "timeout": "it did not answer within 5 s",
    "protocol": "it does not speak HTTP",
}


def stacks_at(url: str, headers: Headers, trust: Trust) -> tuple[StackShown, ...]:
    """The stacks at a URL that is known to answer: what a guess could be measured with."""
    base, _, _ = locate(url, None)
    signs = signs_of(look([(beside(base, path), headers) for path in PATHS], trust))
    return tuple(
        StackShown(
            one.stack.name,
            shown(one.version, 60) if one.version else None,
            "; ".join(shown(each, 80) for each in one.because[:4]),
        )
        for one in detect.detect(signs)
    )


def glimpses_of(
    url: str,
    headers: Headers,
    metrics: Sequence[str],
    trust: Trust,
    metrics_headers: Mapping[Origin, Headers] | None = None,
) -> tuple[list[Glimpse], str]:
    """What the server at ``url`` answers, what stands at ``metrics``, and its base URL.

    ``headers`` go to the origin of ``url`` alone, ``metrics_headers`` to ``metrics`` of theirs.

    TargetFault where it answers nothing, UsageFault for no URL.
    """
    base, _, _ = locate(url, None)
    others = [_scrape_url(each) for each in metrics]
    by_origin = {origin_of(base): headers, **(metrics_headers or {})}
    asked = [(beside(base, path), headers) for path in PATHS]
    asked += [(each, by_origin.get(origin_of(each), ())) for each in others]
    glimpses = look(asked, trust)
    first = glimpses[0]
    if not first.status:
        raise TargetFault(
            f"{without_credentials(first.url)} could not be read: "
            f"{_WHY.get(first.fault, first.fault)}",
            _REMEDIES.get(
                first.fault,
                "check scheme and port: this may not be an HTTP server",
            ),
        )
    if first.status in (401, 403) and all(each.status != 200 for each in glimpses):
        where, keyed = without_credentials(first.url), any(map(_is_key, headers))
        what = "refuses the key" if keyed else "requires an API key"
        raise TargetFault(
            f"{where} {what}: HTTP {first.status}",
            "check the key in the variable that --api-key-env or --header-env names"
            if keyed
            else "give the name of the variable that holds the key: --api-key-env NAME",
        )
    return glimpses, base


def _is_key(header: tuple[str, str]) -> bool:
    return any(word in header[0].lower() for word in ("authorization", "key", "token"))


def _scrape_url(text: str) -> str:
    """``host:9090`` and ``http://host:9090`` mean its ``/metrics``; UsageFault for no URL."""
    whole = text if "://" in text else f"http://{text}"
    locate(whole, None)  # says what is wrong with it
    parts = urlsplit(whole)
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/metrics", parts.query, ""))


def signs_of(glimpses: Sequence[Glimpse]) -> detect.Signs:
    """The signs in the replies to ``PATHS`` and further scrapes."""
    models, own, version, *others = glimpses
    scrapes = [each for each in (own, *others) if each.status == 200 and not each.fault]
    # Metrics behind a key or a redirect are not off.
    looked = (
        {"metrics"} if all(each.status in (200, 404, 405) for each in (own, *others)) else set()
    )
    return detect.Signs(
        models=detect.of_models(_document(models)),
        headers=frozenset().union(*(detect.of_headers(each.headers) for each in glimpses)),
        metrics=frozenset().union(*(detect.of_exposition(each.text) for each in scrapes)),
        versions=detect.of_version(_document(version)),
        looked=frozenset(looked),
    )


def _document(glimpse: Glimpse) -> object:
    if glimpse.status != 200:
        return None
    try:
        return json.loads(glimpse.text)
    except (ValueError, RecursionError):
        return None
