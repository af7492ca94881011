"""The states of a token, computed: which holds first, and to the instant."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import product

import pytest

from otsd.core.errors import TokenUnusable
from otsd.core.tokens import Token, TokenState
from tests.conftest import Clock
from tests.store import making

SECOND = timedelta(seconds=1)


def token(now: datetime, **facts: object) -> Token:
    return making.token(now, **facts)()


@pytest.mark.parametrize(
    ("key", "after", "state"),
    [
        ("valid_from", -SECOND, TokenState.SCHEDULED),
        ("valid_from", timedelta(), TokenState.ACTIVE),
        ("valid_from", SECOND, TokenState.ACTIVE),
        ("expires_at", -SECOND, TokenState.ACTIVE),
        ("expires_at", timedelta(), TokenState.EXPIRED),
        ("expires_at", SECOND, TokenState.EXPIRED),
    ],
)
def test_a_token_is_usable_from_its_beginning_until_right_before_its_end(
    clock: Clock, key: str, after: timedelta, state: TokenState
) -> None:
    edge = clock.now
    made = token(clock.now, **{key: edge})
    assert made.state(edge + after) is state
    if state is TokenState.ACTIVE:
        made.check_usable(edge + after)
    else:
        with pytest.raises(TokenUnusable) as refused:
            made.check_usable(edge + after)
        assert refused.value.state is state
        assert refused.value.token is made


FACTS: dict[TokenState, Callable[[datetime], dict[str, object]]] = {
    TokenState.REVOKED: lambda now: {"revoked_at": now - SECOND},
    TokenState.EXPIRED: lambda now: {"expires_at": now},
    TokenState.USED_UP: lambda now: {"max_uses": 2, "uses_taken": 2},
    TokenState.PAUSED: lambda now: {"paused": True},
    TokenState.SCHEDULED: lambda now: {"valid_from": now + SECOND},
}


@pytest.mark.parametrize("holds", list(product([False, True], repeat=5)))
def test_of_several_states_the_first_of_the_order_is_told(clock: Clock, holds: tuple[bool]) -> None:
    facts: dict[str, object] = {}
    expected = [state for state, is_so in zip(FACTS, holds, strict=True) if is_so]
    for state in expected:
        facts |= FACTS[state](clock.now)
    state = token(clock.now, **facts).state(clock.now)
    assert state is (expected[0] if expected else TokenState.ACTIVE)


@pytest.mark.parametrize(
    ("max_uses", "taken", "left"), [(None, 10**9, None), (1, 0, 1), (3, 2, 1), (3, 3, 0)]
)
def test_uses_left_are_counted(
    clock: Clock, max_uses: int | None, taken: int, left: int | None
) -> None:
    made = token(clock.now, max_uses=max_uses, uses_taken=taken)
    assert made.uses_left == left
    assert (made.state(clock.now) is TokenState.USED_UP) is (left == 0)
