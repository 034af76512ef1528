"""A run on an object store: the same bytes through pyarrow's S3 client and a store of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase, BytesIO
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from latdiag.model.errors import LocalFault, RunFault
from latdiag.store.run import Run
from latdiag.store.writer import RunWriter, create_run
from tests.run_documents import header, state

BUCKET = "bench"


def unchunked(source: BufferedIOBase) -> bytes:
    """What chunks hold, up to the empty one and whatever trails it."""
    plain = b""
    while length := int(source.readline().split(b";")[0], 16):
        plain += source.read(length)
        source.readline()
    while source.readline().strip():
        pass
    return plain


class Store(ThreadingHTTPServer):
    """As much of S3 as a client needs for whole objects: one bucket in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.full = False

    def uri(self, path: str) -> str:
        options = f"scheme=http&endpoint_override=127.0.0.1:{self.server_port}&region=us-east-1"
        return f"s3://KEYID:SECRET@{BUCKET}/{path}?{options}"


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def route(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        key = unquote(parts.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        return key, {name: values[0] for name, values in query.items()}

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        """The object's bytes: out of HTTP's chunks, and out of those that S3 signs."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            raw = unchunked(self.rfile)
        else:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        signed = "aws-chunked" in (self.headers.get("Content-Encoding") or "")
        return unchunked(BytesIO(raw)) if signed else raw

    def do_HEAD(self) -> None:
        key, _ = self.route()
        found = self.server.objects.get(key)
        if key and found is None:
            self.answer(404)
            return
        length = str(len(found or b""))
        self.answer(200, Content_Length=length, Last_Modified="Mon, 23 Nov 2026 07:00:00 GMT")

    def do_GET(self) -> None:
        key, query = self.route()
        if not key:
            self.answer(200, self.listing(query), Content_Type="application/xml")
            return
        found = self.server.objects.get(key)
        if found is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        first, _, last = (
            self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        )
        part = found[int(first) : int(last) + 1 if last else None]
        self.answer(206, part, Content_Range=f"bytes {first}-{len(found) - 1}/{len(found)}")

    def do_PUT(self) -> None:
        key, query = self.route()
        data = self.body()
        if self.server.full:
            self.answer(403, b"<Error><Code>QuotaExceeded</Code><Message>full</Message></Error>")
        elif "uploadId" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = data
            self.answer(200, ETag='"e"')
        else:
            self.server.objects[key] = data
            self.answer(200, ETag='"e"')

    def do_POST(self) -> None:
        key, query = self.route()
        self.body()
        if "uploads" in query:
            self.server.uploads[key] = {}
            names = f"<Bucket>{BUCKET}</Bucket><Key>{key}</Key><UploadId>{key}</UploadId>"
            kind = "InitiateMultipartUploadResult"
        else:
            parts = self.server.uploads.pop(query["uploadId"])
            self.server.objects[key] = b"".join(parts[n] for n in sorted(parts))
            names, kind = f"<Key>{key}</Key><ETag>e</ETag>", "CompleteMultipartUploadResult"
        self.answer(200, f"<{kind}>{names}</{kind}>".encode(), Content_Type="application/xml")

    def do_DELETE(self) -> None:
        key, _ = self.route()
        self.server.objects.pop(key, None)
        self.answer(204)

    def listing(self, query: dict[str, str]) -> bytes:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys, folders = [], set()
        for key in sorted(self.server.objects):
            if not key.startswith(prefix):
                continue
            head, found, _ = (
                key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            )
            if found:
                folders.add(f"{prefix}{head}{delimiter}")
            else:
                keys.append(key)
        when = "<LastModified>2026-11-23T07:00:00.000Z</LastModified>"
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key>{when}"
            f"<Size>{len(self.server.objects[key])}</Size></Contents>"
            for key in keys
        )
        items += "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        count = f"<KeyCount>{len(keys) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{count}{items}</ListBucketResult>".encode()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with Store() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_run_on_an_object_store(store: Store) -> None:
    uri = store.uri("runs/a.run")
    assert create_run(uri, header(plan={"seed": 1})) == uri
    with pytest.raises(RunFault, match=r"s3://bench/runs/a\.run exists already") as caught:
        create_run(uri, header(plan={"seed": 2}))
    assert "SECRET" not in caught.value.text
    writer = RunWriter(uri, "w")
    writer.write_state(state("open"))
    writer.write_part({"request_id": ["a"], "attempt": [1], "arrivals_ns": [[1, 2, 3]]})
    writer.write_open({"request_id": ["b"], "attempt": [1]})
    run = Run.open(uri)
    assert run.paths == ["s3://bench/runs/a.run"]
    (batch, cut) = run.batches(["request_id", "arrivals_ns", "outcome"])
    assert batch.lists["arrivals_ns"].values.tolist() == [1, 2, 3]
    assert cut.texts["outcome"].tolist() == ["cut_by_client"]
    assert run.cut_short == ["writer w never closed"]
    writer.write_open({})
    writer.write_state(state("closed"))
    assert Run.open(uri).cut_short == []
    assert [b.n for b in Run.open(uri).batches([])] == [1]
    whole = sorted(key for key, data in store.objects.items() if data)
    assert whole == [f"runs/a.run/{n}" for n in ("requests/part-w-000001.parquet", "run.json")] + [
        "runs/a.run/writers/w.json"
    ]
    create_run(store.uri("runs/b.run"), header(plan={"seed": 3}))
    assert [h["plan"]["seed"] for h in Run.open(store.uri("runs/*.run")).headers] == [1, 3]
    with pytest.raises(RunFault, match="is a directory of 2 runs; name"):
        Run.open(store.uri("runs"))


def test_a_store_that_says_no(store: Store) -> None:
    uri = create_run(store.uri("runs/a.run"), header())
    writer = RunWriter(uri, "w")
    row = {"request_id": ["a"], "attempt": [1]}
    writer.write_part(row)
    store.full = True
    with pytest.raises(LocalFault, match=r"s3://bench/runs/a\.run") as caught:
        writer.write_part(row)
    assert "SECRET" not in caught.value.text
    assert [b.n for b in Run.open(uri).batches([])] == [1]
