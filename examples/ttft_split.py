"""Every request of a run on a line of JSON: its TTFT split into client, network and server.

    python examples/ttft_split.py NAME.run > split.jsonl

Times are integer nanoseconds; ``client + network + server`` is the TTFT, exactly. The network lies
in ``[network_lo_ns, network_hi_ns]``; what it gives or takes there, the server takes or gives.
"""

import json
import sys

from latdiag.measurement.ttft_split import COLUMNS, split
from latdiag.store.run import Run

PARTS = ("client", "network", "network_lo", "network_hi", "server", "connect")

if len(sys.argv) < 2:
    sys.exit(__doc__)
for batch in Run.open(*sys.argv[1:]).batches(list(COLUMNS)):
    parts = split(batch)
    for place, row in enumerate(parts.row.tolist()):
        line = {"response_id": batch.texts["response_id"][row]}
        line |= {f"{name}_ns": int(getattr(parts, name)[place]) for name in PARTS}
        print(json.dumps(line))
