"""The configuration of otsd: one frozen tree, and the only reader of files and environment.

`load` reads every source, strongest first: the command line, the environment, the add-on's
options, a TOML file, defaults. What is wrong in any of them, also where a stronger source hides
it, is collected and raised at once, so that one round is enough to mend it.

It refuses unknown keys and wrong values rather than guessing, never repeats a value in a message
(a token pasted into the wrong line would end in a log), and looks at nothing that `load` was not
given: ``Settings()`` is the defaults, whatever the environment says.
"""

# ruff: noqa: FBT003 - a boolean after _key( is the default

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
import unicodedata
from collections import ChainMap
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from yarl import URL

from otsd.core.errors import OtsdError
from otsd.core.times import format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

ADD_ON_OPTIONS = Path("/data/options.json")

ALIASES = MappingProxyType(
    {
        "public_token_base_url": "public.base_url",
        "notify_on_token_submission": "notifications.on_submission",
        "notification_target": "notifications.target",
    }
)
"""The add-on's options that are called as the One Time Service add-on calls them, by key."""


class MqttProtocol(StrEnum):
    """Which MQTT is spoken; ``AUTO`` is 5, and 3.1.1 with a broker that refuses it."""

    AUTO = "auto"
    V5 = "5"
    V311 = "3.1.1"


class LogLevel(StrEnum):
    """The least grave messages that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Lines for people, or one JSON object a line for programs."""

    TEXT = "text"
    JSON = "json"


# -- values, as people write them: what cannot be read is a ValueError without the value ------


def _text(value: object) -> str:
    # Cc, Cs, Zl, Zp: what would break a line, a header or the encoding. Cf stays: emoji need it.
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text, and not empty")
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
        raise ValueError("must not contain control characters or line breaks")
    return value


def _whole(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number")


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    with suppress(ValueError):
        return parse_duration(_text(value))
    raise ValueError("must be a duration such as 90s, 15m, 2h, 7d or 1h30m, at most 36500d")


def _seconds_or_duration(value: object) -> timedelta:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):  # "5m" and NaN; infinity
            return timedelta(seconds=float(value))
    return _duration(value)


def _host(value: object) -> str:
    text = _text(value)
    with suppress(ValueError):
        return str(ip_address(text))
    # The C library reads names that end in a number as addresses: "0" would be every interface.
    name = re.fullmatch(r"(?:[\w-]+\.)*(?!(?:0x[\da-f]*|\d+)\.?$)[\w-]+\.?", text, re.IGNORECASE)
    if not name or len(text) > 253:  # noqa: PLR2004 - the longest name that DNS knows
        raise ValueError("must be a host name or an IP address, without a scheme or a port")
    return text


def _url(value: object) -> URL:
    text = _text(str(value) if isinstance(value, URL) else value)
    try:
        url = URL(text)
        _host(url.host)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"}:
        raise ValueError("must be an address such as http://host:8123 or https://host")
    if "@" in urlsplit(text).netloc:
        raise ValueError("must not contain a user name or a password")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment")
    return URL(text.rstrip("/"))


def _path(value: object) -> Path:
    if isinstance(value, Path) and "\0" not in str(value):
        return value
    raise ValueError("must be a path")


def _topic(value: object) -> str:
    text = _text(value)
    if text[0] in "/$" or text[-1] == "/" or {"+", "#"} & set(text):
        raise ValueError("must be a topic without + and #, a leading / or $, and a trailing /")
    return text


def _notifier(value: object) -> str:
    text = _text(value)
    if not re.fullmatch(r"notify\.[a-z0-9_]+", text):
        raise ValueError("must be a notify action or entity, such as notify.notify")
    return text


def _networks(value: object) -> tuple[IPv4Network | IPv6Network, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, (list, tuple)):
        with suppress(ValueError):  # of str: ip_network takes the number 5 for 0.0.0.5
            return tuple(ip_network(str(item).strip()) for item in items)
    raise ValueError("must be addresses or networks such as 192.168.1.4 and 172.30.32.0/23")


def _protocol(value: object) -> object:
    # in TOML 5 is a number
    return str(value) if isinstance(value, int) else value


def _secret(value: object) -> SecretStr:
    return SecretStr(_text(value.get_secret_value() if isinstance(value, SecretStr) else value))


# A string in the metadata of a type is its name in the documentation.
Text = Annotated[str, Field(max_length=500), BeforeValidator(_text), "text"]
Title = Annotated[str, Field(max_length=200), BeforeValidator(_text), "text"]
Secret = Annotated[SecretStr, BeforeValidator(_secret), "secret text"]
Count = Annotated[int, Field(ge=0, le=10_000), BeforeValidator(_whole), "whole number"]
Port = Annotated[int, Field(ge=1, le=65_535), BeforeValidator(_whole), "port"]
ListenPort = Annotated[int, Field(ge=0, le=65_535), BeforeValidator(_whole), "port"]
Duration = Annotated[timedelta, BeforeValidator(_duration), "duration"]
Timeout = Annotated[
    timedelta,
    Field(gt=timedelta(0), le=timedelta(days=1)),
    BeforeValidator(_seconds_or_duration),
    "seconds or duration",
]
Host = Annotated[str, BeforeValidator(_host), "host or address"]
Url = Annotated[URL, BeforeValidator(_url), "URL"]
File = Annotated[Path, BeforeValidator(_path), "path"]
Topic = Annotated[str, Field(max_length=200), BeforeValidator(_topic), "topic"]
Notifier = Annotated[str, BeforeValidator(_notifier), "notify action or entity"]
Version = Annotated[MqttProtocol, BeforeValidator(_protocol)]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks), "addresses and networks"
]


@dataclass(frozen=True)
class _Derived:
    """A default that follows from settings that stand above it in its section."""

    words: str
    derive: Callable[[dict[str, Any]], Any]

    def __call__(self, section: dict[str, Any]) -> Any:  # noqa: ANN401 - what the key's type says
        return self.derive(section)


_LOCAL = _Derived("http://localhost:<port>", lambda own: URL(f"http://localhost:{own['port']}"))


def _key(default: object, description: str) -> Any:  # noqa: ANN401 - stands for the key's type
    if isinstance(default, _Derived):
        return Field(default_factory=default, description=description)
    return Field(default=default, description=description)


# -- the tree -----------------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )


class HomeAssistant(_Section):
    """The way to Home Assistant."""

    url: Url = _key(
        URL("http://homeassistant.local:8123"),
        "Where otsd reaches Home Assistant. Not needed in the add-on.",
    )
    browser_url: Url = _key(
        _Derived("home_assistant.url", itemgetter("url")),
        "Where your browser reaches Home Assistant to log in, if that differs.",
    )
    token: Secret | None = _key(
        None, "A long-lived access token. Without it, connect through the admin page."
    )
    verify_tls: bool = _key(True, "Whether the certificate of an https URL is checked.")
    ca_file: File | None = _key(None, "Certificates to check it with, if not those of the system.")
    action_timeout: Timeout = _key(
        timedelta(minutes=5), "How long an action may take. After that its outcome is unconfirmed."
    )


class Mqtt(_Section):
    """The broker, if there is one."""

    host: Host | None = _key(
        None, "The broker. Without it MQTT is off; in the add-on it is asked from the Supervisor."
    )
    tls: bool = _key(False, "Whether the connection to the broker is encrypted.")
    port: Port = _key(
        _Derived("1883, or 8883 with TLS", lambda own: 8883 if own["tls"] else 1883),
        "The broker's port.",
    )
    username: Text | None = _key(None, "The name to log in with.")
    password: Secret | None = _key(None, "The password to log in with.")
    ca_file: File | None = _key(
        None, "Certificates to check the broker with, if not those of the system."
    )
    protocol: Version = _key(
        MqttProtocol.AUTO, "The version of MQTT; auto is 5, or 3.1.1 when the broker refuses that."
    )
    base_topic: Topic = _key("otsd", "What otsd's own topics begin with.")
    discovery_prefix: Topic = _key("homeassistant", "Where Home Assistant looks for devices.")
    token_devices: Count = _key(
        20, "How many tokens have a device of their own at a time, newest first; 0 turns it off."
    )
    commands: bool = _key(True, "Whether tokens can be made and changed by MQTT.")
    publish_links: bool = _key(
        False, "Whether links become entities, which every user of Home Assistant can read."
    )


class Public(_Section):
    """The site for visitors."""

    host: Host = _key("0.0.0.0", "The address to listen on.")  # noqa: S104 - visitors are outside
    port: ListenPort = _key(1337, "The port to listen on; 0 is any free one.")
    base_url: Url = _key(_LOCAL, "What links begin with. May have a path.")
    trusted_proxies: Networks = _key((), "Reverse proxies whose X-Forwarded-For is believed.")
    title: Title = _key("One Time Service", "The name of the site, shown to visitors.")
    contact: Text | None = _key(None, "Whom to ask when a link does not work, shown to visitors.")


class Admin(_Section):
    """The site for the owner."""

    host: Host = _key(
        "127.0.0.1", "The address to listen on. Every address (0.0.0.0) only in the add-on."
    )
    port: ListenPort = _key(8099, "The port to listen on; 0 is any free one.")
    base_url: Url = _key(
        _LOCAL, "Where your browser reaches the admin page. Home Assistant knows otsd by it."
    )
    accept_home_assistant_tokens: bool = _key(
        False, "Whether access tokens of Home Assistant open the API."
    )


class Storage(_Section):
    """What is kept on disk."""

    directory: File = _key(
        Path("data"), "The folder of the database, its key and the control socket."
    )


class History(_Section):
    """How long the past is kept."""

    keep: Duration = _key(timedelta(days=365), "How long submissions are kept.")
    keep_addresses: Duration = _key(
        timedelta(days=30), "How long their addresses and user agents are kept."
    )


class Notifications(_Section):
    """What the owner is told."""

    on_submission: bool = _key(True, "Whether the target is told of each submission.")
    target: Notifier | None = _key(
        None, "A notify action or entity of Home Assistant, such as notify.notify."
    )


class Log(_Section):
    """What is written to standard error."""

    level: LogLevel = _key(LogLevel.INFO, "The least grave messages that are written.")
    format: LogFormat = _key(LogFormat.TEXT, "Lines for people, or JSON for programs.")


class Settings(BaseSettings):
    """All settings, by section; immutable, comparable, and printable without secrets."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    home_assistant: HomeAssistant = HomeAssistant()
    mqtt: Mqtt = Mqtt()
    public: Public = Public()
    admin: Admin = Admin()
    storage: Storage = Storage()
    history: History = History()
    notifications: Notifications = Notifications()
    log: Log = Log()
    supervisor_token: SecretStr | None = None  # from SUPERVISOR_TOKEN, which no source can set

    @property
    def supervised(self) -> bool:
        """Whether otsd runs as an add-on, under Home Assistant's Supervisor."""
        return self.supervisor_token is not None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments alone: `load` reads the environment, and can say what is unknown."""
        return (init_settings,)


_FIELDS: Mapping[str, FieldInfo] = {
    f"{section}.{name}": field
    for section, default in Settings()
    if isinstance(default, _Section)
    for name, field in type(default).model_fields.items()
}
_SECTIONS = {key.partition(".")[0] for key in _FIELDS}


def _parts(field: FieldInfo) -> Iterator[object]:
    """Everything that the annotation of a field is made of, and its metadata."""
    parts = [field.annotation, *field.metadata]
    for part in parts:
        yield part
        parts += get_args(part)


_SECRETS = {key for key, field in _FIELDS.items() if SecretStr in _parts(field)}
_PATHS = {key for key, field in _FIELDS.items() if Path in _parts(field)}
_SECRET_FILES = {f"{key}_file": key for key in _SECRETS}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key, in words: for the documentation, and for the options of the command line."""

    key: str
    kind: str
    default: str
    description: str
    secret: bool

    @property
    def variable(self) -> str:
        """The name of its environment variable: ``OTSD_PUBLIC__PORT``."""
        return _variable(self.key)

    @property
    def file_key(self) -> str | None:
        """The key that names a file with the value, which only secrets have."""
        return f"{self.key}_file" if self.secret else None


def schema() -> tuple[Setting, ...]:
    """Describe every setting, in the order of the tree.

    A default other than ``none`` that is no derived one can be given as it is written.
    """
    return tuple(
        Setting(key, _kind(field), _default(field), field.description or "", key in _SECRETS)
        for key, field in _FIELDS.items()
    )


def _kind(field: FieldInfo) -> str:
    for part in _parts(field):
        if part is bool:
            return "true or false"
        if isinstance(part, str):
            return part
        if isinstance(part, type) and issubclass(part, StrEnum):
            return ", ".join(part)
    raise TypeError(field)


def _default(field: FieldInfo) -> str:
    if isinstance(field.default_factory, _Derived):
        return field.default_factory.words
    if isinstance(field.default, timedelta):
        return format_duration(field.default)
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return "none" if field.default in (None, ()) else str(field.default)


def _variable(key: str) -> str:
    return f"OTSD_{key.replace('.', '__', 1).upper()}"


# -- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: with a key or its value, or, where ``key`` is empty, with a whole file.

    ``found`` is where: ``command line``, ``environment``, or the path of a file.
    """

    key: str
    problem: str
    found: str

    @property
    def variable(self) -> str:
        """The name of the key's environment variable, whether or not it was found there."""
        return _variable(ALIASES.get(self.key, self.key)) if self.key else ""

    def __str__(self) -> str:
        """Say it in one line, which a key from a file can neither break nor colour."""
        key = f"{self.key} ({self.variable}) " if self.key else ""
        line = f"{self.found}: {key}{self.problem}"
        return "".join(letter if letter.isprintable() else "?" for letter in line)


class ConfigurationError(OtsdError):
    """The configuration cannot be used; ``faults`` lists everything that is wrong with it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        """Carry every fault; ``str()`` is a line for each."""
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class _Source:
    """What one place gives: ``values`` that can be used, by key, and ``faults`` for the others."""

    def __init__(self, found: str, given: Mapping[str, object], folder: Path) -> None:
        """Check what was ``found`` there; relative paths start from ``folder``."""
        self.found = found
        self.values: dict[str, object] = {}
        self.faults: list[Fault] = []
        self._called: dict[str, str] = {}
        for key, value in self._by_key(given):
            if key in _FIELDS:
                self.values[key] = _prepared(key, value, folder)
            elif key in _SECRET_FILES and _SECRET_FILES[key] in given:
                self.fault(key, f"stands beside {_SECRET_FILES[key]}; give only one of them")
            elif key in _SECRET_FILES:
                self._read_secret(key, value, folder)
            else:
                self.fault(key, _why_unknown(key))
        self._validate()

    @classmethod
    def from_file(
        cls, path: Path, parse: Callable[[str], object], *, required: bool = False
    ) -> _Source:
        """Read a file of sections; a missing one gives nothing, unless it is required."""
        problem, tree = "", None
        try:
            tree = parse(path.read_bytes().decode("utf-8-sig"))
        except FileNotFoundError:
            problem = "does not exist" if required else ""
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            problem = f"is not UTF-8 (at line {line})"
        except (ValueError, RecursionError) as error:  # both parsers name the line, never a value
            problem = f"cannot be understood: {_plainly(error)}"
        else:
            problem = "" if isinstance(tree, dict) else "must be an object of sections"
        source = cls(str(path), dict(_flat(tree)) if isinstance(tree, dict) else {}, path.parent)
        if problem:
            source.fault("", problem)
        return source

    def _by_key(self, given: Mapping[str, object]) -> Iterator[tuple[str, object]]:
        yield from given.items()

    def fault(self, key: str, problem: str) -> None:
        self.faults.append(Fault(self._called.get(key, key), problem, self.found))

    def _read_secret(self, key: str, value: object, folder: Path) -> None:
        if not isinstance(value, str) or not value or "\0" in value:
            self.fault(key, "must be a path")
            return
        try:
            content = (folder / value).read_bytes().decode("utf-8-sig").rstrip("\r\n")
            self.values[_SECRET_FILES[key]] = _secret(content)
        except OSError as error:
            self.fault(key, f"names a file that cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.fault(key, "names a file that is not UTF-8")
        except ValueError as error:
            self.fault(key, f"names a file whose content {error}")

    def _validate(self) -> None:
        """Turn the values that pydantic refuses into faults."""
        try:
            Settings(**_nested(self.values))
        except ValidationError as error:
            for detail in error.errors(include_context=False, include_input=False):
                key = ".".join(map(str, detail["loc"][:2]))
                # a default that derives from a refused value is an error too, of a key not given
                if key in self.values:
                    del self.values[key]
                    self.fault(key, _in_our_words(detail))


_IN_OUR_WORDS = (
    (
        r"Cannot declare \('([\w-]+)',\) twice \(at line (\d+),.*",
        r"the section [\1] stands twice; put the settings that follow line \2 into the first one",
    ),
    (r"Cannot overwrite a value", "a setting stands twice; leave one of the two out"),
    (r"Invalid value", "a value is missing or wrong; text stands in quotes"),
)


def _plainly(error: Exception) -> str:
    """Say in our words what people do wrong most often, as the TOML parser tells it."""
    for pattern, words in _IN_OUR_WORDS:
        if re.match(pattern, str(error)):
            return re.sub(pattern, words, str(error))
    return str(error)


_EMPTY = (None, "")


class _Options(_Source):
    """The add-on's options: what was left empty is not given, and some have names of their own."""

    def _by_key(self, given: Mapping[str, object]) -> Iterator[tuple[str, object]]:
        filled = {
            name: [item for item in value if item not in _EMPTY]
            if isinstance(value, list)
            else value
            for name, value in given.items()
            if value not in _EMPTY
        }
        for name, value in filled.items():
            key = ALIASES.get(name, name)
            if key == name:
                yield key, value
            elif key in filled:
                self.fault(name, f"stands beside {key}; give only one of them")
            else:
                self._called[key] = name
                # a notify action by another name, which takes the same fields
                is_the_old_one = value == "persistent_notification.create"
                yield key, "notify.persistent_notification" if is_the_old_one else value


def _in_our_words(detail: ErrorDetails) -> str:
    if detail["type"].startswith("bool_"):
        return "must be true or false"
    return re.sub(r"^\w+ should", "must", detail["msg"].removeprefix("Value error, "))


def _prepared(key: str, value: object, folder: Path) -> object:
    """Make of a raw value what may be shown to pydantic: secrets wrapped, paths anchored."""
    if value == "" and _FIELDS[key].default in (None, ()):
        return _FIELDS[key].default
    if isinstance(value, str) and key in _SECRETS:
        return SecretStr(value)
    return folder / value if isinstance(value, str) and value and key in _PATHS else value


def _why_unknown(key: str) -> str:
    if key in _SECTIONS:
        return "is a section, and must hold keys"
    near = difflib.get_close_matches(key, [*_FIELDS, *_SECRET_FILES], n=1)
    hint = f"; did you mean {near[0]} ({_variable(near[0])})?" if near else ""
    return f"is not a setting{hint}"


def _flat(tree: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for section, keys in tree.items():
        if isinstance(keys, dict) and (keys or section in _SECTIONS):
            yield from ((f"{section}.{key}", value) for key, value in keys.items())
        else:
            yield section, keys


def _nested(values: Mapping[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return tree


def _variables(environ: Mapping[str, str]) -> dict[str, object]:
    return {
        name.removeprefix("OTSD_").lower().replace("__", ".", 1): value
        for name, value in environ.items()
        if name.startswith("OTSD_") and "__" in name
    }


def mistyped(environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Tell of variables that are no settings, and would be one with two underscores."""
    for key in (*_FIELDS, *_SECRET_FILES):
        name = _variable(key).replace("__", "_")
        if name in environ:
            yield f"{name} is not a setting; did you mean {_variable(key)}?"


def _is_every_address(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_unspecified


def _is_one_door(public: Public, admin: Admin) -> bool:
    """Whether the two would listen on the same port of the same address."""
    hosts = {public.host, admin.host}
    is_any = any(map(_is_every_address, hosts)) and len(set(map(_version, hosts))) == 1
    return (is_any or len(hosts) == 1) and public.port == admin.port != 0


def _version(host: str) -> int | None:
    """Return which IP an address is of; ``None`` for a name."""
    with suppress(ValueError):
        return ip_address(host).version
    return None


def _contradictions(settings: Settings) -> Iterator[Mapping[str, str]]:
    """Find what is right by itself and wrong together: the problem, as it is told of each key."""
    if _is_every_address(settings.admin.host) and not settings.supervised:
        problem = "would open the admin page to every network, which is for the add-on alone"
        yield {"admin.host": f"{problem}; name one address of this machine"}
    if _is_one_door(settings.public, settings.admin):
        yield _both("public.port", "admin.port", settings.public.port)
    if settings.mqtt.base_topic == settings.mqtt.discovery_prefix:
        yield _both("mqtt.base_topic", "mqtt.discovery_prefix", settings.mqtt.base_topic)


def _both(one: str, other: str, value: object) -> Mapping[str, str]:
    said = f"are both {value}; change one"
    return {one: f"and {other} {said}", other: f"and {one} {said}"}


def load(
    *,
    config: Path | None = None,
    overrides: Mapping[str, str] = MappingProxyType({}),
    environ: Mapping[str, str] = os.environ,
    working_directory: Path | None = None,
    options: Path = ADD_ON_OPTIONS,
) -> Settings:
    """Read the configuration from all its sources.

    Args:
        config: the TOML file, which must exist; else ``OTSD_CONFIG``, else ``./config.toml``.
        overrides: what the command line says, by key: ``{"public.port": "80"}``.
        environ: the environment variables.
        working_directory: where relative paths start that are not in a file; else the process's.
        options: the add-on's options, read under the Supervisor only.

    Raises:
        ConfigurationError: with every fault in every source.

    """
    here = working_directory or Path()
    named = config or environ.get("OTSD_CONFIG")
    file = here / (named or "config.toml")
    # as if the file had said it, so that leaving the line out changes nothing
    home = file.parent if file.is_file() else here
    supervisor_token = environ.get("SUPERVISOR_TOKEN")
    sources = [
        _Source("command line", overrides, here),
        _Source("environment", _variables(environ), here),
        *([_Options.from_file(options, json.loads)] if supervisor_token else []),
        _Source.from_file(file, tomllib.loads, required=bool(named)),
        _Source("default", {"storage.directory": "data"}, home),
    ]
    settings = Settings(
        **_nested(ChainMap(*(source.values for source in sources))),
        supervisor_token=SecretStr(supervisor_token) if supervisor_token else None,
    )
    for problems in _contradictions(settings):
        # the strongest source that gives one of them is where it can be mended
        source = next(source for source in sources if problems.keys() & source.values.keys())
        key = min(problems.keys() & source.values.keys())
        source.fault(key, problems[key])
    if faults := tuple(fault for source in sources for fault in source.faults):
        raise ConfigurationError(faults)
    return settings
