"""Files behind URIs are listed, read, split and recorded like local ones; what goes wrong there is one line."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_pipeline.config import SourceConfig
from data_pipeline.corpus import Corpus
from data_pipeline.errors import InputError
from data_pipeline.sources import (
    WHOLE,
    Record,
    as_path,
    fingerprint,
    list_files,
    read_records,
    remote,
    split_file,
)
from data_pipeline.staging import guarded
from tests.data_pipeline.certificates import Authority
from tests.data_pipeline.made_inputs import book, dump, prose, write_pages
from tests.data_pipeline.remote_servers import S3, SIGNED, Breaking, FileServer, Google
from workflows import cli, refresh

ROWS = [{"text": f"{number} {prose(number, 40)}"} for number in range(200)]
JSON_LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FILES = SourceConfig(name="mine", paths=["x"])


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bytes]]:
    """{file name: (kind of source, content)}: one of each format that reads in its own way."""
    folder = tmp_path_factory.mktemp("contents")
    write_pages(folder / "pages.warc.gz", [prose(seed, 80) for seed in range(30)])
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet", row_group_size=20)
    pages = dump([(f"Page {number}", prose(number, 80)) for number in range(30)]).encode()
    return {
        "rows.jsonl": ("files", JSON_LINES),
        "rows.jsonl.gz": ("files", gzip.compress(JSON_LINES)),
        "rows.parquet": ("files", (folder / "rows.parquet").read_bytes()),
        "pages.warc.gz": ("web", (folder / "pages.warc.gz").read_bytes()),
        "dump.xml": ("wiki", pages),
        "dump.xml.bz2": ("wiki", bz2.compress(pages)),
        "book.txt": ("books", book(prose(1, 400)).encode()),
    }


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.close()


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The store, at the endpoint and with the credentials that the environment names."""
    use(s3.url, monkeypatch)
    return s3


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SIGNED, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def google() -> Iterator[Google]:
    server = Google()
    yield server
    server.close()


@pytest.fixture
def web() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries."""
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.01)


def assert_same(uri: str, kind: str, content: bytes, folder: Path) -> None:
    """The file behind a URI is listed, hashed, split and read as the same file here is."""
    local = folder / uri.rsplit("/", 1)[-1]
    local.write_bytes(content)
    source = replace(FILES, kind=kind, paths=[uri])
    (there,) = list_files(source)
    assert str(there) == uri
    assert fingerprint(there) == fingerprint(local)
    spans = split_file(source, there, 4000)
    assert spans == split_file(source, local, 4000)
    expected = list(read_records(source, local))
    assert len(expected) >= (1 if kind == "books" else 20)
    again = as_path(str(there))  # as a worker opens it
    assert [record for span in spans for record in read_records(source, again, span)] == expected


# ----------------------------------------------------------------------------------------------- object stores


def test_objects_of_s3_are_read_like_local_files(
    bucket: S3, contents: dict[str, tuple[str, bytes]], tmp_path: Path
) -> None:
    for name, (kind, content) in contents.items():
        bucket.put("kinds", f"in/{name}", content)
        assert_same(f"s3://kinds/in/{name}", kind, content, tmp_path)


def test_objects_of_google_cloud_storage_are_read_like_local_files(
    google: Google, contents: dict[str, tuple[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.url)
    for name in ("rows.jsonl", "pages.warc.gz"):
        kind, content = contents[name]
        google.put("books", f"in/{name}", content)
        assert_same(f"gs://books/in/{name}", kind, content, tmp_path)
    assert [str(file) for file in list_files(replace(FILES, paths=["gs://books/in"]))] == [
        "gs://books/in/rows.jsonl"
    ]
    with pytest.raises(InputError, match=r"gs://no-bucket/a\.jsonl: there is no bucket no-bucket"):
        list_files(replace(FILES, paths=["gs://no-bucket/a.jsonl"]))


def test_folders_and_globs_of_a_bucket_give_what_is_there(bucket: S3) -> None:
    keys = [
        "a.jsonl",
        "deep/b.jsonl",
        "deep/er/c.jsonl",
        "deep/odd #1? [x] ü.jsonl",
        "deep/no.png",
        ".hidden.jsonl",
    ]
    for key in keys:
        bucket.put("tree", key, JSON_LINES)

    def listed(*paths: str) -> list[str]:
        found = list_files(replace(FILES, paths=list(paths)))
        assert [fingerprint(file)[0] for file in found] == [len(JSON_LINES)] * len(found)
        return [str(file).removeprefix("s3://tree/") for file in found]

    deep = ["deep/b.jsonl", "deep/er/c.jsonl", "deep/odd #1? [x] ü.jsonl"]
    assert listed("s3://tree") == listed("s3://tree/") == ["a.jsonl", *deep]
    assert listed("s3://tree/deep") == listed("s3://tree/deep/", "s3://tree/deep/b.jsonl") == deep
    assert listed("s3://tree/**/*.jsonl") == [".hidden.jsonl", "a.jsonl", *deep]
    assert listed("s3://tree/*/?.jsonl") == ["deep/b.jsonl"]
    # Not a glob where there is an object of the very name.
    assert listed("s3://tree/deep/odd #1? [x] ü.jsonl") == deep[2:]


@pytest.mark.parametrize("times", [1, 3])
def test_a_connection_to_s3_that_breaks_for_a_moment_costs_nothing(
    bucket: S3, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(1).randbytes(6 << 20)
    bucket.put("large", f"{times}.bin", content)
    line = Breaking(bucket.port, after=900_000, times=times)
    use(line.url, monkeypatch)
    with remote.open_remote(remote.remote_path(f"s3://large/{times}.bin")) as file:
        assert file.read() == content
    assert line.cuts == times
    line.close()


def test_a_connection_to_s3_that_always_breaks_gives_the_good_records_and_then_damaged(
    bucket: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = JSON_LINES * (1 + (5 << 20) // len(JSON_LINES))
    bucket.put("large", "b.jsonl", content)
    line = Breaking(bucket.port, after=1 << 30, times=0)
    use(line.url, monkeypatch)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    (there,) = list_files(replace(FILES, paths=["s3://large/b.jsonl"]))
    errors: list[str] = []
    records: list[Record] = []
    for record in guarded(read_records(FILES, there), errors):
        records.append(record)
        line.after, line.times = 0, float("inf")  # from the second buffer on
    assert records[-1].reason == "damaged_file"
    assert "s3://large/b.jsonl" in errors[0]
    assert fingerprint(there) == (0, "")
    line.close()


# ------------------------------------------------------------------------------------------------ web servers


def test_files_of_a_web_server_are_read_like_local_ones(
    web: FileServer, contents: dict[str, tuple[str, bytes]], tmp_path: Path
) -> None:
    for name, (kind, content) in contents.items():
        web.files[f"/in/{name}"] = content
        assert_same(f"{web.url}/in/{name}", kind, content, tmp_path)


@pytest.mark.parametrize("says_length", [True, False])
def test_a_server_that_gives_no_parts_of_files_is_read_whole(
    web: FileServer, contents: dict[str, tuple[str, bytes]], tmp_path: Path, says_length: bool
) -> None:
    web.gives_parts, web.says_length = False, says_length
    for name, (kind, content) in contents.items():
        web.files[f"/{name}"] = content
        (tmp_path / name).write_bytes(content)
        source = replace(FILES, kind=kind, paths=[f"{web.url}/{name}"])
        (there,) = list_files(source)
        assert fingerprint(there) == fingerprint(tmp_path / name)
        assert split_file(source, there, 4000) == [WHOLE]
        assert list(read_records(source, there)) == list(read_records(source, tmp_path / name))


def test_a_packed_file_that_a_server_calls_an_encoding_is_not_unpacked_twice(
    web: FileServer, tmp_path: Path
) -> None:
    web.headers["Content-Encoding"] = "gzip"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(JSON_LINES))
    web.files["/a.jsonl.gz"] = (tmp_path / "a.jsonl.gz").read_bytes()
    (there,) = list_files(replace(FILES, paths=[f"{web.url}/a.jsonl.gz"]))
    assert fingerprint(there) == fingerprint(tmp_path / "a.jsonl.gz")
    assert [record.content for record in read_records(FILES, there)] == [row["text"] for row in ROWS]


def test_a_page_of_links_is_a_folder(web: FileServer) -> None:
    for name in ("a.jsonl", "b.jsonl", "notes.png", "deep/c.jsonl"):
        web.files[f"/in/{name}"] = JSON_LINES
    web.files["/elsewhere.jsonl"] = JSON_LINES

    def listed(place: str) -> list[str]:
        return [
            str(file).removeprefix(web.url) for file in list_files(replace(FILES, paths=[web.url + place]))
        ]

    assert listed("/in/") == ["/in/a.jsonl", "/in/b.jsonl", "/in/deep/c.jsonl"]
    assert listed("/in/*.jsonl") == ["/in/a.jsonl", "/in/b.jsonl"]
    assert listed("/in/a.jsonl") == ["/in/a.jsonl"]


def test_a_download_that_breaks_goes_on_behind_what_came(web: FileServer) -> None:
    content = random.Random(1).randbytes(9 << 20)
    web.files["/a.bin"] = content
    web.breaks_at, web.breaks = 5 << 20, 2
    with remote.open_remote(remote.remote_path(f"{web.url}/a.bin")) as file:
        assert file.read() == content
    assert web.breaks == 0
    begins = [int(parts.removeprefix("bytes=").split("-")[0]) for _, parts in web.asked if parts]
    assert begins.count(0) == 1  # nothing that came whole was asked for again


def test_a_download_that_always_breaks_gives_the_good_records_and_then_damaged(web: FileServer) -> None:
    web.files["/a.jsonl"] = JSON_LINES * 3
    (there,) = list_files(replace(FILES, paths=[f"{web.url}/a.jsonl"]))
    web.breaks_at, web.breaks = len(JSON_LINES), float("inf")
    errors: list[str] = []
    *good, last = guarded(read_records(FILES, there), errors)
    assert last.reason == "damaged_file"
    assert f"{web.url}/a.jsonl" in errors[0]
    # All but the last kilobyte or so before the break.
    assert len(ROWS) - 10 < len(good) <= len(ROWS)
    assert [record.content for record in good] == [row["text"] for row in ROWS[: len(good)]]
    assert fingerprint(there) == (3 * len(JSON_LINES), "")


def test_a_whole_download_that_breaks_for_a_moment_is_begun_anew(web: FileServer) -> None:
    web.gives_parts = False
    web.files["/a.bin"] = content = random.Random(1).randbytes(2 << 20)
    web.breaks_at, web.breaks = 1 << 20, 1
    with remote.open_remote(remote.remote_path(f"{web.url}/a.bin")) as file:
        assert file.read() == content


# ------------------------------------------------------------------------------- what a user sees on the command line


def refuse(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line with which a refresh of these options ends."""
    assert (
        cli.run(refresh.Options, refresh.main, "refresh", "", [*argv, "--dry_run", "--workspace", "/nowhere"])
        == 2
    )
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: source files: ")
    return line


@pytest.mark.parametrize(
    ("key", "place"),
    [("", "s3://private/a.jsonl"), ("unknown", "s3://private/a.jsonl"), ("unknown", "s3://private/*.jsonl")],
)
def test_a_store_that_refuses_says_which_credentials_it_takes(
    bucket: S3,
    key: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    bucket.put("private", "a.jsonl", JSON_LINES)
    line = Breaking(bucket.port, after=1 << 30, times=0)  # an endpoint that no client was made for yet
    use(line.url, monkeypatch)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    bucket.check_signatures(True)
    try:
        said = refuse(capsys, "--files", place)
    finally:
        bucket.check_signatures(False)
        line.close()
    assert f"{place} cannot be listed" in said
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said


def test_a_bucket_or_object_that_is_not_there_is_named(
    bucket: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket.put("there", "a.png", b"x")
    assert "there is no bucket gone" in refuse(capsys, "--files", "s3://gone/a.jsonl")
    assert "there is no bucket gone" in refuse(capsys, "--files", "s3://gone/*.jsonl")
    assert "s3://there/b.jsonl does not exist" in refuse(capsys, "--files", "s3://there/b.jsonl")
    assert "s3://there holds no file for kind files" in refuse(capsys, "--files", "s3://there")


def test_a_server_that_is_not_there_is_one_line_and_no_hang(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use("http://127.0.0.1:1", monkeypatch)
    assert "AWS_ENDPOINT_URL" in refuse(capsys, "--files", "s3://books/a.jsonl")
    for place in ("http://127.0.0.1:1/a.jsonl", "http://127.0.0.1:1/in/", "http://127.0.0.1:1/*.jsonl"):
        said = refuse(capsys, "--files", place)
        assert f"{place} cannot be listed" in said
        assert "127.0.0.1:1" in said.split("(")[1]


def test_a_web_server_over_tls_is_read_where_its_certificate_is_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "trusted")
    server = FileServer(authority.server("localhost"))
    server.files["/a.jsonl"] = JSON_LINES
    command = [sys.executable, "-m", "workflows.refresh", "--files", f"{server.url}/a.jsonl", "--dry_run"]
    command += ["--workspace", str(tmp_path / "ws")]
    for trusted, code, words in ((True, 0, "1 files to read"), (False, 2, "CERTIFICATE_VERIFY_FAILED")):
        given = {**os.environ, **({"SSL_CERT_FILE": str(authority.path)} if trusted else {})}
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        assert words in done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == (0 if trusted else 1), done.stderr
    server.close()


@pytest.mark.parametrize(("status", "words"), [(403, "403"), (500, "500"), (404, "does not exist")])
def test_an_answer_that_is_no_file_is_one_line(
    web: FileServer, capsys: pytest.CaptureFixture[str], status: int, words: str
) -> None:
    web.status["/a.jsonl"] = status
    assert words in refuse(capsys, "--files", f"{web.url}/a.jsonl")


def test_a_password_in_a_uri_is_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("https://jane:s3cret@example.org/a.jsonl", "ftp://jane:s3cret@example.org/a.jsonl"):
        said = refuse(capsys, "--files", place)
        assert "s3cret" not in said
        assert "~/.netrc" in said


@pytest.mark.slow
def test_a_refresh_records_remote_files_and_tries_broken_ones_again(
    bucket: S3, web: FileServer, contents: dict[str, tuple[str, bytes]], tmp_path: Path
) -> None:
    bucket.put("corpus", "web/pages.warc.gz", contents["pages.warc.gz"][1])
    web.files["/in/rows.jsonl.gz"] = contents["rows.jsonl.gz"][1]
    web.files["/in/broken.jsonl"] = JSON_LINES * 4
    web.breaks_at, web.breaks = 3 * len(JSON_LINES), float("inf")
    config = {
        "workspace": str(tmp_path / "ws"),
        "sources": [
            {"name": "crawl", "kind": "web", "paths": ["s3://corpus/web/"]},
            {"name": "rows", "paths": [f"{web.url}/in/"], "preset": "permissive"},
        ],
    }
    (tmp_path / "refresh.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "workflows.refresh", "--config", str(tmp_path / "refresh.yaml")]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    corpus = Corpus(tmp_path / "ws" / "corpus")
    rows = corpus.scan("inputs", corpus.at()).to_table().to_pylist()
    found = {row["path"]: (row["size"], row["sha256"], row["status"], row["num_documents"]) for row in rows}
    size, digest, status, count = found.pop(f"{web.url}/in/broken.jsonl")
    assert (size, digest, status) == (4 * len(JSON_LINES), "", "damaged")
    assert 2 * len(ROWS) < count <= 3 * len(ROWS) + 1
    assert found == {
        uri: (len(content), hashlib.sha256(content).hexdigest(), "ok", count)
        for uri, content, count in (
            ("s3://corpus/web/pages.warc.gz", contents["pages.warc.gz"][1], 30),
            (f"{web.url}/in/rows.jsonl.gz", contents["rows.jsonl.gz"][1], len(ROWS)),
        )
    }
    again = subprocess.run([*command, "--dry_run"], check=True, capture_output=True, text=True, timeout=60)
    assert "1 files to read" in again.stdout
    assert "2 done already" in again.stdout
