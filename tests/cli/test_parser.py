"""What may be written, without anybody who does it."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otsd import app
from otsd.cli import context, parser
from otsd.settings import schema

DOCS = Path(__file__).parents[2] / "docs" / "command-line.md"
COMMON = {"--help", "--config", "--json"}


def parse(*words: str) -> argparse.Namespace:
    return parser.build(schema()).parse_args(words, parser.unset())


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        parse(*words)
    assert end.value.code == 2
    told = capsys.readouterr()
    assert not told.out
    return told.err


def commands(
    tree: argparse.ArgumentParser, name: str = "otsd"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command that does something, by its words."""
    if tree.get_default("do"):
        yield name, tree
    for action in tree._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from commands(inner, f"{name} {word}")


def own(command: argparse.ArgumentParser) -> tuple[set[str], list[str]]:
    """Return the options that only this command has, and what stands without one."""
    actions = [
        action for action in command._actions if not isinstance(action, argparse._SubParsersAction)
    ]
    options = {option for action in actions for option in action.option_strings if "--" in option}
    return (
        {option for option in options - COMMON if "." not in option},
        [str(action.metavar) for action in actions if not action.option_strings],
    )


def test_the_page_about_the_command_line_has_every_command_and_no_other() -> None:
    block = re.search(r"```\n(otsd .+?)```", DOCS.read_text(), re.DOTALL)
    assert block
    written = {}
    for line in re.sub(r"\n +", " ", block[1]).splitlines():
        name = re.match(r"otsd( [a-z]+)*", line)
        assert name
        rest = line.removeprefix(name[0])
        options = set(re.findall(r"--[a-z-]+", rest))
        written[name[0]] = options, re.findall(r"[A-Z]+", re.sub(r"--[a-z-]+ [A-Z]+", "", rest))
    assert written == {name: own(command) for name, command in commands(parser.build())}


def test_the_page_names_the_options_that_every_command_has() -> None:
    text = DOCS.read_text()
    for option in ("`--config FILE`", "`--json`", "`--storage.directory data`"):
        assert option in text


def test_every_setting_is_an_option_of_every_command_and_secrets_only_by_their_file() -> None:
    wanted = {f"--{setting.file_key or setting.key}" for setting in schema()}
    refused = {f"--{setting.key}" for setting in schema() if setting.secret}
    assert "--home_assistant.token_file" in wanted
    assert "--home_assistant.token" in refused - wanted
    for name, command in commands(parser.build(schema())):
        options = {option for option in command._option_string_actions if "." in option}
        assert options == wanted | refused, name


def test_the_help_of_run_lists_the_settings_by_section_and_that_of_others_does_not() -> None:
    by_name = dict(commands(parser.build(schema())))
    text = by_name["otsd run"].format_help()
    for setting in schema():
        assert f"--{setting.file_key or setting.key} " in text
    assert re.search(r"^public:\n  --public\.host", text, re.MULTILINE)
    assert "--public.port" not in by_name["otsd token create"].format_help()
    assert "otsd run --help" in by_name["otsd token create"].format_help()


def test_the_help_of_the_demo_has_nothing_that_it_does_not_take() -> None:
    by_name = dict(commands(parser.build(schema())))
    assert "--config FILE" not in by_name["otsd demo"].format_help()
    assert "--config FILE" in by_name["otsd status"].format_help()


@pytest.mark.parametrize(
    "words",
    [
        ("token", "list", "--json", "--config", "c.toml", "--public.port", "80", "--limit", "3"),
        ("token", "--json", "--config", "c.toml", "list", "--limit", "3", "--public.port", "80"),
        ("token", "--public.port=80", "list", "--limit=3", "--config=c.toml", "--json"),
    ],
)
def test_options_stand_anywhere_after_the_command(words: tuple[str, ...]) -> None:
    given = parse(*words)
    assert (given.json, given.config, given.limit) == (True, Path("c.toml"), 3)
    assert vars(given)["public.port"] == "80"


def test_options_stand_before_and_behind_what_they_belong_to() -> None:
    before = parse("token", "create", "--uses", "3", "--qr", "open-door", "--comment", "a b")
    behind = parse("token", "create", "open-door", "--comment", "a b", "--uses", "3", "--qr")
    assert vars(before) == vars(behind)
    assert vars(parse("submissions", "--json", "refund", "4"))["json"] is True
    assert vars(parse("submissions", "refund", "4", "--json"))["json"] is True


def test_what_is_not_written_is_unset() -> None:
    given: dict[str, Any] = vars(parse("token", "create", "open-door"))
    assert given["config"] is None
    assert given["json"] is False
    assert not [key for key in given if "." in key]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "COMMAND"),
        (("token",), "COMMAND"),
        (("tokn",), "invalid choice"),
        (("token", "create"), "ACTION"),
        (("token", "create", "a", "b"), "unrecognized arguments: b"),
        (("token", "create", "a", "--uses", "true"), "'true' is not a whole number"),
        (("token", "create", "a", "--uses", "NaN"), "not a whole number"),
        (("token", "create", "a", "--uses", "1e3"), "not a whole number"),
        (("token", "create", "a", "--uses", "1_000"), "not a whole number"),
        (("token", "create", "a", "--uses", "٣"), "not a whole number"),
        (("token", "create", "a", "--uses", "9" * 5000), "not a whole number"),
        (("token", "create", "a", "--uses", "1", "--unlimited"), "not allowed with"),
        (("token", "create", "a", "--no-expiry", "--expires-in", "2h"), "not allowed with"),
        (("token", "create", "a", "--expires-at", "x", "--expires-in", "2h"), "not allowed with"),
        (("token", "create", "a", "--comm", "x"), "unrecognized arguments"),
        (("token", "delete", ""), "must not be empty"),
        (("token", "delete", ".."), "must not be empty"),
        (("token", "list", "--state", "gone"), "invalid choice: 'gone' (choose from 'revoked'"),
        (("token", "list", "--limit", "0"), "must be at least 1"),
        (("submissions", "--limit", "-1"), "must be at least 1"),
        (("submissions", "refund"), "ID"),
        (("run", "--home_assistant.token", "secret"), "would be seen by others"),
        (("run", "--public.prot", "80"), "unrecognized arguments"),
        (("run", "--json"), "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_explained_and_does_nothing(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    assert told in refused(capsys, *words)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("run", "--public-port", "80"), "; did you mean --public.port?"),
        (("run", "--home-assistant.url=http://a"), "; did you mean --home_assistant.url?"),
        (("run", "--public.prot", "80"), "; did you mean --public.port?"),
        (
            ("run", "--base-url", "http://a"),
            "; did you mean --public.base_url or --admin.base_url?",
        ),
        (("token", "create", "a", "--comm", "x"), "; did you mean --comment?"),
        (("import", "db.json", "--dryrun"), "; did you mean --dry-run?"),
        (("tokens", "list"), "; did you mean token?"),
        (("token", "crate", "a"), "; did you mean create?"),
        (("token", "list", "--state", "use_up"), "; did you mean used_up?"),
        (("--config", "a.toml", "run"), "--config stands after the command: otsd COMMAND --config"),
        (("--public.port=80", "run"), "stands after the command: otsd COMMAND --public.port"),
        (("token", "--limit", "3", "list"), "after the command: otsd token COMMAND --limit"),
        (("--nonsense",), "error: unrecognized arguments: --nonsense"),
        (("--jsn", "status"), "error: unrecognized arguments: --jsn; did you mean --json?"),
        (("--", "status"), "error: unrecognized arguments: --"),
        (("token", "--nonsense", "list"), "error: unrecognized arguments: --nonsense"),
    ],
)
def test_what_was_probably_meant_is_said(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], hint: str
) -> None:
    assert f"{hint}\n" in refused(capsys, *words)


def test_what_is_like_nothing_gets_no_hint_and_its_own_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = refused(capsys, "token", "revoke", "k7m2qx4d", "--wholly-different")
    assert told.startswith("usage: otsd token revoke ")
    assert told.endswith(
        "otsd token revoke: error: unrecognized arguments: --wholly-different\n"
        "otsd token revoke --help says more.\n"
    )


def test_a_comment_may_begin_with_a_dash_and_a_number_may_be_negative() -> None:
    given = parse("token", "create", "a", "--comment=--so--", "--uses", "-1")
    assert given.comment == "--so--"
    assert given.uses == -1


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_load_nothing_that_takes_time(word: str) -> None:
    program = (
        "import sys; from otsd.cli import main\n"
        "try: main([sys.argv[1]])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'aiohttp', 'pydantic', 'yaml', 'segno', 'jinja2', 'cryptography', 'http'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, word], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "[]"
    assert not ran.stderr


def test_a_command_of_the_daemon_does_not_load_the_daemon(tmp_path: Path) -> None:
    program = (
        "import sys; from otsd.cli import main\n"
        "assert main(['status']) == 1\n"
        "print(sorted({'aiohttp', 'otsd.app', 'yaml', 'segno', 'sqlite3'} & sys.modules.keys()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ran.stdout == "[]\n"


def test_both_sides_mean_the_same_socket() -> None:
    assert context.SOCKET == app.SOCKET


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for line in (["--mqtt.password", "hunter2"], ["--mqtt.password=hunter2"]):
        with pytest.raises(SystemExit) as end:
            parser.build(schema()).parse_args(["run", *line])
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert "--mqtt.password_file FILE" in said
        assert "hunter2" not in said
