"""Rounds of ``kill -9``: otsd is killed under load at a random moment, and then all is counted.

A round mints fresh tokens of three uses, half of them for an action that Home Assistant runs by
``call_service``, half by ``execute_script``. Sixteen visitors submit them in parallel, some of
them twice at once, and go on asking after an attempt until they are told its end, whatever dies
meanwhile. After the restart the books must agree:

    executed in the list  ≤  executions in Home Assistant  ≤  uses spent  ≤  uses there were
    what visitors were told  =  the list  =  what an automation heard, in order

The tests run some rounds, ``scripts/stress`` as many as one likes.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.daemon import Daemon
from tests.scenarios.house import House

USES: Final = 3
VISITORS: Final = 16
TOKENS: Final = 12
_PATIENCE: Final = 40.0
_LONGEST_STEP: Final = 0.05

EXECUTED: Final = "executed"
UNKNOWN: Final = "outcome_unknown"
USED_UP: Final = "used_up"
# what a visitor does not take for an answer
_NOT_YET: Final = frozenset({"running", "home_unavailable", "busy"})


class Broken(AssertionError):
    """A guarantee does not hold."""


def hold(condition: object, what: str) -> None:
    """Raise `Broken` unless the condition holds; also where asserts are switched off."""
    if not condition:
        raise Broken(what)


@dataclass
class Books:
    """What rounds add up to."""

    rounds: int = 0
    uses: int = 0
    spent: int = 0
    executions: int = 0
    states: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    """Rounds whose kill left something running."""
    retried: int = 0
    """Requests that got no answer, and were sent again."""
    repeated: int = 0
    """Attempts that were asked after once more at the end."""
    events: int = 0
    twice: int = 0
    """Events that were heard more than once, which is allowed."""

    def lines(self) -> list[tuple[str, int]]:
        """Return what there is to show, by its name."""
        return [
            ("rounds", self.rounds),
            ("  of which the kill left something running", self.cut),
            ("uses there were", self.uses),
            ("uses spent", self.spent),
            ("executions in Home Assistant", self.executions),
            *((f"submissions {state}", count) for state, count in sorted(self.states.items())),
            *((f"told {code}", count) for code, count in sorted(self.answers.items())),
            ("requests sent again after no answer", self.retried),
            ("attempts repeated at the end", self.repeated),
            ("events heard", self.events),
            ("  of which again", self.twice),
        ]


class Round:
    """One round, with one daemon in one house."""

    def __init__(self, otsd: Daemon, house: House, chance: random.Random, books: Books) -> None:
        """Take a daemon that is connected."""
        self._otsd = otsd
        self._house = house
        self._chance = chance
        self._books = books
        self._url = f"{otsd.url}/api/public/token/submit"
        self._tokens: dict[str, dict[str, Any]] = {}
        self._told: dict[tuple[str, str], str] = {}
        self._used_up: set[str] = set()
        self._kill_at = chance.randrange(TOKENS * USES + 1)
        self._executed = 0
        self._time_to_kill = asyncio.Event()
        self._killed = False

    async def play(self) -> None:
        """Play it, and check the books; raises `Broken`."""
        await self._mint()
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            for _ in range(VISITORS):
                tasks.create_task(self._visit(http))
            await self._kill()
        async with asyncio.timeout(_PATIENCE), aiohttp.ClientSession() as http:
            await self._otsd.announced(_PATIENCE)
            await self._house.caught_up()
            await self._check(http)
        self._books.rounds += 1

    async def _mint(self) -> None:
        """Mint the tokens, each with the key by which Home Assistant writes its executions down."""
        plain = [f"plain-{secrets.token_hex(6)}" for _ in range(TOKENS // 2)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._otsd.action("script", self._yaml("{{ token.id }}")))
            for action in plain:
                tasks.create_task(self._otsd.action(action, self._yaml(action)))
        for action in [*plain, *["script"] * (TOKENS - len(plain))]:
            token = await self._otsd.mint(action, max_uses=USES)
            key = token["id"] if action == "script" else action
            self._tokens[token["id"]] = {**token, "key": key}

    def _yaml(self, key: str) -> str:
        seconds = self._chance.uniform(0, _LONGEST_STEP)
        return f'action: witness.record\ndata:\n  key: "{key}"\n  seconds: {seconds:.3f}\n'

    # -- visitors --------------------------------------------------------------------------

    async def _visit(self, http: aiohttp.ClientSession) -> None:
        """Submit whatever can be submitted, until otsd was killed or nothing is left."""
        while not self._killed and (
            usable := [each for each in self._tokens if each not in self._used_up]
        ):
            token = self._chance.choice(usable)
            attempt = secrets.token_urlsafe(12)
            clicks = 2 if self._chance.random() < 0.25 else 1
            async with asyncio.TaskGroup() as tasks:
                for _ in range(clicks):
                    tasks.create_task(self._insist(http, token, attempt))

    async def _insist(self, http: aiohttp.ClientSession, token: str, attempt: str) -> None:
        """Ask after one attempt until its end is told; it must always be the same."""
        async with asyncio.timeout(_PATIENCE):
            while (told := await self._submit(http, token, attempt)) in _NOT_YET:
                await asyncio.sleep(0.05)
        self._books.answers[told] += 1
        hold(
            told in (EXECUTED, UNKNOWN, USED_UP),
            f"a visitor of {token} was told {told}",
        )
        first = self._told.setdefault((token, attempt), told)
        hold(first == told, f"attempt {attempt} of {token} was first {first}, then {told}")
        if told == USED_UP:
            self._used_up.add(token)
        if told == EXECUTED:
            self._executed += 1
        if self._executed >= self._kill_at or not set(self._tokens) - self._used_up:
            self._time_to_kill.set()

    async def _submit(self, http: aiohttp.ClientSession, token: str, attempt: str) -> str:
        headers = {"Idempotency-Key": attempt}
        params = {"token": self._tokens[token]["code"]}
        try:
            async with http.post(self._url, params=params, headers=headers) as response:
                body = await response.json()
        except (aiohttp.ClientError, OSError):
            self._books.retried += 1
            return "running"  # or not: the next request will tell
        return str(body.get("code") or body["response"]["state"])

    # -- the kill --------------------------------------------------------------------------

    async def _kill(self) -> None:
        if self._kill_at:
            await self._time_to_kill.wait()
        await asyncio.sleep(self._chance.uniform(0, 0.02))
        self._otsd.kill()
        self._killed = True
        await self._otsd.start()
        await self._otsd.connected()

    # -- the books -------------------------------------------------------------------------

    async def _check(self, http: aiohttp.ClientSession) -> None:
        house, books = self._house, self._books
        hold(not await self._list("/submissions?state=running"), "something is left running")
        every: dict[tuple[str, int], dict[str, Any]] = {}
        for token, made in self._tokens.items():
            shown = (await self._otsd.admin("GET", f"/tokens/{token}")).json
            submissions = await self._list(f"/submissions?token={token}")
            states = Counter(each["state"] for each in submissions)
            spent = USES - shown["uses_left"]
            executions = house.ran(made["key"])
            hold(
                states["executed"] <= executions <= spent <= USES,
                f"{token}: {states['executed']} executed in the list, {executions} executions, "
                f"{spent} uses spent",
            )
            hold(spent == sum(each["spent"] for each in submissions), f"{token}: {spent} spent")
            told = Counter(end for (of, _), end in self._told.items() if of == token)
            hold(
                (told[EXECUTED], told[UNKNOWN]) == (states["executed"], states["unconfirmed"]),
                f"{token}: visitors were told {told}, the list has {states}",
            )
            hold(states.keys() <= {"executed", "unconfirmed"}, f"{token}: {states}")
            every |= {(token, each["id"]): each for each in submissions}
            books.states += states
            books.uses += USES
            books.spent += spent
            books.executions += executions
        self._check_events(every)
        books.cut += any(each["state"] == "unconfirmed" for each in every.values())
        await self._repeat(http)

    def _check_events(self, submissions: dict[tuple[str, int], dict[str, Any]]) -> None:
        """Each end was announced, truly, and in the order in which it was settled."""
        heard = self._house.heard(*self._tokens)
        firsts: dict[tuple[str, int], str] = {}
        for event in heard:
            outcome = firsts.setdefault(
                (event["token_id"], event["submission_id"]), event["outcome"]
            )
            hold(outcome == event["outcome"], f"two outcomes: {event} and {outcome}")
        states = {key: each["state"] for key, each in submissions.items()}
        hold(firsts == states, f"the events tell {firsts}, the list {states}")
        # what a kill had cut is settled at the start, all at one time, by its number
        settled = [
            (each["finished_at"], each["id"] if each["state"] == "unconfirmed" else 0)
            for each in map(submissions.__getitem__, firsts)
        ]
        hold(settled == sorted(settled), f"events out of order: {list(firsts)}, settled {settled}")
        self._books.events += len(heard)
        self._books.twice += len(heard) - len(firsts)

    async def _repeat(self, http: aiohttp.ClientSession) -> None:
        """Every attempt that took a use has its first outcome, and runs nothing."""
        before = {token: self._house.ran(made["key"]) for token, made in self._tokens.items()}
        async with asyncio.TaskGroup() as tasks:
            for (token, attempt), told in self._told.items():
                if told != USED_UP:
                    self._books.repeated += 1
                    tasks.create_task(self._insist(http, token, attempt))
        after = {token: self._house.ran(made["key"]) for token, made in self._tokens.items()}
        hold(before == after, "a repeated attempt ran something")

    async def _list(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self._otsd.admin("GET", path)).json["items"]
        return items


async def play(
    otsd: Daemon, house: House, chance: random.Random, books: Books, rounds: int
) -> None:
    """Play so many rounds with one daemon, which is found stopped and left stopped."""
    async with otsd:
        await otsd.connected()
        for _ in range(rounds):
            await Round(otsd, house, chance, books).play()
