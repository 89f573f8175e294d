"""One HTTP exchange: to a checked address, within a time and a size, no redirect followed, no cookie kept.

httpcore is what httpx stands on. Used directly it gives the headers as they were sent, and lets the connection be
made by us: a pool whose keys are host names, over sockets that lead to addresses we checked.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore

from data_pipeline.crawl.addresses import targets
from data_pipeline.crawl_config import CrawlConfig

Headers = list[tuple[str, str]]
# Enough for a host with a dead IPv6 address beside a live IPv4 one; each may cost a whole timeout.
MAX_ADDRESSES = 3
# What the reader of sources.web can take apart.
ACCEPT_ENCODING = "gzip, deflate, br"


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status, reason: of the status line.
        headers: (name, value) pairs as they were sent.
        body: as it was sent, apart from chunking; its beginning where `cut` is set.
        address: the IP address that answered.
        request_headers: what was asked with.
        seconds: from the request to the last byte.
        cut: why the body was not read to its end: too_large, unwanted, or "".
    """

    status: int
    reason: str
    headers: Headers
    body: bytes
    address: str
    request_headers: Headers
    seconds: float
    cut: str = ""

    def header(self, name: str) -> str:
        """The first header of a name (in lower case); "" where there is none."""
        return next(iter(self.values(name)), "")

    def values(self, name: str) -> list[str]:
        """All headers of a name (in lower case)."""
        return [value for key, value in self.headers if key.lower() == name]


class FetchError(Exception):
    """No answer.

    Attributes:
        outcome: what the frontier keeps, for example failed_ConnectTimeout.
        transient: whether another try soon may help.
    """

    def __init__(self, outcome: str, transient: bool) -> None:
        super().__init__(outcome)
        self.outcome, self.transient = outcome, transient


class Fetcher:
    """Requests over kept connections; safe to use from many threads."""

    def __init__(self, config: CrawlConfig) -> None:
        self._config = config
        self._clock = _Clock()
        self._pool = httpcore.ConnectionPool(
            max_connections=None,
            max_keepalive_connections=config.hosts_at_once,
            keepalive_expiry=15.0,
            # The trusted certificates of the system (or of SSL_CERT_FILE) and of certifi; read once, not for each
            # connection, which takes longer than the connection.
            ssl_context=httpcore.default_ssl_context(),
            network_backend=_CheckedBackend(config, self._clock),
        )

    def get(
        self,
        url: str,
        headers: Headers,
        wanted: Callable[[int, Headers], bool] = lambda status, headers: True,
    ) -> Answer:
        """The answer to a GET.

        Args:
            headers: beyond Host, User-Agent, Accept and Accept-Encoding.
            wanted: told status and headers; False leaves the body unread.

        Raises:
            RefusedAddress: the host has an address that a crawl must not touch.
            FetchError: no answer.
        """
        asked = self._request_headers(url, headers)
        limit = self._config.timeout
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), limit)
        began = time.monotonic()
        self._clock.start(self._config.page_timeout)
        try:
            with self._pool.stream("GET", url, headers=asked, extensions={"timeout": timeouts}) as response:
                found = [
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers
                ]
                extensions = response.extensions
                # Asked for now: a body that is cut ends with the connection closed.
                address = extensions["network_stream"].get_extra_info("peer_address")
                if wanted(response.status, found):
                    body, cut = self._read(response)
                else:
                    body, cut = b"", "unwanted"
                reason = extensions.get("reason_phrase", b"").decode("latin-1")
        except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError, ValueError) as error:
            raise FetchError(f"failed_{type(error).__name__}", transient=False) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            if self._clock.is_over():
                raise FetchError("failed_page_timeout", transient=False) from error
            # The pool raises "from None": the true cause is but the context.
            if isinstance(error, httpcore.ConnectError) and isinstance(error.__context__, ssl.SSLError):
                raise _tls_failure(error.__context__) from error
            raise FetchError(f"failed_{type(error).__name__}", transient=True) from error
        return Answer(response.status, reason, found, body, address, asked, time.monotonic() - began, cut)

    def _request_headers(self, url: str, headers: Headers) -> Headers:
        return [
            ("Host", url.split("/", 3)[2]),
            ("User-Agent", self._config.user_agent),
            ("Accept", "text/html, application/xhtml+xml, text/plain;q=0.9, */*;q=0.1"),
            ("Accept-Encoding", ACCEPT_ENCODING),
            *headers,
        ]

    def _read(self, response: httpcore.Response) -> tuple[bytes, str]:
        """(body, why it was cut)."""
        pieces, size = [], 0
        for piece in response.iter_stream():
            pieces.append(piece)
            size += len(piece)
            if size > self._config.max_page_bytes:
                return b"".join(pieces)[: self._config.max_page_bytes], "too_large"
        return b"".join(pieces), ""

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def _tls_failure(error: ssl.SSLError) -> FetchError:
    """What a failed handshake counts as; a certificate that is not trusted now will not be in a second."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return FetchError("failed_certificate", transient=False)
    return FetchError("failed_tls", transient=True)


class _Clock(threading.local):
    """The end of the time for the page that this thread fetches; no matter how many reads it takes."""

    end = float("inf")

    def start(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    def within(self, timeout: float | None) -> float:
        """A timeout for one socket operation that ends with the page's time."""
        return max(0.001, min(timeout or float("inf"), self.end - time.monotonic()))


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, config: CrawlConfig, clock: _Clock) -> None:
        self._config, self._clock = config, clock
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = targets(host, port, self._config)
        return self._first(addresses[:MAX_ADDRESSES], timeout, socket_options)

    def _first(
        self, addresses: Sequence[tuple[str, int]], timeout: float | None, options: Iterable[Any] | None
    ) -> httpcore.NetworkStream:
        for address, port in addresses[:-1]:
            try:
                return self._connect(address, port, timeout, options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(*addresses[-1], timeout, options)

    def _connect(
        self, address: str, port: int, timeout: float | None, options: Iterable[Any] | None
    ) -> httpcore.NetworkStream:
        timeout = self._clock.within(timeout)
        stream = self._sockets.connect_tcp(address, port, timeout, socket_options=options)
        return _TimedStream(stream, self._clock)


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every read ends with the page's time: a server may send a byte a second for ever."""

    def __init__(self, stream: httpcore.NetworkStream, clock: _Clock) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._clock.is_over():
            raise httpcore.ReadTimeout
        return self._stream.read(max_bytes, self._clock.within(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.within(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._clock.within(timeout))
        return _TimedStream(secured, self._clock)

    def get_extra_info(self, info: str) -> Any:
        if info == "peer_address":
            return self._stream.get_extra_info("server_addr")[0]
        return self._stream.get_extra_info(info)
