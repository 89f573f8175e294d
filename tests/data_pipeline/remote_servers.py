"""Object stores and web servers on the loopback address that are real, and connections to them that break."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

SIGNED = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


class Store:
    """A process that keeps objects in memory and speaks S3 (moto) or Google's protocol."""

    def __init__(self, program: str) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.close()
                    raise
                time.sleep(0.1)

    def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """The status of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


class S3(Store):
    """moto's server."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], bytes] = {}
        super().__init__("import sys; from moto.server import main; main(['-p', sys.argv[1]])")

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object, once for all tests; its bucket is made."""
        if (bucket, key) not in self.stored:
            assert self.ask("PUT", f"/{bucket}") == 200
            assert self.ask("PUT", f"/{bucket}/{quote(key)}", content) == 200
        assert self.stored.setdefault((bucket, key), content) == content

    def check_signatures(self, wanted: bool) -> None:
        """Whether a request without valid credentials is refused."""
        assert self.ask("POST", "/moto-api/reset-auth", b"0" if wanted else b"inf") == 200


class Google(Store):
    """The emulator of Google Cloud Storage."""

    def __init__(self) -> None:
        super().__init__(
            "import sys, threading; from gcp_storage_emulator.server import create_server;"
            "create_server('127.0.0.1', int(sys.argv[1]), in_memory=True, default_bucket='books').start();"
            "threading.Event().wait()"
        )

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object."""
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}"
        assert self.ask("POST", path, content) == 200


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Breaking:
    """A port that passes everything to another one, and hangs up within answers, or within what is sent.

    Attributes:
        after: bytes of an answer that pass, or of what is sent over a connection.
        times: answers that are cut yet.
        cuts: answers that were cut.
    """

    def __init__(self, port: int, after: int, times: float, uploads: bool = False) -> None:
        self.after, self.times, self.cuts = after, times, 0
        self._cuts_uploads = uploads
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._port))
        threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
        passed = 0
        try:
            while block := server.recv(1 << 16):
                if not self._cuts_uploads and passed + len(block) > self.after and self.cuts < self.times:
                    self.cuts += 1
                    client.sendall(block[: max(0, self.after - passed)])
                    break
                client.sendall(block)
                passed += len(block)
        except OSError:
            pass
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # closed only, it would wait for the other thread
            end.close()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        try:
            while block := client.recv(1 << 16):
                sent += len(block)
                if self._cuts_uploads and sent > self.after and self.cuts < self.times:
                    self.cuts += 1
                    break
                server.sendall(block)
        except OSError:
            pass
        if self._cuts_uploads and sent > self.after:
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()


RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class FileServer:
    """A web server of files in memory.

    Attributes:
        files: content by path.
        headers: further headers of every answer.
        status: another answer for a path than its file.
        gives_parts: whether it heeds Range.
        says_length: whether it says how long a file is.
        breaks_at: byte of a file behind which an answer is cut off, and how often yet.
        asked: (path, header Range) of each GET.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.status: dict[str, int] = {}
        self.gives_parts = self.says_length = True
        self.breaks_at, self.breaks = 0, 0.0
        self.asked: list[tuple[str, str]] = []
        files = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(is_head=True)

            def do_GET(self) -> None:
                files.asked.append((unquote(self.path), self.headers.get("Range", "")))
                self._answer(is_head=False)

            def _answer(self, is_head: bool) -> None:
                self.close_connection = True
                path = unquote(self.path)
                if path.endswith("/"):
                    names = [name.removeprefix(path) for name in files.files if name.startswith(path)]
                    rows = "".join(f'<a href="{quote(name)}">{name}</a>' for name in sorted(names))
                    content = f'<a href="../">up</a>{rows}'.encode()
                elif path in files.files:
                    content = files.files[path]
                else:
                    content = b""
                    files.status.setdefault(path, 404)
                status, start, stop = files.status.get(path, 200), 0, len(content)
                found = RANGE.fullmatch(self.headers.get("Range", ""))
                if found and files.gives_parts and status == 200:
                    status, start = 206, int(found.group(1))
                    stop = min(stop, int(found.group(2) or stop) + 1)
                self.send_response(status)
                if status == 206:
                    self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
                if files.says_length:
                    self.send_header("Content-Length", str(stop - start))
                for name, value in {"Content-Type": "text/html", **files.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if is_head:
                    return
                if start < files.breaks_at < stop and files.breaks > 0:
                    files.breaks -= 1
                    stop = files.breaks_at
                with suppress(OSError):  # who asked for it may have had enough
                    self.wfile.write(content[start:stop])

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http{'s' if tls else ''}://localhost:{self._server.server_address[1]}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
