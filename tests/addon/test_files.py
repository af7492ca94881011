"""The files of the add-on: what the Supervisor reads of them, and what otsd knows of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from otsd import __version__
from otsd.settings import ALIASES, ConfigurationError, Settings, load, schema
from tests.addon.house import ADDON, CONFIG, ROOT, image
from tests.container.image import steps
from tests.test_docs import blocks

LANGUAGES = ("en", "de")
KEYS = {setting.key for setting in schema()}
# what the Supervisor knows (supervisor/apps/validate.py); it drops other keys without a word
KNOWN = {
    *("name", "version", "slug", "description", "arch", "startup", "init", "timeout"),
    *("ingress", "ingress_port", "panel_icon", "panel_title", "panel_admin"),
    *("ports", "ports_description", "watchdog", "homeassistant_api", "services", "map"),
    *("apparmor", "backup", "backup_pre", "backup_post", "backup_exclude", "options", "schema"),
}
ELEMENT = re.compile(
    r"(?:bool|url|port|(?:str|password|int)(?:\(-?\d*,-?\d*\))?|list\([^()]+\))\??"
)


def options(tree: Any, section: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the options of a form by key, ``public.title``."""
    for name, kind in tree.items():
        if isinstance(kind, dict):
            yield from options(kind, f"{name}.")
        else:
            yield f"{section}{name}", kind


def given(folder: Path, tree: object) -> Settings:
    """Return the settings of an add-on with these options, in its image's environment."""
    (folder / "options.json").write_text(json.dumps(tree))
    environ, _ = image()
    return load(
        environ={**environ, "SUPERVISOR_TOKEN": "x"},
        options=folder / "options.json",
        working_directory=folder,
    )


def test_the_supervisor_knows_every_key() -> None:
    assert CONFIG.keys() == KNOWN
    assert all(
        ELEMENT.fullmatch(kind) for _, kind in options(CONFIG["schema"]) if isinstance(kind, str)
    )


def test_the_version_is_that_of_otsd() -> None:
    assert CONFIG["version"] == __version__
    assert f"## {__version__}" in (ADDON / "CHANGELOG.md").read_text()


def test_there_is_one_config_in_the_repository() -> None:
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    found = [each for each in files if Path(each).name.partition(".")[0] == "config"]
    assert [each for each in found if Path(each).suffix in {".yaml", ".yml", ".json"}] == [
        "addon/config.yaml"
    ]


def test_every_option_is_a_setting() -> None:
    names = {name for name, _ in options(CONFIG["schema"])}
    assert {ALIASES.get(name, name) for name in names} <= KEYS
    assert ALIASES.keys() <= names
    # else the Supervisor does not start it before the form was saved
    assert CONFIG["schema"].keys() - {"notification_target"} == CONFIG["options"].keys()
    assert {name for name, _ in options(CONFIG["options"])} <= names


def test_the_options_that_it_comes_with_are_the_defaults(tmp_path: Path) -> None:
    ours, default = given(tmp_path, CONFIG["options"]), Settings()
    changed = {
        setting.key
        for setting in schema()
        if value(ours, setting.key) != value(default, setting.key)
    }
    assert changed == {"public.base_url", "admin.host", "storage.directory"}
    assert ours.storage.directory == Path("/data")
    assert (ours.admin.host, ours.admin.port) == ("0.0.0.0", CONFIG["ingress_port"])
    assert f"{ours.public.port}/tcp" in CONFIG["ports"]
    assert [*CONFIG["ports"]] == ["1337/tcp"]


def value(settings: Settings, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def test_an_option_of_the_form_can_be_left_empty(tmp_path: Path) -> None:
    empty: dict[str, Any] = {
        name: {key: [] if isinstance(kind, list) else "" for key, kind in kinds.items()}
        for name, kinds in CONFIG["schema"].items()
        if isinstance(kinds, dict)
    }
    aliases = {"notification_target": "", "public_token_base_url": None}
    assert given(tmp_path, {**empty, **aliases}) == given(tmp_path, {})


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_option_is_explained_in(language: str) -> None:
    told = yaml.safe_load((ADDON / "translations" / f"{language}.yaml").read_text())
    assert told.keys() == {"configuration", "network"}
    assert told["network"].keys() == CONFIG["ports"].keys()
    texts = dict(explained(told["configuration"]))
    sections = {name for name, kind in CONFIG["schema"].items() if isinstance(kind, dict)}
    assert texts.keys() == {name for name, _ in options(CONFIG["schema"])} | sections
    assert all(text["name"] and text["description"] for text in texts.values())


def explained(tree: Any, section: str = "") -> Iterator[tuple[str, Any]]:
    for name, text in tree.items():
        yield f"{section}{name}", text
        yield from explained(text.get("fields", {}), f"{name}.")


def test_what_is_explained_of_the_options_is_so(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "add-on.md", "yaml")
    example = yaml.safe_load(text)
    assert {name for name, _ in options(example)} <= {name for name, _ in options(CONFIG["schema"])}
    assert given(tmp_path, example).public.title == "The blue house"
    page = (ROOT / "docs" / "add-on.md").read_text()
    assert [
        name for name, _ in options(CONFIG["schema"]) if f"`{name.rpartition('.')[2]}`" not in page
    ] == []


def test_the_image_runs_what_the_supervisor_calls() -> None:
    _, command = image()
    assert command == ["otsd-add-on", "run"]
    script = ADDON / "otsd-add-on"
    assert os.access(script, os.X_OK)
    for called in (command[1], *(CONFIG[key].split()[1] for key in ("backup_pre", "backup_post"))):
        assert f"\n{called})\n" in script.read_text()
    nothing = subprocess.run(
        [script],
        env={**os.environ, "OTSD_STORAGE__DIRECTORY": "/nowhere"},
        capture_output=True,
        check=False,
    )
    assert nothing.returncode == 2


def test_the_profile_of_apparmor_can_be_read() -> None:
    profile = ADDON / "apparmor.txt"
    done = subprocess.run(
        ["apparmor_parser", "--skip-kernel-load", "--skip-cache", profile],
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # the Supervisor takes the one line that begins so, and gives it a name of its own
    lines = profile.read_text().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("profile ")] == [CONFIG["slug"]]
    # the daemon locks the folder itself, which a rule for what is in it does not allow
    assert "  /data/ rwk," in lines
    # what the script calls of the system, and nothing else of it
    script = (ADDON / "otsd-add-on").read_text()
    (rule,) = (line for line in lines if line.startswith("  /{usr/,}bin/{"))
    programs = set(rule.partition("bin/{")[2].partition("}")[0].split(","))
    assert rule.endswith("} rix,")
    called = set(
        re.findall(r"^ *(?:[^#\n]*(?:\|\||then|!) )?(mkdir|mv|rm|touch) ", script, re.MULTILINE)
    )
    assert called == programs - {"dash", "env", "sh"}
    assert not re.search(r"^\s*(capability|file,|mount|ptrace)", profile.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("name", "size"), [("icon.png", (128, 128)), ("logo.png", (250, 100))])
def test_the_pictures_are_of_the_size_that_home_assistant_wants(
    name: str, size: tuple[int, int]
) -> None:
    picture = (ADDON / name).read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == size


def test_the_repository_has_a_name() -> None:
    assert yaml.safe_load((ROOT / "repository.yaml").read_text()) == {"name": "otsd"}


# -- the names of the One Time Service add-on ---------------------------------------------------


def faults(folder: Path, tree: object) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        given(folder, tree)
    return [str(fault).partition(": ")[2] for fault in caught.value.faults]


def test_options_have_the_names_of_the_one_time_service_add_on(tmp_path: Path) -> None:
    settings = given(
        tmp_path,
        {
            "public_token_base_url": "https://door.example.org",
            "notify_on_token_submission": False,
            "notification_target": "persistent_notification.create",
        },
    )
    assert str(settings.public.base_url) == "https://door.example.org"
    assert settings.notifications.on_submission is False
    assert settings.notifications.target == "notify.persistent_notification"


def test_a_setting_is_given_by_one_name(tmp_path: Path) -> None:
    both = {"notification_target": "notify.a", "notifications": {"target": "notify.b"}}
    told = (
        "notification_target (OTSD_NOTIFICATIONS__TARGET) "
        "stands beside notifications.target; give only one of them"
    )
    assert faults(tmp_path, both) == [told]
    both["notification_target"] = ""
    assert given(tmp_path, both).notifications.target == "notify.b"


@pytest.mark.parametrize("name", ALIASES)
def test_a_fault_is_told_by_the_name_that_the_owner_sees(tmp_path: Path, name: str) -> None:
    (fault,) = faults(tmp_path, {name: ["wrong"]})
    assert fault.startswith(f"{name} (OTSD_")
    assert "wrong" not in fault


def test_these_names_are_the_add_ons_alone(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('public_token_base_url = "https://door.example.org"')
    with pytest.raises(ConfigurationError, match="is not a setting"):
        load(environ={}, working_directory=tmp_path)


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_option_leaves_the_setting_to_weaker_sources(
    tmp_path: Path, empty: str | None
) -> None:
    (tmp_path / "config.toml").write_text('[public]\ntitle = "file"\n')
    tree = {"public": {"title": empty, "contact": empty}, "log": empty}
    assert given(tmp_path, tree).public.title == "file"
    assert given(tmp_path, tree).public.contact is None


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_line_of_a_list_is_none(tmp_path: Path, empty: str | None) -> None:
    tree = {"public": {"trusted_proxies": [empty]}}
    assert given(tmp_path, tree).public.trusted_proxies == ()
    tree["public"]["trusted_proxies"] += ["192.0.2.7"]
    (network,) = given(tmp_path, tree).public.trusted_proxies
    assert str(network) == "192.0.2.7/32"


def test_a_wheel_that_lies_beside_the_dockerfile_is_what_is_installed(tmp_path: Path) -> None:
    found = steps((ADDON / "Dockerfile").read_text())
    (copied,) = (step.words for step in found if step.words[-1] == "/tmp/")
    assert "*.whl" in copied
    wheel = tmp_path / f"otsd-{__version__}-py3-none-any.whl"
    about = f"otsd-{__version__}.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("this_wheel.py", "")
        file.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: otsd\nVersion: {__version__}"
        )
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true"
        )
        file.writestr(f"{about}/RECORD", "")
    (line,) = (step.rest for step in found if "otsd==" in step.rest)
    (install,) = (each for each in line.split("&&") if "otsd==" in each)
    words = shlex.split(
        install.partition(" install ")[2]
        .replace("/tmp", str(tmp_path))
        .replace("${BUILD_VERSION}", str(CONFIG["version"]))
    )
    there = tmp_path / "there"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-index", "--target", there, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (there / "this_wheel.py").is_file()


def test_the_page_makes_the_wheel_where_the_dockerfile_looks_for_it() -> None:
    (commands,) = blocks(ROOT / "docs" / "add-on.md", "sh")
    assert commands.splitlines()[-1].endswith("pip wheel --no-deps --wheel-dir addon .")


def test_what_the_add_on_is_built_from_is_what_is_tested() -> None:
    assert (ADDON / "requirements.txt").read_bytes() == (ROOT / "requirements.txt").read_bytes()
