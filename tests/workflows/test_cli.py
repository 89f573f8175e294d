"""Options, their errors and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_pipeline.config import CleanConfig
from data_pipeline.crawl_config import CrawlConfig
from data_pipeline.errors import InputError
from data_pipeline.filter_presets import PRESETS
from gpt.config import ConfigError
from tests.workflows.conftest import run_workflow
from workflows import cli, demo, evaluate, finetune, pretrain, refresh, review, tokenize
from workflows.models import newest_model
from workflows.passages import PassageConfig
from workflows.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ("crawl", "refresh", "tokenize", "pretrain", "finetune", "evaluate", "review", "demo")


def parse_pretrain(*argv: str) -> pretrain.Options:
    return cli.parse(pretrain.Options, "pretrain", "", argv, pretrain.preset_defaults)


def test_a_preset_sets_defaults_and_options_override_it() -> None:
    options = parse_pretrain("--preset", "tiny", "--train.num_steps", "7")
    assert options.model.width == 32
    assert options.train.num_steps == 7
    assert options.train.precision == "fp32"


def test_options_may_be_spelled_with_hyphens() -> None:
    for argv in (["--accept-loss", "web", "--rebuild"], ["--accept_loss=web", "--rebuild", "true"]):
        options = cli.parse(refresh.Options, "refresh", "", argv)
        assert (options.accept_loss, options.rebuild, options.dry_run) == ("web", True, False)
    assert cli.parse(refresh.Options, "refresh", "", ["--accept-loss=[web, book]"]).accept_loss == [
        "web",
        "book",
    ]


def test_a_file_is_read_and_the_command_line_wins_over_it(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"preset": "tiny", "train": {"num_steps": 5, "batch_size": 4}}))
    options = parse_pretrain("--config", str(config), "--train.num_steps", "9")
    assert (options.preset, options.model.width) == ("tiny", 32)
    assert (options.train.num_steps, options.train.batch_size) == (9, 4)


def test_the_preset_named_last_is_the_one_whose_defaults_are_taken(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("preset: tiny\n")
    options = parse_pretrain("--preset", "gpt2", "--config", str(config))
    assert (options.preset, options.model.width) == ("tiny", 32)


@pytest.mark.parametrize("content", [b"name: \xff\xfe\n", b"preset: \xe4\n"])
def test_a_file_that_is_not_utf8_gives_one_line(tmp_path: Path, content: bytes) -> None:
    config = tmp_path / "run.yaml"
    config.write_bytes(content)
    with pytest.raises(InputError, match="UTF-8") as raised:
        parse_pretrain("--config", str(config))
    assert "\n" not in str(raised.value)


def test_a_printed_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "workflows.pretrain",
        "--preset",
        "tiny",
        "--train.lr",
        "0.5",
        "--print_config",
    ]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    config = tmp_path / "printed.yaml"
    config.write_text(printed)
    assert parse_pretrain("--config", str(config)) == parse_pretrain("--preset", "tiny", "--train.lr", "0.5")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--train.num_stepz", "3"], ["train.num_stepz", "did you mean train.num_steps"]),
        (["--train.num_steps", "many"], ["train.num_steps", "int", "many"]),
        (["--train.precision", "fp7"], ["train.precision", "bf16", "fp7"]),
        (["--nonsense", "3"], ["nonsense", "no such option"]),
        (["--pres", "tiny"], ["pres", "no such option", "did you mean preset"]),
        (["--config", "/does/not/exist.yaml"], ["/does/not/exist.yaml"]),
    ],
)
def test_a_wrong_option_gives_one_line_that_names_it(argv: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        parse_pretrain(*argv)
    message = str(raised.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="demo"):
        parse_pretrain("--preset", "gpt9")


def test_an_unknown_key_in_a_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("train:\n  num_stepz: 3\n")
    with pytest.raises(InputError, match=r"train\.num_stepz.*did you mean train\.num_steps"):
        parse_pretrain("--config", str(config))


def test_an_unknown_key_of_a_source_is_named() -> None:
    with pytest.raises(InputError, match=r"sources\.kindd: no such option"):
        cli.parse(refresh.Options, "refresh", "", ["--sources", "[{name: a, kindd: web}]"])


SOURCES = """
sources:
  - {name: pages, kind: web, paths: [crawl/], weight: 2, language: {keep: [en]}, filters: {min_words: 20}}
  - name: essays
    paths: [essays/]
    extraction: {mode: fast}
language: {keep: [en, de]}
"""


def test_sources_of_a_file_have_options_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "refresh.yaml"
    path.write_text(SOURCES)
    config = cli.parse(
        refresh.Options, "refresh", "", ["--config", str(path), "--wiki", "dump.xml"]
    ).pipeline()
    config.validate()
    pages, essays, wiki = config.sources
    assert (pages.name, pages.weight, essays.weight, wiki.weight) == ("pages", 2.0, 1.0, 1.0)
    assert [config.of(source).language.keep for source in config.sources] == [
        ["en"],
        ["en", "de"],
        ["en", "de"],
    ]
    assert [config.of(source).extraction.mode for source in config.sources] == ["quality", "fast", "quality"]
    assert config.of(pages).filters.min_words == 20
    assert config.of(wiki).filters == PRESETS["wiki"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("weight: -1", ["sources[0].weight", "-1"]),
        ("weight: .nan", ["sources[0].weight", "nan"]),
        ("weight: heavy", ["weight", "heavy"]),
        ("wieght: 2", ["wieght", "no such option"]),
        ("language: {keeps: [en]}", ["keeps", "no such option"]),
        ("language: {min_score: 7}", ["sources[0].language.min_score", "7"]),
        ("extraction: {mode: slow}", ["sources[0].extraction.mode", "slow"]),
        ("clean: {normalization: NFX}", ["sources[0].clean.normalization", "NFX"]),
        ("filters: {min_word: 3}", ["filters", "min_word", "min_words"]),
        ("preset: bookish", ["preset", "bookish"]),
        ("kind: webb", ["sources[0].kind", "webb"]),
    ],
)
def test_a_wrong_value_of_a_source_is_one_line(source: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "refresh.yaml"
    path.write_text(f"sources: [{{name: a, paths: [b.jsonl], {source}}}]")
    with pytest.raises(InputError) as raised:
        cli.parse(refresh.Options, "refresh", "", ["--config", str(path)]).pipeline().validate()
    assert "\n" not in str(raised.value)
    assert all(word in str(raised.value) for word in words), str(raised.value)


@pytest.mark.parametrize(
    ("module", "argv", "words"),
    [
        ("pretrain", ["--model.num_heads", "3"], ["num_heads 3", "width 256"]),
        ("pretrain", ["--train.warmup_steps", "100000"], ["warmup_steps", "num_steps"]),
        ("tokenize", ["--shards.val_share", "0.9"], ["shards.val_share", "0.9"]),
        ("tokenize", ["--tokenizer.vocab_size", "10"], ["tokenizer.vocab_size", "266"]),
        ("refresh", ["--web", "/does/not/exist"], ["/does/not/exist"]),
        ("refresh", ["--quality.min_score", "0.5"], ["quality.min_score", "quality.model"]),
        ("crawl", ["--crawl.seeds", "[http://example.org/]"], ["crawl.contact", "example.org"]),
        ("pretrain", ["--workspace", "s3://bucket/x"], ["workspace", "s3://bucket/x"]),
        ("pretrain", [], ["bpe", "workflows.tokenize"]),
        ("finetune", [], ["workflows.pretrain"]),
        ("pretrain", ["--name", "../elsewhere"], ["name", "../elsewhere"]),
        ("evaluate", ["--model", "a/b"], ["model", "a/b"]),
        ("review", ["--workspace", "/does/not/exist"], ["workspace", "/does/not/exist"]),
        ("evaluate", ["--workspace", "/does/not/exist"], ["workspace", "/does/not/exist"]),
        ("tokenize", ["--workspace", "/dev/null/x"], ["workspace", "/dev/null/x"]),
        ("demo", ["--finetune.epochs", "0"], ["epochs", "0"]),
    ],
)
def test_what_cannot_work_ends_with_exit_code_2_and_one_line(
    tmp_path: Path, module: str, argv: list[str], words: list[str]
) -> None:
    workspace = [] if "--workspace" in argv else ["--workspace", str(tmp_path / "ws")]
    done = subprocess.run(
        [sys.executable, "-m", f"workflows.{module}", *workspace, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (pretrain.Options(workers=-1), "workers: -1"),
        (pretrain.Options(max_restarts=-1), "max_restarts: -1"),
        (finetune.Options(passages=PassageConfig(chars=0)), r"passages\.chars: 0"),
        (finetune.Options(passages=PassageConfig(val_share=1.0)), r"passages\.val_share: 1\.0"),
        (finetune.Options(finetune=finetune.FinetuneConfig(lr=0)), "lr is 0"),
        (evaluate.Options(max_tokens=0), "max_tokens: 0"),
        (review.Options(limit=0), "limit: 0"),
        (tokenize.Options(as_of=-1), "as_of: -1"),
        (demo.Options(workers=-1), "workers: -1"),
        (demo.Options(passages=PassageConfig(per_class=0)), r"passages\.per_class: 0"),
        (demo.Options(clean=CleanConfig(normalization="NFX")), "NFX"),
        (demo.Options(crawl=CrawlConfig()), r"crawl\.seeds"),
    ],
)
def test_a_value_that_cannot_work_is_named_before_any_work(options: Any, words: str) -> None:
    with pytest.raises((InputError, ConfigError), match=words):
        options.validate()


@pytest.mark.parametrize("web", ["", " ", ["crawl/", ""]])
def test_an_empty_path_is_not_the_whole_folder(web: str | list[str]) -> None:
    with pytest.raises(InputError, match="web: an empty path"):
        refresh.Options(web=web).pipeline()


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_help_explains_the_options_and_imports_nothing_heavy(workflow: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", f"workflows.{workflow}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "data_pipeline" in imported
    assert not imported & {"ray", "torch", "mlflow", "numba", "pandas", "deltalake", "tokenizers"}
    assert "--workspace" in done.stdout
    assert "Folder that everything is kept in." in done.stdout


@pytest.mark.parametrize(
    "options_class", [refresh.Options, tokenize.Options, pretrain.Options, review.Options, demo.Options]
)
def test_every_option_has_its_help(options_class: type) -> None:
    parser = cli.build_parser(options_class, "x", "")
    silent = [
        action.option_strings[0]
        for action in parser._actions
        if action.option_strings and not (action.help or "").partition("(type:")[0].strip()
    ]
    assert silent == []


def test_a_users_mistake_is_found_inside_the_errors_that_ray_wraps_around_it() -> None:
    class FromRay(Exception):
        cause: BaseException | None = None
        worker_failures: dict[int, BaseException]

    inner = FromRay("task failed")
    inner.cause = InputError("the shard is damaged")
    outer = FromRay("group failed")
    outer.worker_failures = {0: inner}
    assert cli.user_message(outer) == "the shard is damaged"
    assert cli.user_message(RuntimeError("a bug")) is None


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(15), SystemExit(0)])
def test_ctrl_c_or_sigterm_ends_with_exit_code_1(
    stop: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(options: object) -> None:
        raise stop

    assert cli.run(tokenize.Options, main, "tokenize", "", []) == 1
    assert "goes on" in capsys.readouterr().err


def test_a_half_written_model_is_not_the_newest(tmp_path: Path) -> None:
    for name in ("whole", ".tmp-half-1"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"kind": "gpt"}')
    assert newest_model(Workspace.open(str(tmp_path)), "gpt") == "whole"


def test_a_bug_keeps_its_traceback() -> None:
    def main(options: object) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        cli.run(tokenize.Options, main, "tokenize", "", [])


def test_a_dry_run_lists_what_is_new_and_what_is_done_and_writes_nothing(
    tokenised: Path, tmp_path: Path
) -> None:
    books = ROOT / "workflows" / "demo_data" / "books"
    (tmp_path / "more.jsonl").write_text('{"text": "new"}')
    arguments = ("--books", str(books), "--files", str(tmp_path / "more.jsonl"))
    before = sorted(tokenised.rglob("*"))
    known = run_workflow("refresh", "--workspace", str(tokenised), *arguments, "--dry-run")
    assert known.returncode == 0, known.stderr
    num_books = len(list(books.glob("*.txt")))
    assert known.stdout.count("done already") == num_books + 1
    assert f"1 files to read, 0.0 MB; {num_books} done already" in known.stdout
    assert sorted(tokenised.rglob("*")) == before
    unknown = run_workflow("refresh", "--workspace", str(tmp_path / "new"), *arguments, "--dry-run")
    assert f"{num_books + 1} files to read" in unknown.stdout
    assert not (tmp_path / "new").exists()
