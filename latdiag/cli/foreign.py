"""What the options of other tools are called here.

Of `vllm bench serve`, SGLang's `bench_serving`, AIPerf and GenAI-Perf, GuideLLM, LLMPerf, hey,
oha, wrk, k6 and Locust, as their help names them.
"""

from __future__ import annotations

from collections.abc import Mapping

_URL = "give the server's URL as the argument"
_ALWAYS = "latdiag always does this"

#: their option: ours, or a sentence's end where there is none
OURS: Mapping[str, str] = {
    # vllm bench serve, sglang.bench_serving
    "--num-prompts": "--requests",
    "--request-rate": "--rate",
    "--max-concurrency": "--concurrency",
    "--random-input-len": "--isl",
    "--random-input": "--isl",
    "--input-len": "--isl",
    "--random-output-len": "--osl",
    "--random-output": "--osl",
    "--output-len": "--osl",
    "--random-prefix-len": "--shared-prefix",
    "--prefix-len": "--shared-prefix",
    "--dataset-path": "--prompts FILE",
    "--dataset": "--prompts FILE",
    "--goodput": "--slo",
    "--base-url": _URL,
    "--host": _URL,
    "--port": _URL,
    "--endpoint": "--path",
    "--served-model-name": "--model",
    "--extra-request-body": "--body-json",
    "--extra-body": "--body-json",
    "--save-result": "latdiag always saves a run; --out sets its path",
    "--result-dir": "--out",
    "--result-filename": "--out",
    "--output-file": "--out",
    "--disable-tqdm": "--quiet",
    "--num-warmups": "--warmup",
    "--warmup-requests": "--warmup",
    "--backend": "latdiag detects the server's API; --path chooses another",
    "--ignore-eos": "latdiag sends ignore_eos to servers that support it",
    "--percentile-metrics": "latdiag measures all metrics",
    "--metric-percentiles": "latdiag prints p50, p90, p95 and p99 if there are enough requests",
    "--burstiness": "--rate poisson:N or constant:N",
    # AIPerf, GenAI-Perf
    "--url": _URL,
    "--request-count": "--requests",
    "--num-requests": "--requests",
    "--benchmark-duration": "--duration",
    "--measurement-interval": "--duration",
    "--synthetic-input-tokens-mean": "--isl",
    "--isl-mean": "--isl",
    "--synthetic-input-tokens-stddev": "--isl normal:MEAN,DEVIATION",
    "--isl-stddev": "--isl normal:MEAN,DEVIATION",
    "--output-tokens-mean": "--osl",
    "--osl-mean": "--osl",
    "--output-tokens-stddev": "--osl normal:MEAN,DEVIATION",
    "--warmup-request-count": "--warmup",
    "--input-file": "--prompts FILE",
    "--extra-inputs": "--body-json",
    "--artifact-dir": "--out",
    "--random-seed": "--seed",
    "--streaming": _ALWAYS,
    "--stream": _ALWAYS,
    "--endpoint-type": "latdiag detects the server's API; --path chooses another",
    "--service-kind": "latdiag detects the server's API; --path chooses another",
    # GuideLLM
    "--target": _URL,
    "--rate-type": "--rate poisson:N or constant:N",
    "--profile": "--rate for an open loop, --concurrency for a closed one",
    "--max-seconds": "--duration",
    "--max-requests": "--requests",
    "--data": "--prompts FILE, or --isl and --osl",
    "--output-path": "--out",
    "--processor": "--tokenizer",
    # LLMPerf
    "--mean-input-tokens": "--isl",
    "--mean-output-tokens": "--osl",
    "--max-num-completed-requests": "--requests",
    "--num-concurrent-requests": "--concurrency",
    "--additional-sampling-params": "--body-json",
    "--results-dir": "--out",
    # hey, oha, wrk, k6, Locust
    "-z": "--duration",
    "-q": "--rate",
    "-H": "--header",
    "-d": "--body-json",
    "-m": "--model",
    "--vus": "--concurrency",
    "--iterations": "--requests",
    "--users": "--concurrency",
    "--clients": "--concurrency",
    "--spawn-rate": "--ramp DURATION",
    "--run-time": "--duration",
    "--qps": "--rate",
    "--output": "--out",
}
