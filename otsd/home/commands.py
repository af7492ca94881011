"""Commands over one websocket, with a deadline each, and what their ends mean.

The one place that knows hass_client's errors. The question each answers is whether Home Assistant
can have acted: a use of a token comes back only when it cannot.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientError
from hass_client import HomeAssistantClient
from hass_client.exceptions import BaseHassClientError, FailedCommand, NotConnected

from otsd.core.errors import NoAnswer, NotAsked, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

_LONGEST: Final = 500

# aiohttp says this before it has written anything; every other error may come after
_NOTHING_WRITTEN = "Cannot write to closing transport"


class Client(HomeAssistantClient):  # type: ignore[misc] # hass_client has no types
    """hass_client's client, whose connection outlives an answer that comes a moment too late."""

    def _handle_incoming_message(self, msg: dict[str, Any]) -> None:
        # Whoever gave up waiting takes the question back in the next turn of the event loop, and an
        # answer that arrives before would end the connection, with everybody else's questions.
        with suppress(asyncio.InvalidStateError):
            super()._handle_incoming_message(msg)


async def command(client: Client, kind: str, deadline: timedelta, /, **fields: object) -> Any:  # noqa: ANN401 - whatever Home Assistant's JSON holds
    """Send a command and return its result.

    Raises:
        NotAsked: nothing was sent.
        Refused: Home Assistant answered with an error.
        NoAnswer: it was sent, and no answer came in time or at all.

    """
    return await _judged(client.send_command(kind, **fields), deadline)


async def subscribe(
    client: Client,
    handler: Callable[[dict[str, Any]], None],
    kind: str,
    deadline: timedelta,
    /,
    **fields: object,
) -> Callable[[], None]:
    """Subscribe, and return what ends it; ``handler`` gets each message. Raises as `command`."""
    end: Callable[[], None] = await _judged(
        client.subscribe(handler, kind, **fields),
        deadline,
    )
    return end


async def _judged(sending: Any, deadline: timedelta) -> Any:  # noqa: ANN401
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            return await sending
    except FailedCommand as error:
        raise Refused(_said(str(error))) from error
    except NotConnected as error:
        msg = "Home Assistant is not connected"
        raise NotAsked(msg) from error
    except (TypeError, ValueError) as error:
        # hass_client's: raised before anything is sent, as no answer can raise them
        msg = f"Home Assistant cannot be told this: {error}"
        raise NotAsked(msg) from error
    except TimeoutError as error:
        msg = f"Home Assistant did not answer within {deadline.total_seconds():.0f} s"
        raise NoAnswer(msg) from error
    except asyncio.CancelledError as error:
        # hass_client cancels whoever waits when the connection is lost, without anybody having
        # cancelled the task
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        msg = "the connection to Home Assistant was lost before it answered"
        raise NoAnswer(msg) from error
    except (BaseHassClientError, ClientError, OSError) as error:
        if _NOTHING_WRITTEN in str(error):
            msg = "the connection to Home Assistant was lost"
            raise NotAsked(msg) from error
        msg = f"the connection to Home Assistant broke: {str(error) or type(error).__name__}"
        raise NoAnswer(msg) from error


def _said(text: str) -> str:
    """Return Home Assistant's words as they can be kept and shown.

    It repeats a whole command that it does not understand, with the visitor's address in it; and
    what an integration says can be anything.
    """
    words = text.partition(". Got {")[0].encode("utf-8", "replace").decode()
    shown = "".join(letter if letter.isprintable() else " " for letter in words)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
