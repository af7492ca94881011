"""In Home Assistant's sidebar, with a peer that really has the Supervisor's address."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import apart


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Knock in every way, in a network where 172.30.32.2 is somebody; see `tests.server.ingress`."""
    hosts = tmp_path_factory.mktemp("ingress") / "hosts"
    hosts.write_text("127.0.0.1 localhost supervisor\n")
    return apart.told(
        f"""
        ip link set lo up
        for address in 172.30.32.2 172.30.32.1; do ip address add $address/32 dev lo; done
        mount --bind {hosts} /etc/hosts
        exec {sys.executable} -m tests.server.ingress
        """
    )


async def test_an_administrator_enters_and_makes_links(found: Any) -> None:
    session = json.loads(found["session"]["text"])
    assert session["user"] == {"id": found["admin"], "name": "Anna"}
    assert session["via"] == "ingress"
    assert session["can_log_out"] is False
    assert session["home_assistant"]["configured"] == "supervisor"
    assert found["mint"]["status"] == 201
    # by Home Assistant's word, not by the header's
    assert json.loads(found["mint"]["text"])["created_by"] == "user:Anna"


async def test_the_page_works_in_the_sidebars_frame_and_below_its_path(found: Any) -> None:
    assert found["page"]["status"] in (200, 503)  # it may not be built here
    assert '<meta charset="utf-8"' in found["page"]["text"]
    assert 'src="/' not in found["page"]["text"]
    assert 'href="/' not in found["page"]["text"]
    for name in ("page", "session", "nothing", "guest's page", "login"):
        policy = found[name]["headers"]["content-security-policy"]
        assert "frame-ancestors 'self'" in policy, name
        assert "x-frame-options" not in found[name]["headers"]


async def test_nobody_has_to_log_in_there(found: Any) -> None:
    assert found["login"]["status"] == 303
    assert found["login"]["headers"]["location"] == "./"
    assert found["connect"]["status"] == 409
    assert found["callback"]["status"] == 421


@pytest.mark.parametrize(
    "who", ["guest", "guest's page", "inactive", "nobody", "empty", "unknown", "asset", "key"]
)
async def test_who_is_no_active_administrator_gets_403(found: Any, who: str) -> None:
    assert found[who]["status"] == 403
    assert "Only an administrator of Home Assistant may enter here" in found[who]["text"]
    assert "./login" not in found[who]["text"]


async def test_the_metrics_are_there_as_for_a_program_with_a_key(found: Any) -> None:
    here, there = found["metrics"], found["metrics by key"]
    assert (here["status"], there["status"]) == (200, 200)
    kinds = [
        {family.name: family.type for family in text_string_to_metric_families(each["text"])}
        for each in (here, there)
    ]
    assert kinds[0] == kinds[1]
    assert "otsd_connection_up" in kinds[0]
    for name in ("content-type", "cache-control"):
        assert here["headers"][name] == there["headers"][name]
    assert found["guest's metrics"]["status"] == 403


async def test_visitors_find_no_metrics_whatever_they_claim_to_be(found: Any) -> None:
    answers = [found[name] for name in found if name.startswith("public ")]
    assert len(answers) == 4
    for answer in answers:
        assert answer["status"] == 404
        assert "otsd_" not in answer["text"]


async def test_a_page_of_another_site_changes_nothing(found: Any) -> None:
    assert found["foreign"]["status"] == 403


@pytest.mark.parametrize("address", ["127.0.0.1", "172.30.32.1"])
async def test_from_any_other_peer_the_headers_mean_nothing(found: Any, address: str) -> None:
    assert found[address]["status"] == 401
    assert found[f"{address} as ingress"]["status"] == 421
    for name in (address, f"{address} as ingress"):
        assert "frame-ancestors 'none'" in found[name]["headers"]["content-security-policy"]


async def test_nothing_of_it_surprised_the_daemon(found: Any) -> None:
    assert "Traceback" not in found["log"]["text"]
    assert "nobody expected" not in found["log"]["text"]
