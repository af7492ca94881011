"""What Prometheus reads: who may, what is in it, and that the page about it is true."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import yaml
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from otsd import __version__
from otsd.core.measures import Durations
from otsd.core.ports import Counts, Tally
from otsd.core.tokens import SubmissionState
from otsd.server.metrics import Measured, Metrics
from tests.daemon import Answer, Daemon
from tests.fakes.home_assistant import After, Fail, FakeHomeAssistant, Stall, Succeed
from tests.scenarios.house import until
from tests.server.conftest import Estate, FaultyStore, House
from tests.server.owner import daemon_with_admin, key
from tests.test_docs import ROOT, blocks

pytestmark = pytest.mark.asyncio(loop_scope="package")

PAGE = ROOT / "docs" / "metrics.md"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def read_openmetrics(text: str) -> list[Metric]:
    """Read the stricter of the two formats."""
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


async def scraped(daemon: Daemon, reader: Any, **headers: str) -> Answer:
    """Ask as Prometheus does."""
    answer = await daemon.request(
        "GET", f"{daemon.admin_url}/metrics", headers={**reader["bearer"], **headers}
    )
    assert answer.status == 200, answer.text
    return answer


def samples(answer: Answer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every value by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read_text(answer.text)
        for sample in family.samples
    }


def value(answer: Answer, name: str, **labels: str) -> float | None:
    """Return a value, or that there is none."""
    return samples(answer).get((name, frozenset(labels.items())))


@pytest_asyncio.fixture(loop_scope="package")
async def reader(estate: Estate) -> AsyncIterator[Any]:
    """Return a key that may read."""
    made = await key(estate.daemon, "Prometheus", "read")
    yield made
    await estate.daemon.admin("DELETE", f"/api-keys/{made['id']}")


# -- who may -------------------------------------------------------------------------------------


async def test_it_is_for_those_who_may_read_everything(estate: Estate) -> None:
    daemon = estate.daemon
    url = f"{daemon.admin_url}/metrics"
    assert (await daemon.request("GET", url)).status == 401
    for scope, actions, status in (
        ("read", (), 200),
        ("admin", (), 200),
        ("mint", ("open-door",), 403),
    ):
        made = await key(daemon, f"of {scope}", scope, *actions)
        assert (await daemon.request("GET", url, headers=made["bearer"])).status == status
        await daemon.admin("DELETE", f"/api-keys/{made['id']}")
        assert (await daemon.request("GET", url, headers=made["bearer"])).status == 401
    browser = await estate.owner()
    assert (await browser.get("/metrics")).status == 200
    assert (await browser.post("/metrics")).status == 405


async def test_the_public_listener_has_none(house: House) -> None:
    for path in ("/metrics", "/metrics/", "//metrics", "/api/v1/metrics"):
        assert (await house.ask("GET", path)).status == 404


# -- what is in it -------------------------------------------------------------------------------


async def test_it_is_in_the_form_that_is_asked_for(estate: Estate, reader: Any) -> None:
    plain = await scraped(estate.daemon, reader)
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert plain.headers["Cache-Control"] == "no-store"
    families = {family.name for family in read_text(plain.text)}
    asked = await scraped(estate.daemon, reader, Accept=OPENMETRICS)
    assert asked.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    named = {family.name for family in read_openmetrics(asked.text)}
    assert {name.removesuffix("_info") for name in families} == named


async def test_a_version_that_is_none_is_answered_as_text(estate: Estate, reader: Any) -> None:
    for version in ("abc", "1..2", "1.0.0abc"):
        accept = f"application/openmetrics-text; version={version}"
        answer = await scraped(estate.daemon, reader, Accept=accept)
        assert answer.headers["Content-Type"].startswith("text/plain"), version
        assert value(answer, "otsd_build_info", version=__version__) == 1


async def test_it_counts_what_becomes_of_submissions_and_how_long_they_took(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with FakeHomeAssistant() as home:
        home.set_state("lock.front_door", "locked")
        folder = tmp_path_factory.mktemp("counted")
        settings = {"home_assistant.action_timeout": "1"}
        daemon = daemon_with_admin(folder, home, token=home.token, settings=settings)
        async with daemon:
            reader = await key(daemon, "Prometheus", "read")
            fresh = await scraped(daemon, reader)
            ended = "otsd_submissions_total"
            for state in ("executed", "failed", "unconfirmed"):
                assert value(fresh, ended, outcome=state) == 0
            took = "otsd_submission_duration_seconds"
            assert value(fresh, f"{took}_count") == 0
            assert value(fresh, "otsd_build_info", version=__version__) == 1
            assert value(fresh, "otsd_connection_up", connection="mqtt") is None

            await daemon.connected()
            await daemon.action()
            token = await daemon.mint(max_uses=9)
            for said in (
                Succeed(),
                After(0.3, Succeed()),
                Fail("home_assistant_error", "no"),
                Stall(),
            ):
                home.on_call = lambda _, said=said: said  # type: ignore[misc]
                await daemon.submit(token["code"])
            await daemon.announced()
            answer = await scraped(daemon, reader)
            assert value(answer, ended, outcome="executed") == 2
            assert value(answer, ended, outcome="failed") == 1
            assert value(answer, ended, outcome="unconfirmed") == 1
            assert value(answer, f"{took}_count") == 4
            assert value(answer, f"{took}_bucket", le="+Inf") == 4
            # one was slow, and one was waited for in vain
            assert (value(answer, f"{took}_bucket", le="0.25") or 0) <= 2
            assert (value(answer, f"{took}_sum") or 0) >= 1.3
            assert value(answer, "otsd_connection_up", connection="home_assistant") == 1
            assert value(answer, "otsd_tokens") == value(answer, "otsd_actions") == 1
            assert value(answer, "otsd_active_tokens") == 1
            written = "otsd_store_write_duration_seconds"
            # each of them took a use and was settled
            more = (value(answer, f"{written}_count") or 0) - (
                value(fresh, f"{written}_count") or 0
            )
            assert more >= 8

            held = asyncio.Event()
            home.on_call = lambda _: After(held, Succeed())
            assert (await daemon.post("/", data={"token": token["code"]})).status == 303
            await until(lambda: len(home.calls) == 5)
            assert value(await scraped(daemon, reader), "otsd_running_submissions") == 1
            home.state = "STARTING"
            daemon.kill()
            await home.stop()

            await daemon.start()
            answer = await scraped(daemon, reader)
            assert value(answer, ended, outcome="unconfirmed") == 1
            assert value(answer, ended, outcome="executed") == 0
            assert value(answer, "otsd_connection_up", connection="home_assistant") == 0
            # Home Assistant has not heard of the last one yet
            assert value(answer, "otsd_outbox_length", queue="event") == 1
            assert value(answer, "otsd_outbox_length", queue="notification") == 0
            assert value(answer, "otsd_running_submissions") == 0


async def test_what_is_in_the_store_is_absent_while_the_store_is() -> None:
    store = FaultyStore(_Counting())
    measured = Measured(
        store,
        _Submissions(),  # type: ignore[arg-type]
        Durations(1.0),
        {},
        lambda: None,  # type: ignore[arg-type, return-value]
    )
    whole = families((await Metrics(measured).show("")).text)
    store.failing = {"counts"}
    rest = families((await Metrics(measured).show("")).text)
    assert set(whole) - set(rest) == {
        "otsd_outbox_length",
        "otsd_actions",
        "otsd_tokens",
        "otsd_active_tokens",
    }
    assert set(rest) < set(whole)


class _Counting:
    async def counts(self, _: object) -> Counts:
        return Counts(1, 2, 3, Tally(1, 1, None), {}, 4, 5)


class _Submissions:
    def __init__(self) -> None:
        self.running = 0
        self.ended = {SubmissionState.EXECUTED: 1}
        self.durations = Durations(0.5)


def families(text: str | None) -> dict[str, Metric]:
    """Return the metrics of a text by name, as it has them."""
    return {family.name: family for family in read_text(text or "")}


async def test_a_duration_falls_into_the_bucket_whose_bound_it_reaches() -> None:
    durations = Durations(1.0, 2.0)
    for took in (0.0, 1.0, 1.5, 2.0, 2.1, 300.0):
        durations.add(took)
    assert list(durations.counts) == [2, 2, 2]
    assert durations.total == 306.6


# -- what is said about it -----------------------------------------------------------------------


async def test_the_page_names_every_metric_with_its_type_and_labels(
    estate: Estate, reader: Any
) -> None:
    found: dict[str, tuple[str, set[str]]] = {}
    for family in read_text((await scraped(estate.daemon, reader)).text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    rows = re.findall(r"^\| `(otsd_\w+)(?:\{(.*?)\})?` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    told = {name: (kind, set(filter(None, labels.split(", ")))) for name, labels, kind in rows}
    assert told == found
    for name in re.findall(r"`(otsd_\w+)[`{]", PAGE.read_text()):
        assert name in found


async def test_prometheus_configured_like_the_example_would_get_in(
    estate: Estate, reader: Any
) -> None:
    scrape, rules = map(yaml.safe_load, blocks(PAGE, "yaml"))
    (job,) = scrape["scrape_configs"]
    assert set(job) == {"job_name", "authorization", "static_configs"}
    # what Prometheus makes of the rest, by its documentation
    scheme = job["authorization"].get("type", "Bearer")
    path = job.get("metrics_path", "/metrics")
    assert set(job["authorization"]) == {"credentials_file"}
    (static,) = job["static_configs"]
    assert static == {"targets": ["127.0.0.1:8099"]}
    answer = await estate.daemon.request(
        "GET",
        estate.daemon.admin_url + path,
        headers={"Authorization": f"{scheme} {reader['key']}", "Accept": OPENMETRICS},
    )
    assert answer.status == 200
    names = {sample.name for each in read_openmetrics(answer.text) for sample in each.samples}
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert set(re.findall(r"otsd_\w+", rule["expr"])) <= names
            assert rule["alert"].startswith("Otsd")
