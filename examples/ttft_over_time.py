"""The verdict of a run, and where its TTFT went over time, in ms.

python examples/ttft_over_time.py latdiag-runs/NAME.run
"""

import sys

import latdiag

result = latdiag.diagnose_run(sys.argv[1])
print(result.verdict.sentence if result.valid else result.invalid_because[0].text)
table = result.requests("client_ttft").set_index("start")
shown = ["ttft_ms", *table.attrs["grades"]]
step = (table.index.max() - table.index.min()).ceil("10s") / 10
print(table[shown].resample(step).mean().dropna(how="all").round(1).to_string())
