"""Turn the JSON of ``latdiag load`` or ``latdiag probe`` into a Markdown table.

    latdiag load http://localhost:8000/v1 --duration 60s --json | python3 markdown_summary.py

Reads stdin, writes stdout. Exits with 1 when there is no result to show, or it is invalid.
"""

from __future__ import annotations

import json
import sys
from typing import Any

STATISTICS = ("p50", "p90", "p95", "p99", "mean")


def cell(estimate: dict[str, Any] | None) -> str:
    """``212 (206 to 220)``; a dash for what is refused or missing."""
    if not estimate or estimate.get("value") is None:
        return "–"
    text = f"{estimate['value']:.4g}"
    if estimate.get("lo") is not None and estimate.get("hi") is not None:
        text += f" ({estimate['lo']:.4g} to {estimate['hi']:.4g})"
    return text


def plain(text: object) -> str:
    """Text from a server, without what Markdown would act on."""
    return "".join(c if c.isalnum() or c in " .:/-_,;()%" else "·" for c in str(text))[:120]


def table(result: dict[str, Any]) -> str:
    """One row for each metric that has percentiles."""
    rows = [("metric, ms", *STATISTICS), ("---", *["--:"] * len(STATISTICS))]
    for name, metric in result["metrics"].items():
        if any(statistic in metric for statistic in STATISTICS):
            rows.append((name, *(cell(metric.get(statistic)) for statistic in STATISTICS)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    result = json.load(sys.stdin)
    if "error" in result:
        print(f"latdiag: {plain(result['error']['text'])}")
        return 1
    load = result["load"]
    print(
        f"**{plain(result['target']['model'])}**: {load['requests']} requests, {load['ok']} ok\n"
    )
    print(table(result))
    if result["verdict"]:
        print(f"\n{plain(result['verdict']['sentence'])}")
    if not result["valid"]:
        print("\n**INVALID**: the client broke a rule of its self-audit.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
