"""``python -m latdiag.dashboards FOLDER``: write the dashboards and the rules."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from latdiag.dashboards.dynamo import DYNAMO
from latdiag.dashboards.gateways import GATEWAYS
from latdiag.dashboards.overview import OVERVIEW
from latdiag.dashboards.rules import Targets, document
from latdiag.dashboards.sglang import SGLANG
from latdiag.dashboards.tensorrt_llm import TENSORRT_LLM
from latdiag.dashboards.vllm import VLLM

DASHBOARDS = (OVERVIEW, VLLM, SGLANG, TENSORRT_LLM, DYNAMO, GATEWAYS)
RULES = "latdiag.rules.yaml"
_USUAL = Targets()


def files(targets: Targets) -> Iterator[tuple[str, str]]:
    """(name, text) of each file."""
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.document(), indent=1, ensure_ascii=False)
        yield f"{dashboard.uid}.json", text + "\n"
    yield RULES, document(targets)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m latdiag.dashboards",
        description="Write Grafana dashboards and Prometheus rules for latdiag watch.",
    )
    parser.add_argument("folder", type=Path, help="where to write; existing files are replaced")
    parser.add_argument(
        "--ttft-target",
        type=float,
        default=_USUAL.ttft_s,
        metavar="SECONDS",
        help="the first token should come within this time (default: %(default)s)",
    )
    parser.add_argument(
        "--objective",
        type=float,
        default=_USUAL.objective,
        metavar="SHARE",
        help="share of requests that should make it (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    try:
        targets = Targets(given.ttft_target, given.objective)
        given.folder.mkdir(parents=True, exist_ok=True)
        for name, text in files(targets):
            (given.folder / name).write_text(text, encoding="utf-8")
    except (ValueError, OSError) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
