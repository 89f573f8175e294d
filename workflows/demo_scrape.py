"""The demo's web pages: Python's own documentation server, started on the loopback address and scraped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.crawl_config import CrawlConfig

if TYPE_CHECKING:
    from workflows.workspace import Workspace

PYDOC_HOST = "pydoc.localhost"
# Modules whose pages are prose rather than lists of constants; none of them does anything when it is imported.
PYDOC_MODULES = [
    "abc",
    "argparse",
    "array",
    "ast",
    "asyncio",
    "base64",
    "bdb",
    "binascii",
    "bisect",
    "bz2",
    "calendar",
    "cgi",
    "cmath",
    "cmd",
    "code",
    "codecs",
    "collections",
    "colorsys",
    "compileall",
    "concurrent",
    "configparser",
    "contextlib",
    "contextvars",
    "copy",
    "copyreg",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "dbm",
    "decimal",
    "difflib",
    "dis",
    "doctest",
    "email",
    "enum",
    "fileinput",
    "filecmp",
    "fnmatch",
    "fractions",
    "ftplib",
    "functools",
    "gc",
    "getopt",
    "getpass",
    "gettext",
    "glob",
    "graphlib",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "http",
    "imaplib",
    "imghdr",
    "importlib",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "linecache",
    "locale",
    "logging",
    "lzma",
    "mailbox",
    "mailcap",
    "marshal",
    "math",
    "mimetypes",
    "mmap",
    "multiprocessing",
    "netrc",
    "nntplib",
    "ntpath",
    "numbers",
    "operator",
    "optparse",
    "pathlib",
    "pdb",
    "pickle",
    "pickletools",
    "pipes",
    "pkgutil",
    "plistlib",
    "poplib",
    "posixpath",
    "pprint",
    "profile",
    "pstats",
    "pty",
    "pyclbr",
    "queue",
    "quopri",
    "random",
    "re",
    "reprlib",
    "rlcompleter",
    "runpy",
    "sched",
    "secrets",
    "shelve",
    "shlex",
    "shutil",
    "smtplib",
    "sndhdr",
    "socketserver",
    "sqlite3",
    "statistics",
    "string",
    "stringprep",
    "struct",
    "subprocess",
    "sunau",
    "symtable",
    "tabnanny",
    "tarfile",
    "telnetlib",
    "tempfile",
    "textwrap",
    "threading",
    "timeit",
    "trace",
    "traceback",
    "tracemalloc",
    "types",
    "typing",
    "unicodedata",
    "unittest",
    "urllib",
    "uu",
    "uuid",
    "venv",
    "warnings",
    "wave",
    "weakref",
    "webbrowser",
    "wsgiref",
    "xml",
    "xmlrpc",
    "zipapp",
    "zipfile",
    "zipimport",
    "zlib",
    "zoneinfo",
]


def served_at(config: CrawlConfig, address: str = "127.0.0.1:0") -> CrawlConfig:
    """The crawl with the server's address; whatever its port is, the crawl is the same."""
    return replace(config, connect_to={PYDOC_HOST: address})


def scrape(workspace: Workspace, config: CrawlConfig) -> Path:
    """Scrape Python's documentation server, started for it on the loopback address; the WARC folder."""
    from data_pipeline.crawl import crawl, finished_crawl
    from workflows.console import step

    folder = workspace.raw / config.name
    with step("scrape") as shown:
        earlier = finished_crawl(served_at(config), folder)
        if earlier is not None:
            shown.summary = f"nothing to fetch, {earlier.known} pages are there from before"
            return folder
        shown.update("starting python -m pydoc")
        with pydoc_server() as address:
            result = crawl(served_at(config, address), folder, shown.update)
        shown.summary = f"{result.fetched} pages of python -m pydoc into {folder.relative_to(workspace.root)}"
    return folder


@contextmanager
def pydoc_server() -> Iterator[str]:
    """Python's documentation server on a free loopback port; its address."""
    import socket
    import subprocess
    import sysconfig

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        # No site-packages, no user site: the standard library only. pydoc lists the folder that it runs in, so
        # it runs in the library's own, and writes no bytecode there.
        [sys.executable, "-s", "-S", "-P", "-B", "-m", "pydoc", "-n", "127.0.0.1", "-p", str(port)],
        cwd=sysconfig.get_path("stdlib"),
        # A fixed hash seed keeps the order of sets on the pages; a bare environment keeps secrets out of them.
        env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, server)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: Any) -> None:
    import socket

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("python -m pydoc did not start within 30 s")
