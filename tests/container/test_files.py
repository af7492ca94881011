"""Dockerfile, .dockerignore and compose.yaml, as far as they can be read without being run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from otsd.cli import parser
from otsd.settings import load, schema
from tests.container.composing import Missing, compose
from tests.container.image import ROOT, Ignored, steps
from tests.test_docs import blocks

NEEDED = {
    "HOME_ASSISTANT_URL": "http://192.168.1.10:8123",
    "MQTT_PASSWORD": "one-of-otsd",
    "MQTT_HOME_ASSISTANT_PASSWORD": "one-of-home-assistant",
}
DOCKERFILES = sorted([ROOT / "Dockerfile", *ROOT.glob("addon/Dockerfile")])
PAGE = ROOT / "docs" / "container.md"


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_hadolint_finds_nothing_in_a_dockerfile(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize(
    ("path", "is_left_out"),
    [
        ("otsd/app.py", False),
        ("otsd/store/schema/0001_initial.sql", False),
        ("web/admin/src/api.ts", False),
        ("web/admin/package-lock.json", False),
        ("hatch_build.py", False),
        ("web/admin/dist/index.html", True),
        ("web/admin/node_modules/lit/index.js", True),
        ("otsd/__pycache__/app.cpython-313.pyc", True),
        (".env", True),
        (".git/config", True),
        ("config.toml", True),
        ("data/otsd.key", True),
        ("tests/conftest.py", True),
    ],
)
def test_what_is_built_and_what_is_secret_stays_out_of_the_build(
    path: str, is_left_out: bool
) -> None:
    assert (path in Ignored((ROOT / ".dockerignore").read_text())) is is_left_out


def test_signals_reach_otsd_and_the_image_runs_as_a_user_by_number() -> None:
    found = {step.keyword: step for step in steps((ROOT / "Dockerfile").read_text())}
    assert found["ENTRYPOINT"].rest.startswith("[")
    assert found["CMD"].rest.startswith("[")
    assert found["STOPSIGNAL"].rest == "SIGTERM"
    # a number is what Kubernetes and others can see to be no root's
    assert found["USER"].rest == "1337:1337"
    assert found["VOLUME"].rest == "/data"
    assert found["EXPOSE"].words == ["1337", "8099"]


@pytest.mark.parametrize("name", NEEDED)
def test_compose_says_what_has_to_be_set(name: str) -> None:
    with pytest.raises(Missing, match=r"in \.env"):
        compose({**NEEDED, name: ""})


@pytest.mark.parametrize("name", ["otsd", "mosquitto"])
def test_every_service_may_do_as_little_as_it_needs(name: str) -> None:
    service = compose(NEEDED)["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "/tmp" in service["tmpfs"]
    assert not {"privileged", "network_mode", "cap_add", "devices"} & set(service)


def test_the_files_of_compose_go_together() -> None:
    whole = compose(NEEDED)
    assert set(whole) == {"name", "services", "configs", "volumes"}
    otsd, mosquitto = whole["services"]["otsd"], whole["services"]["mosquitto"]
    assert otsd["read_only"] is True
    # Compose refuses the two together
    assert not (mosquitto.get("read_only") and mosquitto["configs"])
    volumes = [each.split(":") for each in otsd["volumes"] + mosquitto["volumes"]]
    assert {name for name, _ in volumes} == set(whole["volumes"])
    assert volumes[0][1] == "/data"
    assert {each["source"] for each in mosquitto["configs"]} == set(whole["configs"])
    assert otsd["environment"]["OTSD_MQTT__HOST"] in whole["services"]
    assert otsd["environment"]["OTSD_ADMIN__HOST"] == otsd["hostname"]
    exposed = next(
        step for step in steps((ROOT / "Dockerfile").read_text()) if step.keyword == "EXPOSE"
    )
    assert [each.rpartition(":")[2] for each in otsd["ports"]] == exposed.words


def test_neither_the_admin_page_nor_the_broker_is_published_beyond_this_machine() -> None:
    services = compose(NEEDED)["services"]
    assert services["otsd"]["ports"] == ["1337:1337", "127.0.0.1:8099:8099"]
    assert services["mosquitto"]["ports"] == ["127.0.0.1:1883:1883"]


def test_otsd_accepts_what_compose_sets() -> None:
    settings = load(environ=compose(NEEDED)["services"]["otsd"]["environment"])
    assert str(settings.admin.base_url) == "http://localhost:8099"
    assert settings.public.trusted_proxies == ()


def test_the_rules_of_the_broker_are_those_of_the_page_about_mqtt() -> None:
    rules = compose(NEEDED)["configs"]["rules"]["content"]
    assert rules in blocks(ROOT / "docs" / "mqtt.md", "conf")


def _variables(text: str) -> set[str]:
    return set(re.findall(r"\$\{(\w+)", text))


def test_the_page_names_every_variable_of_compose_and_its_example_is_enough() -> None:
    known = _variables((ROOT / "compose.yaml").read_text())
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)) == known
    (example,) = (text for text in blocks(PAGE, "text") if "HOME_ASSISTANT_URL=" in text)
    given: dict[str, Any] = dict(line.split("=", 1) for line in example.splitlines())
    assert set(given) <= known
    assert compose(given)


def test_without_what_the_page_says_to_take_out_an_address_is_enough() -> None:
    (told,) = re.findall(
        r"^If you have a broker already.*?\n\n", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    whole = yaml.safe_load((ROOT / "compose.yaml").read_text())
    del whole["services"]["mosquitto"], whole["configs"], whole["volumes"]["messages"]
    otsd = whole["services"]["otsd"]["environment"]
    for name in [each for each in otsd if each.startswith("OTSD_MQTT__")]:
        del otsd[name]
    named = set(re.findall(r"`([^`]+)`", told))
    assert named >= {"mosquitto", "configs:", "messages:", "OTSD_MQTT__", "HOME_ASSISTANT_URL"}
    only = {"HOME_ASSISTANT_URL": NEEDED["HOME_ASSISTANT_URL"]}
    left = compose(only, yaml.safe_dump(whole, default_style='"'))
    assert load(environ=left["services"]["otsd"]["environment"]).mqtt.host is None


def test_the_volume_that_the_page_removes_is_that_of_otsd() -> None:
    whole = compose(NEEDED)
    (volume,) = whole["services"]["otsd"]["volumes"]
    assert f"docker volume rm {whole['name']}_{volume.partition(':')[0]}\n" in PAGE.read_text()


def test_every_command_of_otsd_that_the_page_gives_in_a_container_is_one() -> None:
    commands = re.findall(
        r"(?:exec(?: -\S+)* otsd|run --rm.*?) otsd (.*)", "".join(blocks(PAGE, "sh"))
    )
    assert commands
    for command in commands:
        words = shlex.split(command.partition(" <")[0], comments=True)
        parser.build(schema()).parse_args(words)  # exits, and so fails, at wrong usage
