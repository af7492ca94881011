"""The configuration: its sources, its faults, its secrets, and what is written about it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from datetime import timedelta
from ipaddress import ip_address, ip_network
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import otsd
from otsd.core.errors import OtsdError
from otsd.core.times import format_duration
from otsd.settings import (
    ConfigurationError,
    Fault,
    LogFormat,
    LogLevel,
    Mqtt,
    MqttProtocol,
    Public,
    Settings,
    Storage,
    load,
    schema,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parent.parent
NOWHERE = Path("/nowhere")
SUPERVISED = {"SUPERVISOR_TOKEN": "supervisors-own"}
SECRET = "eyJhbGciOiJI.never-to-be-seen"
KEYS = [setting.key for setting in schema()]


class Machine:
    """A folder with the files that `load` may find, and nothing of the real environment."""

    def __init__(self, folder: Path) -> None:
        """Work in this folder."""
        self.folder = folder

    def file(self, name: str, content: str | bytes) -> Path:
        """Write a file, and the folders it is in."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def load(
        self,
        toml: str = "",
        *,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        options: object = None,
        config: Path | None = None,
    ) -> Settings:
        """Load from these sources and from the files that were written."""
        if toml:
            self.file("config.toml", toml)
        if options is not None:
            self.file("options.json", json.dumps(options))
        return load(
            config=config,
            overrides=overrides or {},
            environ=environ or {},
            working_directory=self.folder,
            options=self.folder / "options.json",
        )

    def faults(self, *args: Any, **kwargs: Any) -> tuple[Fault, ...]:
        """Load what must not load."""
        with pytest.raises(ConfigurationError) as caught:
            self.load(*args, **kwargs)
        return caught.value.faults

    def fault(self, *args: Any, **kwargs: Any) -> Fault:
        """Load what has exactly one fault."""
        (fault,) = self.faults(*args, **kwargs)
        return fault


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give an empty folder to load from."""
    return Machine(tmp_path)


def given_by_command_line(key: str, value: str) -> Settings:
    """Load one value from the command line, with no files and no environment."""
    return load(overrides={key: value}, environ={}, working_directory=NOWHERE)


def run_python(
    program: str, folder: Path, environ: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a process of its own, which has an environment of its own."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | environ | {"PYTHONPATH": str(Path(otsd.__file__).parent.parent)},
        capture_output=True,
        check=True,
    )


def value_of(settings: Settings, key: str) -> object:
    """Follow a key such as ``public.port`` down the tree."""
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


# -- sources ---------------------------------------------------------------------------------

SOURCES: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
    ("command line", lambda title: {"overrides": {"public.title": title}}),
    ("environment", lambda title: {"environ": {"OTSD_PUBLIC__TITLE": title}}),
    ("options", lambda title: {"options": {"public": {"title": title}}}),
    ("file", lambda title: {"toml": f'[public]\ntitle = "{title}"'}),
    ("default", lambda _: {}),
]


def test_without_any_source_everything_is_its_default(machine: Machine) -> None:
    """The same as a tree made by hand, but for where its one relative path starts."""
    here = Storage(directory=machine.folder / "data")

    assert machine.load() == Settings(storage=here)
    assert Settings().storage.directory == Path("data")


@pytest.mark.parametrize(
    ("strong", "weak"),
    list(combinations(SOURCES, 2)),
    ids=lambda source: source[0],
)
def test_of_two_sources_the_stronger_wins(machine: Machine, strong: Any, weak: Any) -> None:
    """Each pair of the five sources, in the documented order."""
    given_by_both = {**weak[1]("weak"), **strong[1]("strong")}
    given_by_both["environ"] = SUPERVISED | given_by_both.get("environ", {})

    assert machine.load(**given_by_both).public.title == "strong"


def test_sources_are_merged_key_by_key(machine: Machine) -> None:
    """A source that gives one key of a section leaves the others to the weaker ones."""
    settings = machine.load(
        '[public]\nport = 1\ntitle = "file"\ncontact = "file"\nhost = "::1"',
        options={"public": {"port": 2, "title": "options", "contact": "options"}},
        environ=SUPERVISED | {"OTSD_PUBLIC__PORT": "3", "OTSD_PUBLIC__TITLE": "environment"},
        overrides={"public.port": "4"},
    )

    assert settings.public == Public(port=4, title="environment", contact="options", host="::1")


def test_options_are_read_only_under_the_supervisor(machine: Machine) -> None:
    """A stray options.json is nothing to somebody who runs no add-on."""
    options = {"public": {"port": 80}}

    assert machine.load(options=options).public.port == 1337
    assert machine.load(options=options, environ={"SUPERVISOR_TOKEN": ""}).public.port == 1337
    assert machine.load(options=options, environ=SUPERVISED).public.port == 80


def test_missing_options_are_no_fault(machine: Machine) -> None:
    """The Supervisor alone does not demand an options file."""
    assert machine.load(environ=SUPERVISED).public.port == 1337


def test_the_named_file_is_read_instead_of_the_usual_one(machine: Machine) -> None:
    """The argument is stronger than OTSD_CONFIG, and that than ./config.toml."""
    machine.file("config.toml", "public.port = 1")
    machine.file("variable.toml", "public.port = 2")
    argument = machine.file("folder/argument.toml", "public.port = 3")
    named = {"OTSD_CONFIG": "variable.toml"}

    assert machine.load().public.port == 1
    assert machine.load(environ={"OTSD_CONFIG": ""}).public.port == 1
    assert machine.load(environ=named).public.port == 2
    assert machine.load(environ=named, config=argument).public.port == 3


def test_a_named_file_that_is_missing_is_a_fault(machine: Machine) -> None:
    """Only the file that nobody asked for may be missing."""
    path = str(machine.folder / "mine.toml")

    expected = Fault("", "does not exist", path)
    assert machine.fault(environ={"OTSD_CONFIG": "mine.toml"}) == expected
    assert machine.fault(config=Path("mine.toml")) == expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[public]\nport = \n", r"cannot be understood: .*line 2"),
        (b"[public]\ntitle = '\xff'\n", r"is not UTF-8 \(at line 2\)"),
        (
            b"[public]\nport = 1\nport = 2\n",
            r"cannot be understood: a setting stands twice.*line 3",
        ),
        (
            b"[public]\nport = 1\n[log]\n[public]\nport = 2\n",
            r"cannot be understood: the section \[public\] stands twice.*line 4",
        ),
        (b"[public]\n\ntitle = Mine\n", r"cannot be understood: .*text stands in quotes.*line 3"),
        (b"x = " + b"[" * 100_000, r"cannot be understood: "),
    ],
)
def test_a_broken_file_is_a_fault_with_its_line(
    machine: Machine, content: bytes, problem: str
) -> None:
    """What is no TOML is named by file and line, and is no traceback."""
    path = machine.file("config.toml", content)

    fault = machine.fault()

    assert fault.found == str(path)
    assert re.match(problem, fault.problem)
    assert str(fault).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"public": \n{"port": }}', r"cannot be understood: .*line 2"),
        ("[]", r"must be an object of sections"),
        ("[" * 100_000, r"cannot be understood: "),
    ],
)
def test_broken_options_are_a_fault(machine: Machine, content: str, problem: str) -> None:
    """The add-on's options are read as carefully as the file."""
    path = machine.file("options.json", content)

    fault = machine.fault(environ=SUPERVISED)

    assert fault.found == str(path)
    assert re.match(problem, fault.problem)


def test_a_file_that_cannot_be_read_is_a_fault(machine: Machine) -> None:
    """A folder, and a link that leads to itself, in place of the file."""
    (machine.folder / "config.toml").mkdir()
    (machine.folder / "loop.toml").symlink_to("loop.toml")

    assert machine.fault().problem == "cannot be read: Is a directory"
    assert machine.fault(config=Path("loop.toml")).problem.startswith("cannot be read: Too many")


def test_a_byte_order_mark_is_overlooked(machine: Machine) -> None:
    """Some editors on Windows begin a file with one."""
    machine.file("config.toml", b"\xef\xbb\xbfpublic.port = 80\r\n")

    assert machine.load().public.port == 80


def test_relative_paths_start_where_they_are_written(machine: Machine) -> None:
    """In a file from the folder of the file, elsewhere from the working directory."""
    config = machine.file("etc/mine.toml", 'storage.directory = "a"\nmqtt.ca_file = "/b"')
    environ = {"OTSD_HOME_ASSISTANT__CA_FILE": "c"}

    settings = machine.load(config=config, environ=environ)

    assert settings.storage.directory == machine.folder / "etc" / "a"
    assert settings.mqtt.ca_file == Path("/b")
    assert settings.home_assistant.ca_file == machine.folder / "c"
    assert machine.load().storage.directory == machine.folder / "data"


def test_the_default_directory_is_the_one_that_the_file_could_have_named(machine: Machine) -> None:
    """Leaving the line out changes nothing, wherever the command is given."""
    config = machine.file("etc/mine.toml", 'public.title = "Ours"')

    assert machine.load(config=config).storage.directory == machine.folder / "etc" / "data"


def test_only_load_reads_the_environment(machine: Machine) -> None:
    """The process's environment is the default of `load`; a tree made by hand ignores it."""
    program = "from otsd.settings import *; print(load().public.port, Settings().public.port)"
    environ = {"OTSD_PUBLIC__PORT": "80", "PUBLIC": '{"port": 81}', "public": '{"port": 82}'}

    done = run_python(program, machine.folder, environ)

    assert done.stdout.split() == [b"80", b"1337"]


# -- faults ----------------------------------------------------------------------------------


def test_every_fault_of_every_source_is_listed_at_once(machine: Machine) -> None:
    """One round is enough to mend everything, also what a stronger source hides."""
    faults = machine.faults(
        'public.port = "x"\nlog.level = "loud"\nlog.colour = 1\nnosuch.key = 1\n',
        options={"public": {"port": -1}, "other": {"key": 1}},
        environ=SUPERVISED | {"OTSD_PUBLIC__PORT": "1e3", "OTSD_NOSUCH__KEY": "1"},
        overrides={"public.port": "true", "mqtt.host": "mqtt://broker"},
    )

    file, options = (str(machine.folder / name) for name in ("config.toml", "options.json"))
    assert sorted((fault.found, fault.key) for fault in faults) == sorted(
        [
            ("command line", "mqtt.host"),
            ("command line", "public.port"),
            ("environment", "nosuch.key"),
            ("environment", "public.port"),
            (options, "other.key"),
            (options, "public.port"),
            (file, "log.colour"),
            (file, "log.level"),
            (file, "nosuch.key"),
            (file, "public.port"),
        ]
    )


def test_a_wrong_file_does_not_hide_other_faults(machine: Machine) -> None:
    """What the environment says is checked although the file is broken, and so are the rules."""
    found = {"OTSD_PUBLIC__PORT": "x", "OTSD_ADMIN__HOST": "0.0.0.0"}

    faults = machine.faults("broken", environ=found)

    assert [fault.key for fault in faults] == ["public.port", "admin.host", ""]


def test_a_fault_is_one_line_with_place_key_variable_and_problem(machine: Machine) -> None:
    """The text is for people: a line for each fault, and each line complete."""
    with pytest.raises(OtsdError) as caught:
        machine.load(environ={"OTSD_PUBLIC__PROT": "1"}, overrides={"log.format": "xml"})

    assert str(caught.value).splitlines() == [
        "command line: log.format (OTSD_LOG__FORMAT) must be 'text' or 'json'",
        (
            "environment: public.prot (OTSD_PUBLIC__PROT) is not a setting; "
            "did you mean public.port (OTSD_PUBLIC__PORT)?"
        ),
    ]


def test_a_key_cannot_break_the_line(machine: Machine) -> None:
    """Control characters in a quoted key reach no terminal."""
    fault = machine.fault('[public]\n"a\\nb\\u001b[31m" = 1')

    assert "a?b?[31m" in str(fault)
    assert str(fault).isprintable()


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("OTSD_NOSUCH__KEY", "nosuch.key"),
        ("OTSD_PUBLIC__PROT", "public.prot"),
        ("OTSD_PUBLIC__", "public."),
        ("OTSD__PORT", "_port"),
        ("OTSD_PUBLIC__PORT__X", "public.port__x"),
        ("OTSD_SUPERVISOR__TOKEN", "supervisor.token"),
        ("OTSD_PUBLIC__TITLE_FILE", "public.title_file"),
    ],
)
def test_an_unknown_variable_with_two_underscores_is_a_fault(
    machine: Machine, variable: str, key: str
) -> None:
    """Unknown sections count, and so do keys that would only exist for secrets."""
    fault = machine.fault(environ={variable: "1"})

    assert (fault.key, fault.variable, fault.found) == (key, variable, "environment")
    assert fault.problem.startswith("is not a setting")


@pytest.mark.parametrize(
    "variable",
    ["OTSD_HA_PYTHON", "OTSD_CACHE", "OTSD_PUBLIC_PORT", "OTSD_PUBLIC", "OTSD_", "XOTSD_PUBLIC__X"],
)
def test_other_variables_are_no_settings(machine: Machine, variable: str) -> None:
    """Neither read nor refused."""
    assert machine.load(environ={variable: '{"port": 1}'}).public == Public()


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("public = 1", "public"),
        ("public = []", "public"),
        ("port = 1", "port"),
        ("[nosuch]", "nosuch"),
        ("[[public]]\nport = 1", "public"),
        ("[public.port]\nx = 1", "public.port"),
        ("supervisor_token = 'x'", "supervisor_token"),
        ("supervisor_token.x = 'x'", "supervisor_token.x"),
        ("supervised = true", "supervised"),
    ],
)
def test_what_is_no_key_of_a_section_is_a_fault(machine: Machine, toml: str, key: str) -> None:
    """A file has sections, and they have keys, and none of them is the Supervisor's."""
    assert machine.fault(toml).key == key


def test_a_section_is_no_value(machine: Machine) -> None:
    """Told apart from a key that does not exist."""
    assert machine.fault("public = 1").problem == "is a section, and must hold keys"


def test_an_empty_section_is_no_fault(machine: Machine) -> None:
    """Somebody commented out all of its keys."""
    assert machine.load("[public]\n[mqtt]\n").public == Public()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("public.prot", "public.port"),
        ("homeassistant.token", "home_assistant.token"),
        ("mqtt.pasword_file", "mqtt.password_file"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(
    machine: Machine, key: str, meant: str
) -> None:
    """Most unknown keys are known ones, misspelt."""
    assert f"did you mean {meant} (" in machine.fault(overrides={key: "x"}).problem


def test_a_key_like_no_other_is_answered_without_a_guess(machine: Machine) -> None:
    """A far-fetched guess helps nobody."""
    assert machine.fault(overrides={"zzz.qqq": "x"}).problem == "is not a setting"


# -- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("public.port", "0", 0),
        ("public.port", " 65535 ", 65535),
        ("admin.port", "0", 0),
        ("mqtt.token_devices", "0", 0),
        ("mqtt.token_devices", "10000", 10000),
        ("mqtt.tls", "yes", True),
        ("mqtt.commands", "off", False),
        ("mqtt.commands", "FALSE", False),
        ("mqtt.protocol", "5", MqttProtocol.V5),
        ("mqtt.protocol", "3.1.1", MqttProtocol.V311),
        ("mqtt.base_topic", "home/otsd", "home/otsd"),
        ("mqtt.host", "core-mosquitto", "core-mosquitto"),
        ("mqtt.host", "2001:DB8::1", "2001:db8::1"),
        ("mqtt.host", "", None),
        ("log.level", "debug", LogLevel.DEBUG),
        ("log.format", "json", LogFormat.JSON),
        ("home_assistant.action_timeout", "300", timedelta(seconds=300)),
        ("home_assistant.action_timeout", "0.5", timedelta(seconds=0.5)),
        ("home_assistant.action_timeout", "1h30m", timedelta(minutes=90)),
        ("history.keep", "36500d", timedelta(days=36500)),
        ("public.trusted_proxies", "", ()),
        ("public.trusted_proxies", "::1", (ip_network("::1/128"),)),
        (
            "public.trusted_proxies",
            "192.168.1.4, 10.0.0.0/8",
            (ip_network("192.168.1.4/32"), ip_network("10.0.0.0/8")),
        ),
        ("public.title", "Tür 👩‍👧", "Tür 👩‍👧"),
        ("public.title", "x" * 200, "x" * 200),
        ("notifications.target", "notify.mobile_app_anna", "notify.mobile_app_anna"),
        ("notifications.target", "", None),
    ],
)
def test_text_is_read_as_its_type(machine: Machine, key: str, text: str, value: object) -> None:
    """The command line, the environment and text in the add-on's options are read alike."""
    section, name = key.split(".")
    variable = f"OTSD_{section}__{name}".upper()

    assert value_of(machine.load(overrides={key: text}), key) == value
    assert value_of(machine.load(environ={variable: text}), key) == value
    assert value_of(machine.load(options={section: {name: text}}, environ=SUPERVISED), key) == value


@pytest.mark.parametrize(
    ("toml", "value"),
    [
        ("mqtt.protocol = 5", MqttProtocol.V5),
        ("mqtt.tls = true", True),
        ("home_assistant.action_timeout = 300", timedelta(minutes=5)),
        ("home_assistant.action_timeout = 0.25", timedelta(seconds=0.25)),
        (
            'public.trusted_proxies = ["::1", "10.0.0.0/8"]',
            (ip_network("::1"), ip_network("10.0.0.0/8")),
        ),
        ("public.trusted_proxies = []", ()),
        ("public.trusted_proxies = '::1,10.0.0.1'", (ip_network("::1"), ip_network("10.0.0.1"))),
    ],
)
def test_a_file_may_use_types_of_its_own(machine: Machine, toml: str, value: object) -> None:
    """TOML has numbers, booleans and lists."""
    assert value_of(machine.load(toml), toml.partition(" ")[0]) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("public.port", "true"),
        ("public.port", "-1"),
        ("public.port", "65536"),
        ("public.port", "80.0"),
        ("public.port", "nan"),
        ("public.port", "1_337"),
        ("public.port", "٣"),
        ("public.port", ""),
        ("public.port", "9" * 5000),
        ("mqtt.port", "0"),
        ("mqtt.port", ""),
        ("mqtt.token_devices", "-1"),
        ("mqtt.token_devices", "10001"),
        ("mqtt.token_devices", "1" + "0" * 30),
        ("mqtt.tls", "perhaps"),
        ("mqtt.tls", ""),
        ("mqtt.tls", "2"),
        ("mqtt.protocol", "4"),
        ("mqtt.protocol", "5.0"),
        ("mqtt.host", "mqtt://broker"),
        ("mqtt.host", "broker:1883"),
        ("mqtt.host", "a b"),
        ("mqtt.host", "[::1]"),
        ("mqtt.host", "x" * 254),
        ("mqtt.base_topic", ""),
        ("mqtt.base_topic", "/otsd"),
        ("mqtt.base_topic", "otsd/"),
        ("mqtt.base_topic", "ot+sd"),
        ("mqtt.base_topic", "otsd/#"),
        ("mqtt.base_topic", "ot\0sd"),
        ("mqtt.base_topic", "$SYS"),
        ("mqtt.discovery_prefix", "+"),
        ("log.level", "INFO"),
        ("log.format", ""),
        ("home_assistant.action_timeout", "0"),
        ("home_assistant.action_timeout", "-1"),
        ("home_assistant.action_timeout", "nan"),
        ("home_assistant.action_timeout", "inf"),
        ("home_assistant.action_timeout", "1e300"),
        ("home_assistant.action_timeout", "0.0000001"),
        ("home_assistant.action_timeout", "2d"),
        ("home_assistant.action_timeout", "5 minutes"),
        ("history.keep", "0s"),
        ("history.keep", "365"),
        ("history.keep", "99999999d"),
        ("history.keep_addresses", ""),
        ("public.trusted_proxies", "10.0.0.1/8"),
        ("public.trusted_proxies", "proxy.local"),
        ("public.trusted_proxies", "::1,,::2"),
        ("public.trusted_proxies", "5"),
        ("public.title", ""),
        ("public.title", " "),
        ("public.title", "x" * 201),
        ("public.title", "a\nb"),
        ("public.title", "a\x1bb"),
        ("public.title", "a\u2028b"),
        ("public.title", "a\udcffb"),
        ("public.contact", "a\0b"),
        ("storage.directory", ""),
        ("storage.directory", "a\0b"),
        ("home_assistant.token", "a\nb"),
        ("home_assistant.token", "a\udcffb"),
        ("notifications.target", "notify"),
        ("notifications.target", "script.turn_on"),
        ("admin.host", "0"),
        ("admin.host", "0x0"),
        ("admin.host", "127.1"),
        ("admin.host", ""),
    ],
)
def test_wrong_text_is_a_fault_of_its_key_alone(machine: Machine, key: str, text: str) -> None:
    """Also where a default is derived from it: what was not given is not at fault."""
    fault = machine.fault(overrides={key: text})

    assert (fault.key, fault.found) == (key, "command line")
    assert fault.problem.startswith("must ")


@pytest.mark.parametrize(
    "toml",
    [
        "public.port = true",
        "public.port = nan",
        "public.port = 80.0",
        "public.port = [80]",
        "public.port = 100000000000000000000000000000000",
        "public.port = 2026-11-21",
        "public.title = 5",
        "public.title = {}",
        "public.trusted_proxies = 5",
        "public.trusted_proxies = [5]",
        "public.trusted_proxies = [true]",
        "public.trusted_proxies = [[]]",
        "public.trusted_proxies = {'10.0.0.0/8' = 1}",
        "mqtt.protocol = 3",
        "mqtt.protocol = true",
        "mqtt.protocol = 5.0",
        "mqtt.tls = 2",
        "mqtt.tls = []",
        "mqtt.host = false",
        "mqtt.password = 5",
        "mqtt.password = ['a']",
        "storage.directory = 5",
        "home_assistant.url = 5",
        "home_assistant.action_timeout = true",
        "home_assistant.action_timeout = nan",
        "home_assistant.action_timeout = inf",
        "home_assistant.action_timeout = 0",
        f"home_assistant.action_timeout = 1{'0' * 400}",
        "history.keep = 365",
        "history.keep = 12:00:00",
        "log.level = 10",
    ],
)
def test_a_value_of_another_type_is_a_fault(machine: Machine, toml: str) -> None:
    """A boolean is no number, NaN is none either, and a number is no text."""
    assert machine.fault(toml).key == toml.partition(" ")[0]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://ha.local:8123", "http://ha.local:8123"),
        ("https://Example.ORG/", "https://example.org"),
        ("https://example.org/door//", "https://example.org/door"),
        ("http://[::1]:8123/", "http://[::1]:8123"),
        ("http://home_assistant", "http://home_assistant"),
        ("https://größe.example", "https://xn--gre-6ka8i.example"),
    ],
)
def test_a_url_is_kept_without_its_trailing_slash(text: str, url: str) -> None:
    """So that links are made by appending to it."""
    assert str(given_by_command_line("public.base_url", text).public.base_url) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org",
        "example.org:443",
        "//example.org",
        "ftp://example.org",
        "javascript:alert(1)",
        "http://",
        "http:///path",
        "http://:80",
        "http://example.org:99999",
        "http://example.org:x",
        "http://example .org",
        "http://0",
        "http://user@example.org",
        "http://user:password@example.org",
        "http://@example.org",
        "http://example.org?",
        "http://example.org/?a=b",
        "http://example.org/#",
        "http://example.org/#a",
        "http://example.org\\@evil.example",
        "http://exa\nmple.org",
    ],
)
def test_what_is_no_plain_url_is_a_fault(machine: Machine, text: str) -> None:
    """A scheme, a host, perhaps a port and a path; nothing that could hide a password."""
    for key in ("home_assistant.url", "home_assistant.browser_url", "admin.base_url"):
        assert machine.fault(overrides={key: text}).key == key


@given(st.integers())
def test_a_port_is_a_whole_number_up_to_65535(number: int) -> None:
    """Any other number is refused, however large."""
    if 0 <= number <= 65_535:
        assert given_by_command_line("public.port", str(number)).public.port == number
    else:
        with pytest.raises(ConfigurationError):
            given_by_command_line("public.port", str(number))


@given(st.integers(min_value=1, max_value=36_500 * 86_400))
def test_every_duration_that_can_be_written_is_read(seconds: int) -> None:
    """From a second to a hundred years."""
    length = timedelta(seconds=seconds)

    assert given_by_command_line("history.keep", format_duration(length)).history.keep == length


@given(st.lists(st.ip_addresses(), min_size=1))
def test_every_address_can_be_a_trusted_proxy(addresses: list[Any]) -> None:
    """A list in text is read as the networks of one address each."""
    text = ",".join(map(str, addresses))
    proxies = given_by_command_line("public.trusted_proxies", text).public.trusted_proxies

    assert proxies == tuple(map(ip_network, addresses))


@given(st.sampled_from(KEYS), st.text())
def test_no_text_does_more_than_be_refused_unseen(key: str, text: str) -> None:
    """Whatever is given for a key, the answer is settings or one fault that does not repeat it."""
    refusal = None
    try:
        given_by_command_line(key, f"Zq7x{text}")
    except ConfigurationError as error:
        refusal = error

    assert refusal is None or [fault.key for fault in refusal.faults] == [key]
    assert "Zq7x" not in str(refusal)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(KEYS), inner),
    max_leaves=8,
)


@given(section=st.sampled_from(sorted({key.split(".")[0] for key in KEYS})), data=st.data())
def test_no_options_do_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, section: str, data: st.DataObject
) -> None:
    """Whatever JSON the options are, nothing but a list of faults comes of them."""
    names = [key.split(".")[1] for key in KEYS if key.startswith(f"{section}.")]
    keys = data.draw(st.dictionaries(st.sampled_from(names), JSON, min_size=1))
    options = tmp_path_factory.getbasetemp() / "any-options.json"
    options.write_text(json.dumps({section: keys}))
    faults: tuple[Fault, ...] = ()
    try:
        load(environ=SUPERVISED, working_directory=NOWHERE, options=options)
    except ConfigurationError as error:
        faults = error.faults

    assert {fault.key for fault in faults} <= {f"{section}.{name}" for name in keys}


# -- defaults that follow from others, and rules over several -------------------------------------


def test_derived_defaults_follow_the_settings_they_derive_from(machine: Machine) -> None:
    """Whichever sources gave those."""
    settings = machine.load(
        'home_assistant.url = "https://ha.example/"\n[mqtt]\ntls = true',
        environ={"OTSD_PUBLIC__PORT": "80"},
        overrides={"admin.port": "81"},
    )

    assert str(settings.home_assistant.browser_url) == "https://ha.example"
    assert settings.mqtt.port == 8883
    assert settings.public.base_url.explicit_port == 80
    assert str(settings.admin.base_url) == "http://localhost:81"


def test_a_derived_default_gives_way_to_a_given_value(machine: Machine) -> None:
    """The port of the broker does not change with TLS once it was named."""
    assert machine.load("mqtt = {tls = true, port = 1884}").mqtt.port == 1884


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "0:0::0", "::%1", "::ffff:0.0.0.0"],
)
def test_the_admin_page_listens_everywhere_only_under_the_supervisor(
    machine: Machine, host: str
) -> None:
    """However every address is spelt."""
    fault = machine.fault(environ={"OTSD_ADMIN__HOST": host})

    assert (fault.key, fault.found) == ("admin.host", "environment")
    assert "add-on alone" in fault.problem
    allowed = machine.load(environ=SUPERVISED | {"OTSD_ADMIN__HOST": host}).admin.host
    assert ip_address(allowed) == ip_address(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.168.1.10", "localhost", "nas.local"])
def test_the_admin_page_may_listen_on_one_address(machine: Machine, host: str) -> None:
    """Whose it is is the owner's business."""
    assert machine.load(environ={"OTSD_ADMIN__HOST": host}).admin.host == host


def test_what_is_neither_true_nor_false_is_told_the_two(machine: Machine) -> None:
    """In words for people."""
    assert machine.fault(overrides={"mqtt.tls": "perhaps"}).problem == "must be true or false"


def test_own_topics_and_discovery_are_apart(machine: Machine) -> None:
    """Else otsd would take its own status for Home Assistant's."""
    fault = machine.fault(
        'mqtt.discovery_prefix = "otsd"', environ={"OTSD_MQTT__BASE_TOPIC": "otsd"}
    )

    assert (fault.key, fault.found) == ("mqtt.base_topic", "environment")
    assert fault.problem == "and mqtt.discovery_prefix are both otsd; change one"
    fault = machine.fault('mqtt.discovery_prefix = "otsd"')
    assert fault.key == "mqtt.discovery_prefix"
    assert fault.problem == "and mqtt.base_topic are both otsd; change one"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_visitors_and_the_owner_are_not_served_on_the_same_port(
    machine: Machine, host: str
) -> None:
    """Else the second could not begin to listen, when the first has begun already."""
    ports = {"OTSD_PUBLIC__HOST": host, "OTSD_ADMIN__PORT": "1337"}

    assert str(machine.fault(environ=ports)) == (
        "environment: admin.port (OTSD_ADMIN__PORT) and public.port are both 1337; change one"
    )
    assert (
        machine.load(
            environ=ports | {"OTSD_ADMIN__HOST": "127.0.0.2"} | {"OTSD_PUBLIC__HOST": "127.0.0.1"}
        ).admin.port
        == 1337
    )
    free = machine.load(environ=ports | {"OTSD_PUBLIC__PORT": "0", "OTSD_ADMIN__PORT": "0"})
    assert (free.public.port, free.admin.port) == (0, 0)


def test_the_supervisor_is_known_by_its_token(machine: Machine) -> None:
    """And by nothing that a source can say."""
    settings = machine.load(environ=SUPERVISED)

    assert settings.supervised
    assert settings.supervisor_token is not None
    assert settings.supervisor_token.get_secret_value() == "supervisors-own"
    assert not machine.load(
        environ={"SUPERVISOR_TOKEN": "", "OTSD_SUPERVISOR_TOKEN": "x"}
    ).supervised


def test_settings_cannot_be_changed() -> None:
    """Neither the tree nor a section."""
    settings = Settings()

    with pytest.raises(ValidationError):
        settings.public.port = 1
    with pytest.raises(ValidationError):
        settings.public = Public()


# -- secrets ---------------------------------------------------------------------------------

TOKEN = "home_assistant.token"
TOKEN_VARIABLE = "OTSD_HOME_ASSISTANT__TOKEN"


def token_of(settings: Settings) -> str:
    """Return the token of Home Assistant in clear."""
    assert settings.home_assistant.token is not None
    return settings.home_assistant.token.get_secret_value()


@pytest.mark.parametrize("content", ["t0ken", "t0ken\n", "t0ken\r\n", "\ufefft0ken\n\n"])
def test_a_secret_can_come_from_a_file(machine: Machine, content: str) -> None:
    """Without the line breaks that editors add at its end."""
    machine.file("secret", content)

    assert token_of(machine.load('home_assistant.token_file = "secret"')) == "t0ken"


def test_a_secret_can_come_from_a_file_in_every_source(machine: Machine) -> None:
    """Relative to the file that names it, elsewhere to the working directory."""
    machine.file("etc/secret", "beside the TOML file")
    machine.file("secret", "in the working directory")
    config = machine.file("etc/mine.toml", 'home_assistant.token_file = "secret"')
    options = {"home_assistant": {"token_file": "secret"}}

    assert token_of(machine.load(config=config)) == "beside the TOML file"
    for source in (
        {"overrides": {f"{TOKEN}_file": "secret"}},
        {"environ": {f"{TOKEN_VARIABLE}_FILE": "secret"}},
        {"options": options, "environ": SUPERVISED},
    ):
        assert token_of(machine.load(**source)) == "in the working directory"


@pytest.mark.parametrize("strong", ["", "_file"])
@pytest.mark.parametrize("weak", ["", "_file"])
def test_the_stronger_source_gives_the_secret(machine: Machine, strong: str, weak: str) -> None:
    """Whether it gives the secret or its file, and whichever the weaker one gives."""
    for name in ("strong", "weak"):
        machine.file(name, name)

    settings = machine.load(
        f'{TOKEN}{weak} = "weak"', environ={f"{TOKEN_VARIABLE}{strong.upper()}": "strong"}
    )

    assert token_of(settings) == "strong"


def test_an_empty_secret_takes_a_weaker_one_away(machine: Machine) -> None:
    """None is the default, and empty text says so."""
    assert machine.load(f'{TOKEN} = "x"', environ={TOKEN_VARIABLE: ""}).home_assistant.token is None


def test_a_secret_and_its_file_in_one_source_are_a_fault(machine: Machine) -> None:
    """Nobody could say which was meant."""
    machine.file("secret", "x")

    fault = machine.fault(environ={TOKEN_VARIABLE: "x", f"{TOKEN_VARIABLE}_FILE": "secret"})

    assert fault.variable == f"{TOKEN_VARIABLE}_FILE"
    assert "stands beside home_assistant.token" in fault.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        (b"", "content must be text, and not empty"),
        (b"\n", "content must be text, and not empty"),
        (b"a\nb\n", "content must not contain control characters or line breaks"),
        (SECRET.encode() + b"\xff", "is not UTF-8"),
    ],
)
def test_an_unfit_secret_file_is_a_fault(
    machine: Machine, content: bytes | None, problem: str
) -> None:
    """Missing, empty, of two lines, or no text."""
    if content is not None:
        machine.file("secret", content)

    fault = machine.fault(environ={"OTSD_MQTT__PASSWORD_FILE": "secret"})

    assert fault.key == "mqtt.password_file"
    assert problem in fault.problem


@pytest.mark.parametrize("name", ["5", "''", '"a\\u0000"', "[]"])
def test_the_name_of_a_secret_file_is_a_path(machine: Machine, name: str) -> None:
    """What cannot name a file is not looked for."""
    fault = machine.fault(f"mqtt.password_file = {name}")

    assert fault.problem == "must be a path"


def test_a_secret_file_that_cannot_be_read_is_a_fault(machine: Machine) -> None:
    """Here because it is a folder."""
    fault = machine.fault(environ={"OTSD_MQTT__PASSWORD_FILE": "."})

    assert fault.problem == "names a file that cannot be read: Is a directory"


def test_settings_print_no_secret(machine: Machine) -> None:
    """Not in any of the ways in which a tree is turned into text."""
    machine.file("secret", SECRET)
    settings = machine.load(
        f'{TOKEN} = "{SECRET}"',
        environ={"SUPERVISOR_TOKEN": SECRET, "OTSD_MQTT__PASSWORD_FILE": "secret"},
    )

    assert token_of(settings) == SECRET
    for text in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.mqtt}"):
        assert "never-to-be-seen" not in text


@pytest.mark.parametrize(
    "toml",
    [
        f'home_assistant = "{SECRET}"',
        f'home_assistant.token = ["{SECRET}"]',
        f'home_assistant.token = {{x = "{SECRET}"}}',
        f'home_assistant.token = "{SECRET}\\n"',
        f'home_assistant.tokn = "{SECRET}"',
        f'home_assistant.token_file = "{SECRET}"',
        f'home_assistant.token_file = ["{SECRET}"]',
        f'home_assistant.token = "{SECRET}"\nhome_assistant.token_file = "x"',
        f'home_assistant.url = "http://u:{SECRET}@ha.local"',
        f'home_assistant.url = "http://ha.local/?token={SECRET}"',
        f'home_assistant.verify_tls = "{SECRET}"',
        f'home_assistant.action_timeout = "{SECRET}"',
        f'public.port = "{SECRET}"',
        f'public.title = "{SECRET}\\n"',
        f'public.trusted_proxies = ["{SECRET}"]',
        f'notifications.target = "{SECRET}"',
        f'log.level = "{SECRET}"',
        f'mqtt.host = "{SECRET}:1883"',
        f'mqtt.password = "{SECRET}',
        f"mqtt.password = {SECRET}",
        f'mqtt.password = "\\{SECRET}"',
        f'[mqtt]\npassword = "{SECRET}"\npassword = "{SECRET}"',
    ],
)
def test_faults_print_no_secret(machine: Machine, toml: str) -> None:
    """Wherever somebody puts one by mistake, also by way of an error's cause."""
    with pytest.raises(ConfigurationError) as caught:
        machine.load(toml)

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "never-to-be-seen" not in f"{caught.value} {caught.value!r} {caught.value.faults!r}"


def test_a_tree_made_by_hand_prints_no_secret_either() -> None:
    """Pydantic's own errors show no input."""
    with pytest.raises(ValidationError) as caught:
        Settings(mqtt={"password": [SECRET], "host": f"{SECRET}:1"})  # type: ignore[arg-type]
    with pytest.raises(ValidationError) as caught_in_section:
        Mqtt(host=f"{SECRET}:1")

    assert "never-to-be-seen" not in f"{caught.value} {caught_in_section.value}"


def test_the_libraries_log_no_secret(machine: Machine) -> None:
    """Not even when pydantic-settings is told to log what it reads."""
    machine.file("config.toml", f'{TOKEN} = "{SECRET}"')
    program = "import logging; logging.basicConfig(level=0); from otsd.settings import *; load()"

    done = run_python(program, machine.folder, {"PYDANTIC_SETTINGS_DEBUG": "1"})

    assert b"home_assistant" in done.stderr
    assert b"never-to-be-seen" not in done.stdout + done.stderr


# -- what is written about it --------------------------------------------------------------------


def test_the_schema_knows_every_setting() -> None:
    """All keys of the tree, each described, and each secret marked."""
    tree = Settings().model_dump(exclude={"supervisor_token"})

    assert [f"{section}.{name}" for section, names in tree.items() for name in names] == KEYS
    assert all(setting.kind and setting.default for setting in schema())
    assert all(re.fullmatch(r"[A-Z].*\.", setting.description) for setting in schema())
    secrets = {setting.key: setting.file_key for setting in schema() if setting.secret}
    assert secrets == {
        "home_assistant.token": "home_assistant.token_file",
        "mqtt.password": "mqtt.password_file",
    }
    assert all(setting.file_key is None for setting in schema() if not setting.secret)


def test_defaults_in_words_can_be_given_as_they_are_written(machine: Machine) -> None:
    """Giving every default changes nothing; those in words other than values are derived."""
    derived = {"home_assistant.browser_url", "mqtt.port", "public.base_url", "admin.base_url"}
    words = {
        setting.key: "" if setting.default == "none" else setting.default
        for setting in schema()
        if setting.key not in derived
    }

    assert machine.load(overrides=words) == machine.load()


def test_the_example_is_the_defaults() -> None:
    """An untouched copy of the example configuration changes nothing."""
    example = load(config=Path("config.example.toml"), environ={}, working_directory=ROOT)

    assert example == load(config=Path(os.devnull), environ={}, working_directory=ROOT)


def test_the_example_shows_every_setting_and_each_line_of_it_is_valid(machine: Machine) -> None:
    """Also the lines that are turned off, and those show a derived default as it is."""
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    complete = re.sub(r"(?m)^#(?=\w+ = )", "", text)

    shown = [
        f"{section}.{key}" for section, keys in tomllib.loads(complete).items() for key in keys
    ]
    assert sorted(shown) == sorted(KEYS)
    settings = machine.load(complete)
    for key in KEYS:
        if value_of(Settings(), key) is not None and key != "storage.directory":
            assert value_of(settings, key) == value_of(Settings(), key)
        assert value_of(settings, key) is not None


def test_the_example_says_something_about_every_setting() -> None:
    """No setting without a comment above it or its neighbour."""
    text = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    paragraphs = [part for part in re.split(r"\n\n+", text) if re.search(r"(?m)^#?\w+ = ", part)]

    assert all(part.startswith("# ") for part in paragraphs)


DOCUMENT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_documentation_has_exactly_the_settings() -> None:
    """Every key with its variable, type, default and description, in order, and no other."""
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split(" | "))
        for line in DOCUMENT.splitlines()
        if re.match(r"\| `\w+\.\w+` ", line)
    ]

    assert rows == [
        (f"`{s.key}`", f"`{s.variable}`", s.kind, f"`{s.default}`", s.description) for s in schema()
    ]


def test_the_documentation_shows_real_faults(machine: Machine) -> None:
    """The faults in the documentation are what such a configuration is told."""
    (shown,) = re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)

    faults = machine.faults(
        'history.keep = "a year"',
        environ={"OTSD_PUBLIC__PROT": "80"},
        overrides={"public.port": "99999"},
    )

    assert "".join(f"{fault}\n" for fault in faults).replace(f"{machine.folder}/", "") == shown
