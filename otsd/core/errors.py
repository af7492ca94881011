"""Everything that can be refused or fail, named by what it means to the caller.

    OtsdError
    ├── Refusal                 a visitor's submission was not admitted; nothing was spent
    │   ├── UnknownToken        no token has this code
    │   ├── TokenUnusable       expired, used up, revoked …: the visitor is told which
    │   ├── HomeUnavailable
    │   ├── TargetUnavailable
    │   ├── Busy
    │   ├── TooManyRequests
    │   └── BadRequest
    ├── StorageUnavailable      the disk would not take it: nothing was acknowledged
    ├── HomeError               what Home Assistant made of a request
    │   ├── NotAsked            it never reached Home Assistant: nothing can have run
    │   ├── Refused             Home Assistant answered with an error
    │   └── NoAnswer            it was asked, and the answer never came: anything may have run
    ├── OwnerError              an owner's request that cannot be done
    │   ├── NotFound
    │   ├── Conflict
    │   └── Invalid
    └── StartError              otsd cannot start here, and what to do about it

Errors carry facts, not sentences for one audience: the visitor's words are chosen in
``otsd.server``. ``str()`` of each is for the log and the owner, and never holds a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from otsd.core.tokens import Token, TokenState


class OtsdError(Exception):
    """The root of every error that otsd raises on purpose."""


# -- what a visitor can meet ---------------------------------------------------------------


class Refusal(OtsdError):
    """A submission was not admitted: no use was taken and Home Assistant was not asked."""


class UnknownToken(Refusal):
    """No token has this code: never minted, deleted, or not a code at all."""

    def __init__(self, *, imported: bool = False) -> None:
        """Carry whether it has the form of imported codes, and nothing else."""
        super().__init__("unknown code")
        self.imported = imported


class TokenUnusable(Refusal):
    """The token's state does not allow a submission now."""

    def __init__(self, token: Token, state: TokenState) -> None:
        """Carry the token and the state that forbids it."""
        super().__init__(f"token {token.id} is {state.replace('_', ' ')}")
        self.token = token
        self.state = state


class HomeUnavailable(Refusal):
    """Home Assistant cannot be reached at the moment."""

    def __init__(self, token: Token | None = None) -> None:
        """Carry the token, whose uses are as they were."""
        super().__init__("Home Assistant is not connected")
        self.token = token


class TargetUnavailable(Refusal):
    """The action or one of its entities is missing or unavailable in Home Assistant."""

    def __init__(self, missing: Sequence[str]) -> None:
        """Carry what is missing, in words for the owner: ``lock.front_door is unavailable``."""
        super().__init__("; ".join(missing))
        self.missing = tuple(missing)


class Busy(Refusal):
    """Too many submissions are running, or otsd is shutting down."""


class TooManyRequests(Refusal):
    """An address tried too many codes that do not exist."""

    def __init__(self, retry_after: timedelta) -> None:
        """Carry the time after which one more try is answered."""
        super().__init__("too many unknown codes")
        self.retry_after = retry_after


class BadRequest(Refusal):
    """The request is not in order, and no other answer fits."""


# -- the machine and Home Assistant --------------------------------------------------------


class StorageUnavailable(OtsdError):
    """The store could not write or read: nothing of the request was kept."""


class HomeError(OtsdError):
    """What Home Assistant made of a request, told by what can have happened."""


class NotAsked(HomeError):
    """The request never left: nothing can have run."""


class Refused(HomeError):
    """Home Assistant answered with an error; ``str()`` is its text, for the owner alone."""


class NoAnswer(HomeError):
    """The request left and no answer came: what ran is unknown."""


class StartError(OtsdError):
    """Otsd cannot start; the message says what is wrong and what to do."""


# -- what an owner can meet ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: where (``("max_uses",)``) and why."""

    loc: tuple[str | int, ...]
    msg: str


class OwnerError(OtsdError):
    """A request of the owner, or of his programs, that cannot be done."""

    def __init__(self, code: str, message: str) -> None:
        """Carry a stable ``code`` for programs and a message for people."""
        super().__init__(message)
        self.code = code


class NotFound(OwnerError):
    """There is no action, token or submission of this name."""

    def __init__(self, kind: str, name: object) -> None:
        """Name what was looked for: ``NotFound("token", "k7m2qx4d")``."""
        super().__init__(f"unknown_{kind}", f"There is no {kind} {str(name)[:64]!r}.")


class NoImport(NotFound):
    """There is no file of another program to be imported."""

    def __init__(self) -> None:
        """Say so."""
        OwnerError.__init__(self, "no_import", "There is no file to import.")


class Conflict(OwnerError):
    """The state of things forbids it."""


class Invalid(OwnerError):
    """The request's values are wrong; ``faults`` lists every one."""

    def __init__(self, faults: Sequence[Fault], code: str = "invalid") -> None:
        """Carry every fault at once, so that one round is enough to mend them."""
        super().__init__(
            code,
            "; ".join(
                f"{'.'.join(map(str, fault.loc))}: {fault.msg}" if fault.loc else fault.msg
                for fault in faults
            ),
        )
        self.faults = tuple(faults)
