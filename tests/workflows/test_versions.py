"""The commands on versions, as a person and as a scheduler use them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.errors import Busy, InputError
from data_pipeline.locks import locked
from data_pipeline.shards import Manifest
from tests.data_pipeline.made_inputs import prose
from tests.data_pipeline.refresh_session import RefreshSession
from workflows import cli, refresh, tracking, versions
from workflows.summary import ReportOptions, summarised
from workflows.workspace import Workspace

SECRET = "http://private.test/page"


def write(path: Path, **rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in rows.items()))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefreshSession]:
    session = RefreshSession(tmp_path_factory.mktemp("session"))
    yield session
    session.close()


@pytest.fixture(scope="module")
def folder(session: RefreshSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of two versions, with tokens of each."""
    folder = tmp_path_factory.mktemp("versions")
    pages = {f"page-{number}": prose(number, 150) for number in range(40)}
    write(folder / "in/1.jsonl", **pages, **{SECRET: prose(100, 150)})
    assert run(session, folder)["version"] == 1
    tokenise(session, folder)
    write(folder / "in/2.jsonl", new=prose(101, 150))
    assert run(session, folder)["version"] == 2
    tokenise(session, folder)
    return folder


def run(session: RefreshSession, folder: Path, *arguments: str) -> dict[str, Any]:
    if not arguments:
        arguments = ("--sources", f"[{{name: rows, paths: [{folder}/in], uri_column: id}}]")
    code, summary, errors = session.run(*arguments, "--workspace", str(folder / "ws"))
    assert code == 0, errors
    return summary


def tokenise(session: RefreshSession, folder: Path, *arguments: str) -> Manifest:
    options = (
        "--tokenizer.vocab_size",
        "512",
        "--shards.val_share",
        "0.2",
        "--workspace",
        str(folder / "ws"),
    )
    answer = session.ask("tokenize", *options, *arguments)
    assert answer["code"] == 0, answer["err"]
    return Manifest.load(Workspace.existing(str(folder / "ws")).dataset("bpe"))


def test_history_lists_versions_and_the_tokens_made_of_them(session: RefreshSession, folder: Path) -> None:
    listed = run(session, folder, "history")["versions"]
    assert [(row["version"], row["kind"], row["num_kept"]) for row in listed[:2]] == [
        *((1, "refresh", 41), (2, "refresh", 1)),
    ]
    assert all(row["tokens"][0].startswith(f"bpe/v00000{row['version']}-") for row in listed[:2])
    answer = session.ask("refresh", "history", "--workspace", str(folder / "ws"))
    assert answer["code"] == 0
    assert "Versions of the corpus in" in answer["out"]


def test_differences_name_documents_words_files_and_tokens(session: RefreshSession, folder: Path) -> None:
    found = run(session, folder, "diff", "1", "2")
    assert found["num_documents"] == [41, 42]
    assert found["documents"]["rows"]["added"] == 1
    assert found["documents"]["rows"]["num_words_added"] > 100
    assert found["inputs"] == {"rows": {"added": 1, "gone": 0}}
    assert found["tokens"]["bpe"]["new"] > found["tokens"]["bpe"]["old"] > 1000
    assert found["examples"] == [["+", "rows", "new"]]
    assert run(session, folder, "diff", "--old", "1", "--new", "2")["documents"] == found["documents"]
    code, summary, _ = session.run("diff", "--new", "1", "--workspace", str(folder / "ws"))
    assert (code, summary["message"]) == (2, "old: version 1 has none before it")
    answer = session.ask("refresh", "diff", "1", "2", "--workspace", str(folder / "ws"))
    assert "version 1 -> 2: 41 -> 42 documents" in answer["out"]
    assert "  + rows: new" in answer["out"]


def test_a_refresh_with_nothing_new_says_so(session: RefreshSession, folder: Path) -> None:
    summary = run(session, folder)
    assert (summary["status"], summary["exit_code"], summary["new_inputs"]) == ("nothing_new", 0, 0)
    assert summary["message"].startswith("nothing new: all 2 input files are in corpus version")


def test_a_takedown_names_the_token_datasets_and_runs_that_hold_the_document(
    session: RefreshSession, folder: Path
) -> None:
    workspace = Workspace.existing(str(folder / "ws"))
    manifests = [Manifest.load(path.parent) for path in sorted(workspace.tokens.glob("bpe/v*/manifest.json"))]
    # Runs as trainings leave them.
    tags = {"gptmill.manifest_hash": manifests[0].manifest_hash}
    with tracking.start_run(workspace, "pretrain", "trained", {}, tags=tags) as trained:
        pass
    with tracking.start_run(workspace, "evaluate", "graded", {}, parent=trained.run_id) as graded:
        pass
    with tracking.start_run(
        workspace, "pretrain", "other", {}, tags={"gptmill.manifest_hash": "0" * 64}
    ) as other:
        pass

    dry = run(session, folder, "remove", "--uri", SECRET, "--dry-run")
    assert (dry["status"], [row["uri"] for row in dry["documents"]]) == ("dry_run", [SECRET])
    assert workspace.corpus.at()["version"] == 2
    done = run(session, folder, "remove", "--uri", SECRET, "--note", "a letter")
    assert (done["status"], done["version"], done["num_taken_down"]) == ("committed", 3, 1)
    assert [(row["corpus_version"], row["num_documents"]) for row in done["token_datasets"]] == [
        (1, 1),
        (2, 1),
    ]
    assert [row["manifest_hash"] for row in done["token_datasets"]] == [
        manifest.manifest_hash for manifest in manifests
    ]
    runs = {row["run_id"]: row["workflow"] for row in done["mlflow_runs"]}
    assert runs[trained.run_id] == "pretrain"
    assert runs[graded.run_id] == "evaluate"
    assert other.run_id not in runs
    assert list(runs.values()).count("tokenize") == 2
    assert workspace.report(3).exists()
    assert tracking.find_run(workspace, "refresh", tracking.corpus_tags(workspace, 3))

    # What is tokenised now is without it; the old version's tokens are still what they were.
    assert tokenise(session, folder).corpus_version == 3
    again = run(session, folder, "remove", "--uri", SECRET)
    assert (again["status"], len(again["token_datasets"])) == ("done", 2)
    answer = session.ask("refresh", "remove", "--uri", SECRET, "--workspace", str(folder / "ws"))
    assert "Token datasets that hold documents" in answer["out"]
    assert trained.run_id in answer["out"]


def test_an_old_version_is_read_as_it_was(session: RefreshSession, folder: Path) -> None:
    place = ("--workspace", str(folder / "ws"))
    old = session.ask("refresh", "--explain", SECRET, "--as-of", "2", *place)
    assert (old["code"], "document" in old["out"]) == (0, True), old
    new = session.ask("refresh", "--explain", SECRET, "--as-of", "99", *place)
    assert (new["code"], "has no version 99" in new["err"]) == (2, True)


def test_a_purge_deletes_what_holds_the_document_and_says_what(session: RefreshSession, folder: Path) -> None:
    workspace = Workspace.existing(str(folder / "ws"))
    # What a tokenise leaves that is killed: shards without a manifest.
    begun = workspace.tokens / "bpe" / "v000002-killed"
    begun.mkdir()
    (begun / "web-train-00000.arrow").write_bytes(b"the document, as tokens")
    with locked(workspace.tokens / "bpe" / ".lock", "tokens"):
        answer = session.ask(
            "refresh", "remove", "--uri", SECRET, "--purge", "--workspace", str(folder / "ws")
        )
    assert answer["code"] == 1, answer
    assert "token dataset bpe" in answer["err"]
    assert workspace.corpus.at(1)["version"] == 1

    done = run(session, folder, "remove", "--uri", SECRET, "--purge")
    assert done["purged"]["versions"] == [1, 2]
    assert done["purged"]["shards"] >= 2
    assert not begun.exists()
    with pytest.raises(InputError, match="files of version 1 were removed"):
        workspace.corpus.at(1)
    left = [
        Manifest.load(path.parent).corpus_version for path in workspace.tokens.glob("bpe/v*/manifest.json")
    ]
    assert left == [3]
    assert not workspace.report(1).exists()
    assert workspace.report(3).exists()
    shown = run(session, folder, "history")["versions"]
    assert [bool(row["vacuumed_at"]) for row in shown] == [True, True, False]


def test_a_vacuum_keeps_the_versions_that_tokens_were_made_of(session: RefreshSession, folder: Path) -> None:
    for number in (4, 5):
        write(folder / f"in/{number}.jsonl", **{f"more-{number}": prose(200 + number, 150)})
        assert run(session, folder)["version"] == number
    dry = run(session, folder, "vacuum", "--keep", "1", "--dry-run")
    assert (dry["status"], dry["versions"]) == ("dry_run", [4])
    done = run(session, folder, "vacuum", "--keep", "1")
    assert done["versions"] == [4]
    workspace = Workspace.existing(str(folder / "ws"))
    assert workspace.corpus.at(3)["version"] == 3
    back = run(session, folder, "rollback", "3")
    assert (back["version"], back["status"]) == (6, "committed")
    assert workspace.corpus.read("documents", workspace.corpus.at(), ["uri"]).num_rows == 41


def test_what_cannot_be_done_is_one_line_and_a_code(
    session: RefreshSession, folder: Path, tmp_path: Path
) -> None:
    place = ("--workspace", str(folder / "ws"))
    for arguments, words in (
        (("rollback", *place), "name the version to go back to"),
        (("rollback", "77", *place), "has no version 77"),
        (("vacuum", "--keep", "0", *place), "at least the newest version stays"),
        (("remove", *place), "nothing to take down"),
        (("remove", "--domain", "org", *place), "no domain of two parts"),
        (("diff", "--workspace", str(tmp_path / "none")), "there is no folder"),
        (("history", "--workspace", str(tmp_path)), "holds no corpus yet"),
    ):
        code, summary, errors = session.run(*arguments)
        assert (code, summary["status"], summary["exit_code"]) == (2, "refused", 2), arguments
        assert words in summary["message"]
        assert f"error: {summary['message']}" in errors
        assert "Traceback" not in errors
    workspace = Workspace.existing(str(folder / "ws"))
    with workspace.corpus.locked():
        code, summary, errors = session.run("remove", "--uri", "x", *place)
    assert (code, summary["status"], summary["exit_code"]) == (1, "busy", 1)
    assert "is worked on by another process" in errors


# ----------------------------------------------------------------------------------------------------------- webhook


@pytest.fixture
def posts() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(URL, what was posted to it)."""
    found: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", found
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("failure", ["refused", "busy", "failed", "damaged"]),
        ("change", ["refused", "busy", "failed", "damaged", "committed"]),
        ("always", ["refused", "busy", "failed", "damaged", "committed", "nothing_new"]),
    ],
)
def test_a_webhook_hears_of_what_it_wants_to(
    when: Any, expected: list[str], posts: tuple[str, list[dict[str, Any]]]
) -> None:
    options = ReportOptions(webhook=posts[0], webhook_on=when)
    for error in (InputError("wrong"), Busy("at work"), RuntimeError("a bug")):
        with pytest.raises(type(error)), summarised("refresh", options):
            raise error
    for status in ("damaged", "committed", "nothing_new"):
        with summarised("refresh", options) as summary:
            summary |= {"status": status, "damaged": [{"path": "x"}] if status == "damaged" else []}
    assert [post["status"] for post in posts[1]] == expected
    assert posts[1][0]["text"] == "gptmill refresh: refused. wrong"
    assert [post["exit_code"] for post in posts[1][:3]] == [2, 1, 1]


def test_a_webhook_that_fails_is_a_warning_without_its_address(
    posts: tuple[str, list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for url in (f"{posts[0]}/broken", "http://127.0.0.1:9/secret"):
        monkeypatch.setenv("GPTMILL_WEBHOOK", url)
        with summarised("refresh", ReportOptions(webhook_on="always")):
            pass
        said = capsys.readouterr().err
        assert said.startswith("warning: the webhook did not take the message (")
        assert "secret" not in said


def test_waiting_is_a_switch_or_a_number_of_seconds() -> None:
    for arguments, seconds in (
        ([], 0),
        (["--wait"], float("inf")),
        (["--wait", "90"], 90),
        (["--wait=0.5"], 0.5),
    ):
        options = cli.parse(refresh.Options, "refresh", "", arguments)
        assert versions.seconds_to_wait(options.wait) == seconds
