"""What Home Assistant says of its users, and what it says when it is not itself."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from otsd.core.access import AccountsUnavailable, LoginRefused
from otsd.home.accounts import Accounts, Grant
from tests.fakes.home_assistant import Fail, FakeHomeAssistant, HangUp, Succeed

CLIENT = "https://otsd.example/"


class Own:
    """otsd's own token, and how often it was taken."""

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.taken = 0

    async def __call__(self) -> str:
        self.taken += 1
        if self.token is None:
            raise AccountsUnavailable("not connected")
        return self.token


def of(url: str, own: Own) -> Accounts:
    return Accounts(
        url=URL(url),
        browser_url=URL("https://home.example/below"),
        client_id=CLIENT,
        redirect_uri=f"{CLIENT}callback",
        own_token=own,
    )


@pytest.fixture
def own(fake_home: FakeHomeAssistant) -> Own:
    return Own(fake_home.token)


@pytest.fixture
async def accounts(fake_home: FakeHomeAssistant, own: Own) -> AsyncIterator[Accounts]:
    async with of(fake_home.url, own) as accounts:
        yield accounts


async def _log_in(accounts: Accounts, home: FakeHomeAssistant, user_id: str | None = None) -> Grant:
    code = URL(home.authorize(accounts.authorize_url("s", "v" * 43), user_id)).query["code"]
    return await accounts.exchange(code, "v" * 43)


async def test_a_code_is_worth_tokens_that_tell_whose_they_are(
    accounts: Accounts, fake_home: FakeHomeAssistant
) -> None:
    assert accounts.authorize_url("s", "v").startswith("https://home.example/below/auth/authorize?")
    for is_admin in (True, False):
        user_id = fake_home.add_user("Anna", admin=is_admin)
        grant = await _log_in(accounts, fake_home, user_id)
        user = await accounts.user(grant.access)
        assert (user.id, user.name, user.is_admin) == (user_id, "Anna", is_admin)
        assert (await accounts.user(await accounts.refresh(grant.refresh))).id == user_id
        assert grant.access not in repr(grant)
        assert grant.refresh not in repr(grant)
        await accounts.revoke(grant.refresh)
        with pytest.raises(LoginRefused):
            await accounts.refresh(grant.refresh)
        with pytest.raises(LoginRefused):
            await accounts.user(grant.access)
    assert fake_home.connections == 0


async def test_a_code_needs_its_verifier(accounts: Accounts, fake_home: FakeHomeAssistant) -> None:
    code = URL(fake_home.authorize(accounts.authorize_url("s", "v" * 43))).query["code"]
    with pytest.raises(LoginRefused):
        await accounts.exchange(code, "w" * 43)


async def test_the_tokens_of_who_was_deactivated_are_refused(
    accounts: Accounts, fake_home: FakeHomeAssistant
) -> None:
    user_id = fake_home.add_user("Anna", admin=True)
    grant = await _log_in(accounts, fake_home, user_id)
    fake_home.change_user(user_id, active=False)
    with pytest.raises(LoginRefused):
        await accounts.refresh(grant.refresh)


async def test_a_refusal_that_takes_long_to_end_is_a_refusal_at_once(
    accounts: Accounts, fake_home: FakeHomeAssistant
) -> None:
    fake_home.slow_refusal = True
    begun = time.monotonic()
    with pytest.raises(LoginRefused):
        await accounts.user("garbage")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "handshake", ["close_at_once", "binary", "garbage_json", "not_a_websocket", "http_502"]
)
async def test_what_is_not_home_assistant_says_nothing_of_anybody(
    accounts: Accounts, fake_home: FakeHomeAssistant, handshake: str
) -> None:
    fake_home.handshake = handshake  # type: ignore[assignment]
    with pytest.raises(AccountsUnavailable):
        await accounts.user(fake_home.token)


@pytest.mark.parametrize("answer", [Fail("unknown", "?"), HangUp(), Succeed(), Succeed({"id": 1})])
async def test_an_answer_of_another_form_says_nothing_of_anybody(
    accounts: Accounts, fake_home: FakeHomeAssistant, answer: Fail | HangUp | Succeed
) -> None:
    fake_home.on_command = lambda _: answer
    with pytest.raises(AccountsUnavailable):
        await accounts.user(fake_home.token)


async def test_while_it_is_away_nothing_is_refused(
    accounts: Accounts, fake_home: FakeHomeAssistant
) -> None:
    grant = await _log_in(accounts, fake_home)
    await fake_home.stop()
    for question in (
        accounts.refresh(grant.refresh),
        accounts.user(grant.access),
        accounts.exchange("c", "v"),
        accounts.revoke(grant.refresh),
        accounts.user_of_stranger("garbage"),
    ):
        with pytest.raises(AccountsUnavailable):
            await question
    await fake_home.start()
    assert (await accounts.user(await accounts.refresh(grant.refresh))).is_admin


async def test_after_two_refusals_of_strangers_our_own_token_is_shown_first(
    accounts: Accounts, fake_home: FakeHomeAssistant, own: Own
) -> None:
    for number in range(7):
        with pytest.raises(LoginRefused):
            await accounts.user_of_stranger(f"garbage {number}")
    assert fake_home.most_wrong_logins == 2
    assert own.taken == 3


async def test_codes_and_tokens_of_strangers_count_together(
    accounts: Accounts, fake_home: FakeHomeAssistant, own: Own
) -> None:
    own.token = None
    with pytest.raises(LoginRefused):
        await accounts.exchange("garbage", "v")
    with pytest.raises(LoginRefused):
        await accounts.user_of_stranger("garbage")
    for _ in range(3):
        with pytest.raises(AccountsUnavailable, match="asked no more"):
            await accounts.exchange("garbage", "v")
        with pytest.raises(AccountsUnavailable, match="asked no more"):
            await accounts.user_of_stranger(fake_home.token)
    assert fake_home.most_wrong_logins == 2
    # whoever is in is asked about all the same, which ends the count
    await accounts.user(fake_home.token)
    assert (await accounts.user_of_stranger(fake_home.token)).is_admin


async def test_sessions_that_end_together_do_not_get_otsd_banned(
    accounts: Accounts, fake_home: FakeHomeAssistant, own: Own
) -> None:
    ended = [await _log_in(accounts, fake_home) for _ in range(6)]
    for grant in ended:
        await accounts.revoke(grant.refresh)
    good = await _log_in(accounts, fake_home)
    asked = await asyncio.gather(
        *(accounts.user_of_session(grant.refresh) for grant in ended), return_exceptions=True
    )
    assert {type(each) for each in asked} == {LoginRefused}
    assert fake_home.most_wrong_logins == 1
    assert own.taken == 5

    own.token = None
    with pytest.raises(AccountsUnavailable, match="asked no more"):
        await accounts.user_of_session(good.refresh)
    # a login goes on, and ends the count
    await accounts.user((await _log_in(accounts, fake_home)).access)
    assert (await accounts.user_of_session(good.refresh)).is_admin
    assert fake_home.most_wrong_logins == 1


async def test_what_strangers_send_keeps_no_session_from_being_asked_about(
    accounts: Accounts, fake_home: FakeHomeAssistant, own: Own
) -> None:
    grant = await _log_in(accounts, fake_home)
    own.token = None
    for _ in range(2):
        with pytest.raises(LoginRefused):
            await accounts.user_of_stranger("garbage")
    assert (await accounts.user_of_session(grant.refresh)).is_admin


async def test_our_own_token_is_not_enough_when_it_is_refused(
    accounts: Accounts, fake_home: FakeHomeAssistant, own: Own
) -> None:
    own.token = "refused as well"
    for _ in range(2):
        with pytest.raises(LoginRefused):
            await accounts.user_of_stranger("garbage")
    with pytest.raises(AccountsUnavailable, match="asked no more"):
        await accounts.user_of_stranger(fake_home.token)


async def test_whoever_knocks_shares_the_answer_and_waits_for_none_for_long(own: Own) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.setblocking(False)
        port = deaf.getsockname()[1]
        async with of(f"http://127.0.0.1:{port}", own) as accounts:
            begun = time.monotonic()
            told = await asyncio.gather(
                *(accounts.knock() for _ in range(5)), return_exceptions=True
            )
            assert time.monotonic() - begun < 6
            assert {str(each) for each in told} == {
                f"Home Assistant cannot be reached: http://127.0.0.1:{port} does not answer."
            }
        deaf.accept()[0].close()
        with pytest.raises(BlockingIOError):
            deaf.accept()
