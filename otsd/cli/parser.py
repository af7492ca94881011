"""What may be written after ``otsd``, and which function does it.

Options of every command (``--config``, ``--json``, the settings) may stand anywhere after its
first word. They have no defaults of their own in the tree: argparse would let those of an inner
parser overwrite what was written before its name. `unset` holds them instead.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from otsd import __version__
from otsd.cli import actions, backup, check, demo, imports, keys, run, status, submissions, tokens
from otsd.core.access import Scope
from otsd.core.tokens import SubmissionState, TokenState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from enum import StrEnum

    from otsd.cli.context import Context
    from otsd.settings import Setting

_SETTINGS_TOO: Final = (
    "Every setting can be given as an option too, as in --storage.directory DIRECTORY; "
    "otsd run --help lists them."
)


def unset() -> argparse.Namespace:
    """Return what holds of the options that every command has, when they are not written."""
    return argparse.Namespace(config=None, json=False)


def build(settings: Sequence[Setting] = ()) -> argparse.ArgumentParser:
    """Build the whole tree; ``settings`` are the options of every command that reads them."""
    top = _Parser(
        prog="otsd",
        description="Links that run one Home Assistant action, at most as often as you say.",
        epilog="otsd COMMAND --help says more.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"otsd {__version__}")
    tree = _Tree(top, _configuration(settings, shown=True), _configuration(settings, shown=False))
    _run(tree)
    _demo(tree)
    _check(tree)
    _action(tree.group("action", "the actions that links can run"))
    _token(tree.group("token", "tokens and their links"))
    _submissions(tree)
    _key(tree.group("key", "keys for programs that use the API"))
    _import(tree)
    _backup(tree)
    tree.command("status", status.show, "how the daemon and its connections stand")
    return top


class _Parser(argparse.ArgumentParser):
    """A parser that refuses what it does not know by itself, and says what was probably meant."""

    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str],
        namespace: Any = None,  # noqa: ANN401 - as argparse has it
    ) -> tuple[Any, list[str]]:
        """Parse; argparse lets the outermost parser refuse, which knows no command's options."""
        first = "".join(args[:1]).partition("=")[0]
        is_strange = first.startswith("-") and first not in self._option_string_actions
        if is_strange and self.get_default("do") is None:
            known = set(self.options())
            if first not in known:
                self.error(f"unrecognized arguments: {first}{_did_you_mean(first, known)}")
            self.error(f"{first} stands after the command: {self.prog} COMMAND {first}")
        given, strange = super().parse_known_args(args, namespace)
        if strange:
            options = [word.partition("=")[0] for word in strange if word.startswith("-")]
            hint = _did_you_mean(options[0], self._option_string_actions) if options else ""
            self.error(f"unrecognized arguments: {' '.join(strange)}{hint}")
        return given, strange

    def options(self) -> Iterator[str]:
        """Yield its options, and those of all its commands."""
        yield from self._option_string_actions
        for action in self._actions:
            if isinstance(action.choices, dict):
                for command in action.choices.values():
                    yield from command.options()

    def hide(self, option: str) -> None:
        """Leave an option of this parser alone out of its help."""
        self._option_string_actions[option].help = argparse.SUPPRESS

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _did_you_mean(str(value), action.choices or ())
            raise

    def error(self, message: str) -> NoReturn:
        """End with what is wrong, and where there is more to read."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help says more.\n")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask for what is spelt alike, or for the settings whose key is the word without a section."""
    plain = {_plain(each): each for each in known}
    meant = _plain(word)
    near = [each for each in plain.values() if _plain(each.rpartition(".")[2]) == meant]
    if meant in plain or not near:
        near = [plain[each] for each in difflib.get_close_matches(meant, plain, n=1)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _plain(word: str) -> str:
    return re.sub(r"[-_.]", "", word.lower())


class _Tree:
    """A parser whose first word is a command."""

    def __init__(
        self,
        parser: _Parser,
        shown: _Parser,
        hidden: _Parser,
        *,
        required: bool = True,
    ) -> None:
        self._shown = shown
        self._hidden = hidden
        self._commands = parser.add_subparsers(
            title="commands",
            metavar="COMMAND" if required else "[COMMAND]",
            required=required,
            dest="_command",
        )

    def command(
        self,
        name: str,
        do: Callable[[Context], int],
        purpose: str,
        *,
        json: bool = True,
        show_settings: bool = False,
    ) -> _Parser:
        """Add a command."""
        parser = self._add(name, purpose, show_settings=show_settings)
        if show_settings:  # as many as there are, they would hide the rest
            some = "[--json] " if json else ""
            parser.usage = f"%(prog)s [-h] [--config FILE] {some}[--SECTION.KEY VALUE ...]"
        if json:
            _add_json(parser)
        parser.set_defaults(do=do)
        return parser

    def group(self, name: str, purpose: str) -> _Tree:
        """Add a word that commands follow."""
        parser = self._add(name, purpose, show_settings=False)
        _add_json(parser, shown=False)
        return _Tree(parser, self._shown, self._hidden)

    def within(self, parser: _Parser) -> _Tree:
        """Let commands follow a command that does something by itself too."""
        return _Tree(parser, self._shown, self._hidden, required=False)

    def _add(self, name: str, purpose: str, *, show_settings: bool) -> _Parser:
        parser = self._commands.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            parents=[self._shown if show_settings else self._hidden],
            epilog=None if show_settings else _SETTINGS_TOO,
            allow_abbrev=False,
        )
        parser.add_argument(
            "--config",
            metavar="FILE",
            type=Path,
            default=argparse.SUPPRESS,
            help="the configuration; else $OTSD_CONFIG, else ./config.toml",
        )
        return parser


def _configuration(settings: Sequence[Setting], *, shown: bool) -> _Parser:
    """Make an option of every setting, secrets by a file alone."""
    parser = _Parser(add_help=False)
    sections: dict[str, Any] = {}
    for setting in settings:
        name = setting.key.partition(".")[0]
        if shown and name not in sections:
            sections[name] = parser.add_argument_group(name)
        words = f"{setting.description} [{setting.default}]".replace("%", "%%")
        # a command line can be read by everybody on the machine
        key = setting.file_key or setting.key
        sections.get(name, parser).add_argument(
            f"--{key}",
            dest=key,
            metavar="FILE" if setting.file_key else "VALUE",
            default=argparse.SUPPRESS,
            help=words if shown else argparse.SUPPRESS,
        )
        if setting.file_key:
            parser.add_argument(
                f"--{setting.key}",
                action=_NoSecret,
                nargs="?",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
    return parser


class _NoSecret(argparse.Action):
    """Refuses a secret on the command line, and does not repeat it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        option = self.option_strings[0]
        parser.error(f"{option} would be seen by others; give {option}_file FILE")


def _add_json(parser: argparse.ArgumentParser, *, shown: bool = True) -> None:
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print what the API answers, for programs" if shown else argparse.SUPPRESS,
    )


# -- the commands ----------------------------------------------------------------------------


def _run(tree: _Tree) -> None:
    tree.command(
        "run", run.run, "run the daemon until it is told to stop", json=False, show_settings=True
    )


def _demo(tree: _Tree) -> None:
    parser = tree.command(
        "demo",
        demo.demo,
        "a real Home Assistant, a real broker and otsd, with a door to open",
        json=False,
    )
    parser.hide("--config")
    parser.epilog = "It has a configuration of its own: it takes no --config and no settings."
    parser.add_argument(
        "--lan",
        action="store_true",
        help="let everybody in your network reach Home Assistant and the link, such as your phone",
    )


def _check(tree: _Tree) -> None:
    tree.command(
        "check",
        check.check,
        "try the configuration, the storage, Home Assistant and the broker",
        show_settings=True,
    )


def _action(tree: _Tree) -> None:
    tree.command("list", actions.list_, "list the actions, newest first").add_argument(
        "--limit", type=_count, metavar="N", help="at most so many"
    )
    _name(tree.command("show", actions.show, "show an action and its YAML"))
    apply = tree.command("apply", actions.apply, "create or replace the actions of a file")
    apply.add_argument("file", metavar="FILE", help="a YAML file of actions; - is standard input")
    delete = tree.command("delete", actions.delete, "delete an action")
    _name(delete)
    delete.add_argument("--force", action="store_true", help="revoke the tokens that use it")
    _name(tree.command("run", actions.run, "run an action now"))


def _token(tree: _Tree) -> None:
    create = tree.command("create", tokens.create, "make a token and print its link")
    create.add_argument("action", metavar="ACTION", type=_given, help="the action that it may run")
    _terms(create, length="how long it can be used, such as 2h or 1h30m")
    create.add_argument(
        "--device",
        action=argparse.BooleanOptionalAction,
        help="whether it is a device in Home Assistant; else if it can be used other than once",
    )
    _qr(create)

    listing = tree.command("list", tokens.list_, "list the tokens, newest first")
    listing.add_argument("--state", choices=_values(TokenState), help="only those in this state")
    listing.add_argument("--action", metavar="NAME", help="only those of this action")
    listing.add_argument("--limit", type=_count, metavar="N", help="at most so many")

    _id(tree.command("show", tokens.show, "show a token"))
    link = tree.command("link", tokens.link, "print the link of a token again")
    _id(link)
    _qr(link)
    edit = tree.command("edit", tokens.edit, "change a token")
    _id(edit)
    _terms(edit, length="end so long from now, such as 2h or 1h30m")
    _id(tree.command("revoke", tokens.revoke, "end a token for good; its history stays"))
    _id(tree.command("pause", tokens.pause, "forbid submissions until the token is resumed"))
    _id(tree.command("resume", tokens.resume, "allow submissions again"))
    _id(tree.command("replenish", tokens.replenish, "give a token all of its uses again"))
    rotate = tree.command("rotate", tokens.rotate, "give a token a new link; the old one ends")
    _id(rotate)
    _qr(rotate)
    duplicate = tree.command("duplicate", tokens.duplicate, "make another token of the same kind")
    _id(duplicate)
    _qr(duplicate)
    _id(tree.command("delete", tokens.delete, "remove a token and its history"))


def _submissions(tree: _Tree) -> None:
    parser = tree.command("submissions", submissions.list_, "list what visitors did, newest first")
    parser.add_argument("--token", metavar="ID", help="only those of this token")
    parser.add_argument(
        "--state", choices=_values(SubmissionState), help="only those in this state"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="at most so many")
    parser.add_argument(
        "--follow",
        action="store_true",
        help="print each as it finishes, from now on, or after the newest N of --limit",
    )
    refund = tree.within(parser).command(
        "refund", submissions.refund, "give back the use of a submission that stayed spent"
    )
    refund.add_argument("id", metavar="ID", type=_given, help="the submission's number")


def _key(tree: _Tree) -> None:
    create = tree.command("create", keys.create, "make a key and print it, once")
    create.add_argument("name", metavar="NAME", type=_given, help="the program that it is for")
    create.add_argument("--scope", choices=_values(Scope), required=True, help="what it may do")
    create.add_argument(
        "--action",
        metavar="NAME",
        action="append",
        help="an action that a mint key makes tokens of; may be given more than once",
    )
    end = create.add_mutually_exclusive_group()
    end.add_argument("--expires-in", metavar="LENGTH", help="how long it is valid, such as 90d")
    end.add_argument("--expires-at", metavar="TIME", help="until when, such as 2026-12-01T18:00")
    listing = tree.command("list", keys.list_, "list the keys, newest first")
    listing.add_argument("--limit", type=_count, metavar="N", help="at most so many")
    revoke = tree.command("revoke", keys.revoke, "end a key for good")
    revoke.add_argument("id", metavar="ID", type=_given, help="the key's id")


def _import(tree: _Tree) -> None:
    parser = tree.command(
        "import", imports.take, "take over the actions and links of the One Time Service add-on"
    )
    parser.add_argument(
        "file", metavar="FILE", type=_given, help="its db.json; - is standard input"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would become of it, and change nothing"
    )


def _backup(tree: _Tree) -> None:
    file = tree.command("backup", backup.backup, "write all that otsd keeps to a new file")
    file.add_argument("file", metavar="FILE", type=_given, help="where; nothing is written over")
    file = tree.command("restore", backup.restore, "put a backup into an empty storage directory")
    file.add_argument(
        "file", metavar="FILE", type=_given, help="what otsd backup wrote; - is standard input"
    )


# -- options that several have -----------------------------------------------------------------


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=_given, help="the action's name")


def _id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=_given, help="the token's id")


def _qr(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--qr", action="store_true", help="draw the link as a QR code as well")


def _terms(parser: argparse.ArgumentParser, *, length: str) -> None:
    """Add what a token is made with, or can be changed to; what is not written stays unset."""
    uses = parser.add_mutually_exclusive_group()
    uses.add_argument("--uses", metavar="N", type=_whole, help="how often it can be used")
    uses.add_argument("--unlimited", action="store_true", help="as often as its holder likes")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--expires-in", metavar="LENGTH", help=length)
    end.add_argument("--expires-at", metavar="TIME", help="until when, such as 2026-12-01T18:00")
    end.add_argument("--no-expiry", action="store_true", help="it does not expire")
    parser.add_argument("--valid-from", metavar="TIME", help="from when on it can be used")
    parser.add_argument("--comment", metavar="TEXT", help="what it is for; visitors see it")


# -- values: what they may be beyond that, the daemon says ---------------------------------------


def _values(kind: type[StrEnum]) -> list[str]:
    return [member.value for member in kind]


def _given(text: str) -> str:
    # an empty name, as an unset variable of a script leaves it, would name the list
    if not text.strip(" ./"):
        msg = "must not be empty"
        raise argparse.ArgumentTypeError(msg)
    return text


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,1000}", text):
        msg = f"{text[:40]!r} is not a whole number"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _count(text: str) -> int:
    if (number := _whole(text)) < 1:
        msg = "must be at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number
