"""The whole way of a link, from saving an action to the start after the end.

    await walk(Way(owner=…, visitor=…, start=…, stop=…, log=…, maker="cli"), home, ear)

However otsd is run, this is what it must do. A way of running says how one reaches an otsd there,
and writes `SETTINGS` down in its own form; Home Assistant and the broker are real.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from yarl import URL

from otsd.settings import ALIASES
from tests.daemon import OPEN_DOOR, Answer, Daemon
from tests.mqtt.ear import Ear
from tests.real.home_assistant import HomeAssistant

_PATIENCE = 60.0

# -- one set of settings ---------------------------------------------------------------------

SETTINGS: Final[Mapping[str, Any]] = {
    "public.title": "The house by the lake",
    "public.contact": "Please ring at number 7.",
    "public.base_url": "https://door.example.org/let-me-in",
    # where the requests of the tests come from: this machine, and the Supervisor's network
    "public.trusted_proxies": ["127.0.0.1", "172.30.33.0/24"],
    "mqtt.publish_links": True,
    "notifications.target": "notify.witness",
    "log.level": "warning",
}
"""Settings by key, none of them the default; what `walk` sees would be different without each."""


def in_toml() -> dict[str, str]:
    """Return the settings as TOML values by key."""
    return {key: json.dumps(value) for key, value in SETTINGS.items()}


def in_options() -> dict[str, Any]:
    """Return the settings as the add-on's options."""
    called = {key: name for name, key in ALIASES.items()}
    options: dict[str, Any] = {}
    for key, value in SETTINGS.items():
        section, _, name = key.partition(".")
        if key in called:
            options[called[key]] = value
        else:
            options.setdefault(section, {})[name] = value
    return options


def in_variables() -> dict[str, str]:
    """Return the settings as environment variables."""
    return {
        f"OTSD_{key.upper().replace('.', '__')}": _text(value) for key, value in SETTINGS.items()
    }


def in_arguments() -> list[str]:
    """Return the settings as options of the command line."""
    return [word for key, value in SETTINGS.items() for word in (f"--{key}", _text(value))]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


# -- one walk --------------------------------------------------------------------------------

DOOR = {"entity_id": "lock.front_door"}
ACTION = {"name": "open-door", "title": "Open the front door", "yaml": OPEN_DOOR}
SITE = URL(SETTINGS["public.base_url"]).path
SUBMIT = f"{SITE}/api/public/token/submit"
# of a visitor whose request came through a proxy
HEADERS = {"User-Agent": "A phone", "X-Forwarded-For": "203.0.113.9"}
# what the real Home Assistant witnesses
USES = {"entity": "lock.front_door", "action": "unlock"}
EVENTS = {"key": "event"}
NOTIFICATIONS = {"notify": "notify.witness"}


class Request(Protocol):
    """Sends a request to a path, and returns the answer; redirects are not followed."""

    def __call__(self, method: str, path: str, **more: Any) -> Awaitable[Answer]: ...


@dataclass(frozen=True)
class Way:
    """How one reaches an otsd that runs, and has no action yet."""

    owner: Request
    """Asks the admin API: ``owner("GET", "/status")``."""
    visitor: Request
    """Asks the public site."""
    start: Callable[[], Awaitable[object]]
    stop: Callable[[], Awaitable[int | None]]
    """Ends it by SIGTERM, and returns its exit status."""
    log: Callable[[], str]
    maker: str
    """What a token that the owner mints is ``created_by``."""


def way_to(daemon: Daemon) -> Way:
    """Return the way to a daemon of this machine, whose owner is whoever runs it."""
    return Way(
        owner=daemon.admin,
        visitor=daemon.visit,
        start=daemon.start,
        stop=daemon.stop,
        log=lambda: daemon.log,
        maker="cli",
    )


async def walk(way: Way, home: HomeAssistant, ear: Ear) -> None:
    """Go the whole way; ``home`` and the broker of ``ear`` are those that otsd is told of."""
    await _Walk(way, home, ear).go()


class _Walk:
    def __init__(self, way: Way, home: HomeAssistant, ear: Ear) -> None:
        self.way = way
        self.home = home
        self.ear = ear
        self._begun = len(home.witnessed())

    async def go(self) -> None:
        """Take every step."""
        status = await self._connected()
        assert status["home_assistant"]["version"] == self.home.version
        assert status["home_assistant"]["error"] is status["mqtt"]["error"] is None
        device = await self.ear.message("homeassistant/device/otsd_service/config")
        assert device.json["dev"]["name"] == SETTINGS["public.title"]
        assert (await self.way.owner("POST", "/actions", json=ACTION)).status == 201

        once = await self._press_the_button()
        twice = await self._submit_by_program()
        await self._counted(tokens=2, active_tokens=1, remaining_uses=1, submissions=2)
        await self._end_and_start(twice)
        await self._go_on(once, twice)
        await self._counted(tokens=2, active_tokens=0, remaining_uses=0, submissions=3)
        await self._told(once, twice)
        assert "Traceback" not in self.way.log()
        assert " INFO " not in self.way.log()

    # -- steps -------------------------------------------------------------------------------

    async def _press_the_button(self) -> Any:
        """Mint a token and use its link on its page; return the token."""
        wanted = {"action": "open-door", "comment": "Plumber"}
        minted = await self.way.owner("POST", "/tokens", json=wanted)
        assert minted.status == 201, minted.text
        token = minted.json
        assert token["created_by"] == self.way.maker
        assert token["url"] == f"{SETTINGS['public.base_url']}/?token={_code(token)}"

        await self.home.call("lock", "lock", target=DOOR)
        assert (await self.way.visitor("HEAD", _link(token))).status == 200
        page = await self.way.visitor("GET", _link(token))
        assert page.status == 200
        for words in (SETTINGS["public.title"], ACTION["title"], "Plumber", "Can be used once"):
            assert words in page.text
        assert (await self.way.owner("GET", f"/tokens/{token['id']}")).json["uses_left"] == 1
        assert await self.home.state("lock.front_door") == "locked"

        async def press(attempt: str) -> Answer:
            form = {"token": _code(token), "attempt": attempt}
            return await self.way.visitor("POST", f"{SITE}/", data=form, headers=HEADERS)

        for _ in ("first", "repeated"):
            pressed = await press("attempt-1")
            assert pressed.status == 303, pressed.text
            assert pressed.headers["Location"] == f"{_link(token)}&attempt=attempt-1"
            await self._is_done(token, "attempt-1")
        assert await self.home.state("lock.front_door") == "unlocked"
        other = await press("attempt-2")
        assert other.status == 410
        assert SETTINGS["public.contact"] in other.text
        assert "<button" not in other.text
        await self._used(1)
        return token

    async def _submit_by_program(self) -> Any:
        """Mint a token by MQTT and take the first of its two uses; return the token."""
        wanted = {"action": "open-door", "max_uses": 2, "comment": "Neighbour", "request_id": "r1"}
        await self.ear.say("otsd/command/mint", json.dumps(wanted))
        reply = await self.ear.state("otsd/response/r1", ok=True)
        token = {**reply["token"], "url": reply["url"]}
        assert token["created_by"] == "mqtt"
        await self._published(token, state="active", uses_left=2)
        described = await self.ear.message("homeassistant/device/otsd_action_open-door/config")
        assert described.json["cmps"]["qr_code"]["img_t"] == "otsd/actions/open-door/qr"

        await self.home.call("lock", "lock", target=DOOR)
        wrong = await self.way.visitor("POST", f"{SUBMIT}?token={'2' * 24}")
        assert (wrong.status, wrong.json["code"]) == (404, "unknown_token")
        assert await self.home.state("lock.front_door") == "locked"
        for _ in ("first", "repeated"):
            await self._submit(token, "program-1", uses_left=1)
        assert await self.home.state("lock.front_door") == "unlocked"
        await self._used(2)
        await self._published(token, state="active", uses_left=1)
        return token

    async def _end_and_start(self, token: Any) -> None:
        """End it in order, see what it leaves at the broker, and start it again."""
        assert await self.way.stop() == 0
        await self.ear.until(lambda: self.ear.held.get("otsd/status") == b"offline")
        async with Ear(self.ear.broker) as newcomer:
            left = await newcomer.message(f"otsd/tokens/{token['id']}/state")
            assert (left.retained, left.json["uses_left"]) == (True, 1)
        await self.way.start()
        await self._connected()
        await self.ear.until(lambda: self.ear.held.get("otsd/status") == b"online")

    async def _go_on(self, once: Any, twice: Any) -> None:
        """See that what was used stays used, and use what is left."""
        assert (await self.way.visitor("GET", _link(once))).status == 410
        await self._is_done(once, "attempt-1")
        await self.home.call("lock", "lock", target=DOOR)
        await self._submit(twice, "program-1", uses_left=1)
        assert await self.home.state("lock.front_door") == "locked"
        await self._submit(twice, "program-2", uses_left=0)
        assert await self.home.state("lock.front_door") == "unlocked"
        more = await self.way.visitor("POST", f"{SUBMIT}?token={_code(twice)}")
        assert (more.status, more.json["code"]) == (410, "used_up")
        await self._used(3)
        await self._published(twice, state="used_up", uses_left=0)

    # -- what is to be seen ------------------------------------------------------------------

    async def _connected(self) -> Any:
        """Wait until otsd has both connections, and return the status."""

        def has_both(status: Any) -> bool:
            return bool(status["home_assistant"]["state"] == status["mqtt"]["state"] == "connected")

        return await self._status(has_both)

    async def _counted(self, **counts: int) -> None:
        """Wait until so many are counted, and nothing waits."""
        waiting = ("running_submissions", "waiting_events", "waiting_notifications")
        expected = {"actions": 1, **counts, **dict.fromkeys(waiting, 0)}
        await self._status(lambda status: status["counts"] == expected)

    async def _status(self, condition: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(_PATIENCE):
            while True:
                answer = await self.way.owner("GET", "/status")
                # without Home Assistant nobody can say whether the one in the sidebar may enter
                if answer.status == 200 and condition(answer.json):
                    return answer.json
                await asyncio.sleep(0.02)

    async def _is_done(self, token: Any, attempt: str) -> None:
        """See that the page of an attempt says so."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                page = await self.way.visitor("GET", f"{_link(token)}&attempt={attempt}")
                assert page.status == 200, page.text
                if "Done" in page.text:
                    return
                await asyncio.sleep(0.02)

    async def _submit(self, token: Any, attempt: str, *, uses_left: int) -> None:
        """Submit by the JSON API; it is executed, or was."""
        headers = {**HEADERS, "Idempotency-Key": attempt}
        url = f"{SUBMIT}?token={_code(token)}"
        async with asyncio.timeout(_PATIENCE):
            # a busy machine may take longer than otsd lets a visitor wait
            while (answer := await self.way.visitor("POST", url, headers=headers)).status == 202:
                await asyncio.sleep(0.02)
        assert answer.status == 200, answer.text
        said = {"state": "executed", "uses_left": uses_left, "attempt": attempt}
        assert answer.json["response"] == said

    async def _used(self, times: int) -> None:
        """See that Home Assistant did it so often, and not more."""
        await self.ear.until(lambda: len(self._witnessed(USES)) >= times)
        assert len(self._witnessed(USES)) == times

    async def _published(self, token: Any, **expected: Any) -> None:
        """Wait until the broker is told this of a token."""
        await self.ear.state(f"otsd/tokens/{token['id']}/state", **expected)

    def _witnessed(self, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return what Home Assistant has seen of something since the walk began."""
        return [
            each for each in self.home.witnessed()[self._begun :] if fields.items() <= each.items()
        ]

    async def _told(self, *tokens: Any) -> None:
        """See that Home Assistant heard once of each use in the tokens' histories, in order."""
        uses = [(token, each) for token in tokens for each in await self._history(token)]
        # the automation and the notify action end a moment after they were begun
        async with asyncio.timeout(_PATIENCE):
            while any(len(self._witnessed(each)) < len(uses) for each in (EVENTS, NOTIFICATIONS)):
                await asyncio.sleep(0.02)
        assert [each["data"] for each in self._witnessed(EVENTS)] == [
            {
                "submission_id": submission["id"],
                "token_id": token["id"],
                "comment": token["comment"],
                "action": ACTION["name"],
                "title": ACTION["title"],
                "outcome": "executed",
                "error": None,
                "uses_left": submission["uses_left"],
                "max_uses": token["max_uses"],
                "submitted_at": f"{submission['started_at'][:19]}+00:00",
                "delivered_late": False,
                "remote_ip": HEADERS["X-Forwarded-For"],
                "user_agent": HEADERS["User-Agent"],
            }
            for token, submission in uses
        ]
        notified = [
            (each["title"], *each["message"].splitlines())
            for each in self._witnessed(NOTIFICATIONS)
        ]
        assert [(title, comment, left) for title, comment, _, left in notified] == [
            (ACTION["title"], token["comment"], f"Uses left: {submission['uses_left']}")
            for token, submission in uses
        ]

    async def _history(self, token: Any) -> list[Any]:
        """Return the submissions of a token that is used up, oldest first."""
        assert (await self.way.owner("GET", f"/tokens/{token['id']}")).json["state"] == "used_up"
        answer = await self.way.owner("GET", f"/submissions?token={token['id']}")
        return list(reversed(answer.json["items"]))


def _code(token: Any) -> str:
    return str(token["url"].rpartition("=")[2])


def _link(token: Any) -> str:
    """Return the path of a token's page."""
    return f"{SITE}/?token={_code(token)}"
