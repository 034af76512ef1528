"""Secrets on a command line, in places where they do not belong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from latdiag.cli import run, slips
from latdiag.ingest.prometheus import columns_of
from latdiag.ingest.prometheus.labels import kept_labels
from latdiag.model import secrets
from latdiag.model.secrets import conceal, concealed, forgotten_after, looks_secret

KEY = "sk-live-kq7zn3wmv8xrt2py"
#: Keys as services give them out, none of them real.
KEYS = (
    KEY,
    "sk-ant-api03-Zq1x_9kVw8-QmT2pLr5",
    "gsk_k3nW9qXr7TzB2mVyP5cL8dHj",
    "hf_kWqZnTbXvRyMpLcHdJgFsEaU",
    "nvapi-q8Zk2Wn5Xr7Tb3Vm9Yp1Lc4",
    "xai-q8Zk2Wn5Xr7Tb3Vm9Yp1Lc4",
    "ghp_k3nW9qXr7TzB2mVyP5cL8dHjQwEr",
    "AKIAQ3XK7ZNWM2VYTP5L",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.Qx7k2mWn-zR",
    "0f3c9d27a1b84e56970d2c4b8f1e6a35",
    "q8Zk2Wn5Xr7Tb3Vm9Yp1Lc4Hd6Jg0Fs2",
)
#: What looks like nothing: only where it stands makes it a secret.
PASSWORD = "hunterpass"
BASIC = "aHVudGVyOnBhc3M5OTk="
TARGET = "http://127.0.0.1:9"

#: A secret where it does not belong, in every option that takes a name, a URL or a text.
SLIPS = (
    *("load {t} --api-key-env {s}", "probe {t} --api-key-env={s}", "stacks {t} --api-key-env {s}"),
    *("load {t} --api-key {s}", "load {t} --api-key={s}", "load --token {s} {t}"),
    *("--api-key {s} load {t}", "load {t} --header-env X-Key:{s}", "load {t} --header-env {s}"),
    *("load {t} --header Authorization: Bearer {s}", "load {t} --header {s}"),
    *("load {t} --header X-Key: {s}", "load --header X-Key: {s}", "load {t} --header {s}:x"),
    *("load http://user:{s}@127.0.0.1:9", "load http://{s}@127.0.0.1:9", "load {t}?api_key={s}"),
    *("load http://127.0.0.1:{s}", "load http://u:a/{s}@h", "probe user:{s}@127.0.0.1:9"),
    *("load {t} --metrics http://user:{s}@127.0.0.1:9", "load {t} --metrics {t}?token={s}"),
    *("collect --metrics user:{s}@127.0.0.1:9", "stacks {t} --metrics http://u:{s}@127.0.0.1:9"),
    *("load {t} --otlp user:{s}@127.0.0.1:9", "load {t} --otlp http://u:{s}@127.0.0.1:9"),
    *("load {t} --otlp-http user:{s}@h:1", "load {t} --otlp --forward http://u:{s}@h:1/x?k={s}"),
    *("collect --forward http://u:{s}@h:99999", "collect --forward ftp://u:{s}@h"),
    *("collect --token-env {s}", "load {t} --otlp --token-env {s}", "collect --token {s}"),
    *(
        "load {t} --metrics {t} --metrics-header-env Authorization:{s}",
        "demo --otlp http://u:{s}@h",
    ),
    *("load {t} --body-json {s}", 'load {t} --body-json {{"api_key":"{s}"', "demo --otlp {s}"),
)
#: Places in which a key is known by its looks alone.
ANYWHERE = (
    *("load {s}", "{s}", "load --{s}", "load {t} --model {s}", "load {t} --path {s}"),
    *("load {t} --{s}", "load {t} --out {s}", "load {t} --out {s}.run", "load {t} {s}"),
    *("load {t} --rate {s}", "load {t} --timeout {s}", "load {t} --isl {s}", "load {t} --slo {s}"),
    *("load {t} --seed {s}", "load {t} --prompts {s}", "load {t} --tokenizer {s}"),
    *("probe {t} --budget {s}", "explain {s}", "diagnose {s}", "diagnose {s}.run --why {s}"),
    *("compare {s} b.run", "import {s}", "demo {s}", "demo --set {s}=1", "demo --telemetry {s}"),
    *("load http://127.0.0.1:9/{s}/v1", "collect --otlp {s}", "collect --max-disk {s}"),
    *("load {t} --metrics {s}", "stacks {s}", "-vv load {s}", "load demo:{s}", "load {t} -k{s}"),
)


def say(capsys: pytest.CaptureFixture[str], folder: Path, line: str, secret: str) -> str:
    """What ``latdiag`` says to a line, in its four forms."""
    words = [word.format(t=TARGET, s=secret) for word in line.split(" ")]
    told = []
    for before, after in (((), ()), (("-vv",), ()), ((), ("--json",)), (("-vv",), ("--json",))):
        code = run([*before, *words, *after])
        told += capsys.readouterr()
        assert code in (2, 15), (line, code, told[-2:])
    left = [str(path) for path in folder.rglob("*")]
    return "\n".join([*told, *left])


@pytest.mark.parametrize("secret", [KEY, PASSWORD, BASIC])
@pytest.mark.parametrize("line", SLIPS)
def test_a_secret_by_a_slip_is_never_repeated(
    line: str,
    secret: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    told = say(capsys, tmp_path, line, secret)
    assert secret not in told and secret[:-2] not in told
    assert "bug" not in told


@pytest.mark.parametrize("line", ANYWHERE)
def test_what_looks_like_a_key_is_repeated_from_nowhere(
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for secret in KEYS[:3]:
        told = say(capsys, tmp_path, line, secret)
        assert secret not in told and secret[:12] not in told


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_known_by_their_looks(key: str) -> None:
    assert looks_secret(key) or secrets.holds_key(key)
    assert not slips.is_variable(key)
    with pytest.raises(slips.UsageFault) as caught:
        slips.refuse_keys(["load", TARGET, "--model", key])
    assert key not in caught.value.text + caught.value.remedy


@pytest.mark.parametrize(
    "word",
    [
        *("meta-llama/Llama-3.1-8B-Instruct", "Qwen2.5-7B-Instruct-GPTQ-Int4", "gpt-4o-mini"),
        *("20261123T145550Z-probe-vm.run", "ttft.p95<500ms", "lognormal:900,0.7", "task-sk-learn"),
        *("hf-internal-testing/tiny-random-LlamaForCausalLM", "/models/snapshots/0f3c9d27/x"),
        *("mistralai/Mixtral-8x7B-Instruct-v0.1", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"),
        *("550e8400-e29b-41d4-a716-446655440000", "demo:kv-transfer", "unsloth-bnb-4bit-2024"),
    ],
)
def test_names_of_models_and_runs_are_no_keys(word: str) -> None:
    slips.refuse_keys(["load", TARGET, "--model", word])
    assert not looks_secret(word)


def test_a_name_of_a_variable_is_repeated_and_its_value_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["load", TARGET, "--api-key-env", "OPENAI_API_KEY_2"]) == 2
    assert "OPENAI_API_KEY_2 is not set" in capsys.readouterr().err
    monkeypatch.setenv("MY_KEY", "the-key-of-mine\nx")
    assert run(["-vv", "load", TARGET, "--header-env", "X: MY_KEY"]) == 2
    told = capsys.readouterr()
    assert "not printable" in told.err and "key-of" not in told.err
    monkeypatch.setenv("MY_KEY", "the-key-of-mine")
    line = ["load", TARGET, "--api-key-env", "MY_KEY", "--model", "the-key-of-mine"]
    assert run(line) == 2  # else it would stand in the run
    assert "key-of" not in capsys.readouterr().err


def test_headers_for_metrics_say_to_whom_they_go(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from latdiag.cli.values import metrics_headers

    monkeypatch.setenv("CREDENTIALS", "Basic Zm9vOmJhcg==")
    name, value = "Authorization", "Basic Zm9vOmJhcg=="
    one = ["http://a:9000", "a:9000/other"]
    assert metrics_headers(one, [f"{name}: CREDENTIALS"]) == {
        ("http", "a", 9000): ((name, value),)
    }
    two = ["http://a:9000", "https://b"]
    assert metrics_headers(two, [f"https://b {name}: CREDENTIALS"]) == {
        ("https", "b", 443): ((name, value),)
    }
    for urls, text, why in (
        (two, f"{name}: CREDENTIALS", "to which of 2 servers"),
        (two, f"http://b {name}: CREDENTIALS", "no --metrics has"),
        ((), f"{name}: CREDENTIALS", "none is given"),
        (one, name, "was given"),
        (one, "Host: CREDENTIALS", "latdiag's own"),
    ):
        with pytest.raises(slips.UsageFault) as caught:
            metrics_headers(urls, [text])
        assert why in caught.value.text
    assert run(["collect", "--metrics", "http://user:secret@a"]) == 2
    assert "--metrics-header-env 'Authorization: VARIABLE'" in capsys.readouterr().err


def test_a_cut_leaves_no_piece_of_a_secret() -> None:
    with forgotten_after():
        conceal("abcdefghijkl'mnop")
        for text in ("abcdefghijkl'mnop", repr("say abcdefghijkl'mnop"), "x abcdefgh…", "x abcd…"):
            assert "abc" not in concealed(text)
    assert concealed("abcdefghijkl'mnop") == "abcdefghijkl'mnop"


def test_labels_keep_what_tells_series_apart_and_no_more() -> None:
    with forgotten_after():
        conceal("shortpw")
        told = {
            "engine": "0", "le": "0.005", "engine_type": "prefill",
            "stage": "prefill_transfer_kv_cache",
            "agent": f"Bearer {KEY}", "x": KEY, "auth": f"Basic {BASIC}", "own": "shortpw",
            "prompt": "The launch code of the silo", "one": "supercalifragilistic", "n": "1" * 32,
            KEY.replace("-", "_"): "1", "gsk_k3nW9qXr7TzB2mVyP5cL8dHj": "2",
        }  # fmt: skip
        kept = kept_labels(told.items())
    plain = {"engine", "le", "engine_type", "stage"}
    assert {name: kept[name] for name in plain} == {name: told[name] for name in plain}
    assert all(kept[n].startswith("withheld-") for n in ("agent", "x", "auth", "own", "prompt"))
    assert kept["one"].startswith("withheld-") and len(kept) == len(told)
    again = kept_labels(told.items())
    assert again["agent"] == kept["agent"] != again["auth"]
    for secret in (KEY, BASIC, "shortpw", "gsk_k3nW9qXr7TzB2mVyP5cL8dHj"):
        assert secret not in repr(kept)


def test_a_scrape_that_echoes_credentials_has_none_in_its_rows() -> None:
    text = f'# TYPE a gauge\na{{h="Authorization: Basic {BASIC}",k="{KEY}",z="1"}} 3\n'
    columns = columns_of(text, at_ns=1, replica="r", edge="begin", families=frozenset({"a"}))
    assert columns["value"] == [3.0] and columns["labels"][0]["z"] == "1"
    assert BASIC not in repr(columns) and KEY not in repr(columns)


_SHOW = """
import sys
from pathlib import Path
from latdiag.cli.slips import conceal_arguments, mask_in_process_list
conceal_arguments(sys.argv[1:])
mask_in_process_list()
print(Path("/proc/self/cmdline").read_bytes().split(b"\\0"))
"""


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc")
def test_what_is_given_on_the_command_line_is_not_in_the_process_list() -> None:
    options = ["load", "http://h/v1?key=qu3ry-value", "--header", f"Authorization: Bearer {KEY}"]
    done = subprocess.run(
        [sys.executable, "-c", _SHOW, *options], capture_output=True, text=True, check=True
    )
    assert KEY not in done.stdout and "qu3ry-value" not in done.stdout
    assert "--header" in done.stdout and "http://h/v1?key=***" in done.stdout
