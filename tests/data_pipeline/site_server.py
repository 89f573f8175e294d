"""A real web server on the loopback address whose pages a test sets, and whose log a test asks."""

from __future__ import annotations

import itertools
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from data_pipeline.crawl_config import CrawlConfig
from data_pipeline.sources import Record, web

HTML = {"Content-Type": "text/html; charset=utf-8"}
Answer = tuple[int, dict[str, str], bytes]


def linked(*hrefs: str, text: str = "", head: str = "", **headers: str) -> Answer:
    """A page with links; keyword arguments become headers (X_Robots_Tag="noindex")."""
    anchors = "".join(f'<a href="{href}">go</a>' for href in hrefs)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = f"<html><head>{head}</head><body><p>{text}</p>{anchors}</body></html>"
    return 200, {**HTML, **named}, body.encode()


@dataclass(frozen=True)
class Request:
    """One line of the log; times are of time.monotonic()."""

    path: str
    headers: dict[str, str]
    began: float
    ended: float


class Site:
    """A server whose pages are a dict of path to answer, or to a function of the path's query.

    Attributes:
        pages: status 0 hangs up without a word.
        drip: paths whose bodies come in pieces, one every tenth of a second.
        delay: seconds before each answer.
        names: what clients said, in the TLS handshake, whom they want to speak to.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Answer | Callable[[str], Answer]] = {}
        self.drip: dict[str, Iterable[bytes]] = {}
        self.requests: list[Request] = []
        self.delay = 0.0
        self.conditional: dict[str, str] = {}
        self.names: list[str | None] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                began = time.monotonic()
                time.sleep(site.delay)
                site.requests.append(Request(self.path, dict(self.headers), began, time.monotonic()))
                path, _, query = self.path.partition("?")
                if path in site.drip:
                    self._drip(site.drip[path])
                    return
                answer = site.pages.get(path, (404, HTML, b"none"))
                status, headers, body = answer(query) if callable(answer) else answer
                if status == 0:
                    self.close_connection = True
                    return
                if headers.get("ETag", "-") == self.headers.get("If-None-Match"):
                    status, body = 304, b""
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 304:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _drip(self, pieces: Iterable[bytes]) -> None:
                self.close_connection = True
                try:
                    for piece in pieces:
                        self.wfile.write(piece)
                        time.sleep(0.1)
                except OSError:
                    pass  # the crawler has had enough

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http{'s' if tls else ''}://{self.host}"
        if tls is not None:
            tls.sni_callback = lambda connection, name, context: self.names.append(name)
            # The handshake is left to the thread that answers: one that fails must not end the server.
            self.server.socket = tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self.server.shutdown()
        self.server.server_close()

    def asked(self) -> list[str]:
        """Paths that were asked for, robots.txt aside."""
        return [request.path for request in self.requests if request.path != "/robots.txt"]

    def gaps(self) -> list[float]:
        """Seconds from the begin of each request to the begin of the next."""
        begins = sorted(request.began for request in self.requests)
        return [later - earlier for earlier, later in itertools.pairwise(begins)]


def config(site: Site, **options: Any) -> CrawlConfig:
    """A crawl of a site on this machine, without pauses unless a test wants them."""
    values: dict[str, Any] = {
        "seeds": [f"{site.url}/"],
        "delay": 0.0,
        "retries": 0,
        "allow_private": ["127.0.0.1"],
        **options,
    }
    return CrawlConfig(**values)


def rows(folder: Path, column: str) -> dict[str, Any]:
    """{path and query: a column} of the frontier."""
    with sqlite3.connect(folder / "frontier.sqlite") as db:
        found = db.execute(f"SELECT url, {column} FROM pages ORDER BY id").fetchall()
    return {"/" + url.split("/", 3)[3]: value for url, value in found}


def outcomes(folder: Path) -> dict[str, str]:
    """{path and query: outcome} of the frontier."""
    return rows(folder, "outcome")


def captures(folder: Path) -> list[Record]:
    """What our reader finds in the archives of a crawl."""
    return [record for path in sorted(folder.glob("*.warc.gz")) for record in web.read(path)]
