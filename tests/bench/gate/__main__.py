"""``python -m tests.bench.gate``: the table of G1-G11, the gate beside what others do.

::

    python -m tests.bench.gate --runs 10000          # A/A, spread over the regimes
    python -m tests.bench.gate --power 400           # power rows, so many runs each
"""

from __future__ import annotations

import argparse

from .table import false_alarms, power, wrongly_safe


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(prog="tests.bench.gate", description=__doc__)
    parser.add_argument("--runs", type=int, default=0, help="A/A runs, over all regimes")
    parser.add_argument("--power", type=int, default=0, help="runs of each row of power")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    asked = parser.parse_args()
    if asked.runs:
        for margin, alpha in ((0.03, 0.005), (0.0, 0.005)):
            lines, _ = false_alarms(asked.runs, margin, alpha, asked.seed)
            print("\n".join(lines), flush=True)
    if asked.power:
        safe = wrongly_safe(asked.power, asked.seed + 900_000)
        wrong = safe.safe_checks["tpot.shift"]
        print(f"TPOT slower by the tolerance is called OK in {wrong} of {safe.runs}", flush=True)
        for margin, alpha in ((0.0, 0.01), (0.03, 0.005)):
            for line in power(asked.power, margin, alpha, asked.seed):
                print(line, flush=True)


if __name__ == "__main__":
    main()
