"""The command line of every workflow: YAML files, dotted overrides, --print_config, --help, exit codes.

Dataclasses are the only definition of an option; their field docstrings are the help. A user's mistake ends
with one line on standard error and exit code 2; a bug keeps its traceback and ends with 1.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

import jsonargparse
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from data_pipeline.errors import Busy, InputError, find_error
from gpt.config import ConfigError

Options = TypeVar("Options")
Defaults = Callable[[str], dict[str, Any]]

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


def run(
    options_class: type[Options],
    main: Callable[[Options], None],
    name: str,
    description: str,
    argv: Sequence[str] | None = None,
    preset_defaults: Defaults | None = None,
) -> int:
    """Parse the command line and run a workflow.

    Args:
        options_class: dataclass of the workflow's options.
        main: the workflow.
        name: of the module, for the usage line.
        preset_defaults: for workflows with a `preset` option: its name to the defaults it sets.

    Returns:
        The process's exit code.
    """
    try:
        options = parse(options_class, name, description, argv, preset_defaults)
        _call(main, options)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one was", file=sys.stderr)
        return 1
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2 if find_error(error, Busy) is None else 1
    return 0


def _call(main: Callable[[Options], None], options: Options) -> None:
    """Run a workflow; a SystemExit out of it is Ray's answer to SIGTERM, and ends like Ctrl-C."""
    try:
        main(options)
    except SystemExit:
        raise KeyboardInterrupt from None


def parse(
    options_class: type[Options],
    name: str,
    description: str,
    argv: Sequence[str] | None = None,
    preset_defaults: Defaults | None = None,
) -> Options:
    """Options from the command line.

    Raises:
        InputError: unknown options, wrong types, unreadable configuration files.
    """
    argv = _spelled_out(sys.argv[1:] if argv is None else argv, options_class)
    parser = build_parser(options_class, name, description)
    try:
        if preset_defaults is not None:
            parser.set_defaults(preset_defaults(_chosen_preset(argv, parser.get_default("preset"))))
        values = parser.instantiate(parser.parse_args(argv))
    except ArgumentError as error:
        raise InputError(_one_line(str(error), _option_names(parser))) from None
    except UnicodeDecodeError as error:
        raise InputError(f"config: the file is not UTF-8 ({error}); save it as UTF-8") from None
    return options_class(**{field.name: values[field.name] for field in fields(options_class)})  # type: ignore[arg-type]


def _spelled_out(argv: Sequence[str], options_class: type) -> list[str]:
    """The arguments as jsonargparse has them: --accept-loss is --accept_loss, --dry-run is --dry_run=true."""
    names = {entry.name.replace("_", "-"): entry.name for entry in fields(options_class)}
    switches = {entry.name for entry in fields(options_class) if isinstance(entry.default, bool)}
    spelled = []
    for index, argument in enumerate(argv):
        option, equals, value = argument.partition("=")
        name = names.get(option[2:], option[2:]) if option.startswith("--") else ""
        if name in switches and not equals and (index + 1 == len(argv) or argv[index + 1].startswith("--")):
            equals, value = "=", "true"
        spelled.append(f"--{name}{equals}{value}" if name else argument)
    return spelled


def build_parser(options_class: type, name: str, description: str) -> ArgumentParser:
    """The parser of a workflow's options."""
    _resolve_annotations(options_class)
    parser = ArgumentParser(
        prog=f"python -m workflows.{name}",
        description=description,
        exit_on_error=False,
        # --pres for --preset would be taken here and missed by whatever reads the command line beside the parser.
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_class_arguments(options_class)
    return parser


def _resolve_annotations(options_class: type) -> None:
    """Turn the postponed annotations of a dataclass, and of those it holds, into types.

    jsonargparse would do so too, but by running the TYPE_CHECKING blocks of their modules, which import all
    that `--help` must not wait for.
    """
    hints = get_type_hints(options_class)
    vars(options_class)["__init__"].__annotations__ = {**hints, "return": None}
    for owner in options_class.__mro__:
        if is_dataclass(owner):
            owner.__annotations__ = {name: hints[name] for name in owner.__annotations__}
    for entry in fields(options_class):
        entry.type = hints[entry.name]
        for hint in (hints[entry.name], *get_args(hints[entry.name])):
            if isinstance(hint, type) and is_dataclass(hint):
                _resolve_annotations(hint)


def user_message(error: BaseException) -> str | None:
    """The line for the user where an error, or what it wraps, is the user's mistake; else None."""
    found = find_error(error, InputError, ConfigError)
    return None if found is None else " ".join(str(found).split())


def _chosen_preset(argv: Sequence[str], default: str) -> str:
    """The preset named last, on the command line or in a configuration file, else the default."""
    chosen = default
    for index, argument in enumerate(argv):
        key, _, value = argument.partition("=")
        value = value or (argv[index + 1] if index + 1 < len(argv) else "")
        if key == "--config":
            try:
                with open(value, encoding="utf-8") as file:
                    content = yaml.safe_load(file)
                chosen = content.get("preset", chosen) if isinstance(content, dict) else chosen
            except (OSError, UnicodeDecodeError, yaml.YAMLError):
                pass  # the parser itself reports an unreadable file
        elif key == "--preset":
            chosen = value
    return str(chosen)


def _option_names(parser: ArgumentParser) -> list[str]:
    return [option.lstrip("-") for action in parser._actions for option in action.option_strings]


def _one_line(message: str, known: Iterable[str]) -> str:
    """jsonargparse's message as one line; an unknown option gets the nearest known one beside it."""
    line = " ".join(message.split())
    line = re.sub(r"^Parser key \"([^\"]+)\": ", r"\1: ", line)
    line = re.sub(r"<class '([^']+)'>", r"\1", line)
    line = re.sub(r"typing\.Literal\[([^]]*)\]", r"one of \1", line)
    name = _unknown_option(line)
    if not name:
        return line
    siblings = [
        option for option in known if option.count(".") == name.count(".") and not option.endswith(".help")
    ]
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)
    return f"{name}: no such option; {f'did you mean {near[0]}? ' if near else ''}--help lists them all"


def _unknown_option(line: str) -> str:
    """The full name of the option that a message of jsonargparse calls unknown, or ""."""
    for pattern in (
        r"unrecognized arguments: --([\w.]+)",
        r"[Kk]ey '([\w.]+)' is not expected",
        r"Group '([\w.]+)' does not accept option '([\w.]+)'",
        r"^([\w.]+): .*Option '([\w.]+)' is not accepted",
        r"^Option '([\w.]+)' is not accepted",
    ):
        found = re.search(pattern, line)
        if found:
            return ".".join(found.groups())
    return ""
