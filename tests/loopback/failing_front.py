"""A front that answers some POSTs with an error itself and hands on all others."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from itertools import count
from urllib.parse import urlsplit

_FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def failing_front(url: str, every: int) -> Iterator[str]:
    """The URL of a front of ``url`` that fails each ``every``-th POST; 0: none."""
    to = urlsplit(url)
    assert to.hostname is not None and to.port is not None
    upstream, number = (to.hostname, to.port), count(1)

    class Front(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            with socket.create_connection(upstream) as behind:
                behind.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=self.hand_back, args=(behind,), daemon=True)
                back.start()
                while request := self.request_whole():
                    if request.startswith(b"POST") and every and not next(number) % every:
                        self.connection.sendall(_FAILED)
                        break
                    behind.sendall(request)
                with contextlib.suppress(OSError):
                    behind.shutdown(socket.SHUT_RDWR)
                back.join()

        def request_whole(self) -> bytes:
            head, length = b"", 0
            with contextlib.suppress(OSError):
                while line := self.rfile.readline():
                    head += line
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                    if not line.strip():
                        return head + self.rfile.read(length)
            return b""

        def hand_back(self, behind: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := behind.recv(65_536):
                    self.connection.sendall(data)
                self.connection.shutdown(socket.SHUT_RDWR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Front) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}{to.path}"
        server.shutdown()
