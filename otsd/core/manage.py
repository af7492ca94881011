"""What an owner, or a program of his, does: actions and tokens, made, changed and ended.

Every change of a token is a pure function from token to token, which the store applies to the
newest version in one step; what the token's state forbids raises `Conflict` and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final

from otsd.core.actions import Defaults, doubts
from otsd.core.changes import Changes, Subject
from otsd.core.errors import Conflict, Fault, Invalid, NotAsked, NotFound
from otsd.core.times import truncate
from otsd.core.tokens import Submission, Token, TokenState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from otsd.core.actions import Action, Plan
    from otsd.core.codes import Code, Codes
    from otsd.core.ports import Clock, Home, Ran, Randomness, Request, Store

_ID_LETTERS: Final = "23456789abcdefghjkmnpqrstuvwxyz"
_ID_LENGTH: Final = 8
# 40 bits, taken modulo the alphabet: the id is public, so a slight bias costs nothing
_ID_TABLE: Final = bytes(ord(_ID_LETTERS[byte % len(_ID_LETTERS)]) for byte in range(256))


class Unset(Enum):
    """Stands for a value that its maker did not give, where ``None`` means "without limit"."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
BOUNDED_USES: Final = 1
BOUNDED_LENGTH: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Mint:
    """What somebody wants of a new token; what is `UNSET` comes from the action's defaults.

    ``expires_in`` counts from ``valid_from``, if there is one, else from now. One that is
    ``bounded`` gets a limit and an end also where the action's defaults have none.
    """

    action: str
    created_by: str
    comment: str = ""
    max_uses: int | Unset | None = UNSET
    valid_from: datetime | None = None
    expires_at: datetime | Unset | None = UNSET
    expires_in: timedelta | Unset | None = UNSET
    device: bool | None = None
    bounded: bool = False


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to change of a token; what is `UNSET` stays."""

    comment: str | Unset = UNSET
    max_uses: int | Unset | None = UNSET
    valid_from: datetime | Unset | None = UNSET
    expires_at: datetime | Unset | None = UNSET


class Actions:
    """The owner's actions."""

    def __init__(self, *, store: Store, home: Home, now: Clock, changes: Changes) -> None:
        """Take the parts."""
        self._store = store
        self._home = home
        self._now = now
        self._changes = changes

    def list(self) -> Sequence[Action]:
        """Return all, newest first."""
        return self._store.actions()

    def get(self, name: str) -> Action:
        """Return one, or raise `NotFound`."""
        if (action := self._store.action(name)) is None:
            raise NotFound("action", name)
        return action

    async def validate(self, plan: Plan) -> Sequence[str]:
        """Ask Home Assistant about the steps; return warnings.

        Raises:
            Invalid: Home Assistant would not take them.

        """
        try:
            if fault := await self._home.validate(plan):
                raise Invalid([Fault(("yaml",), fault)], "invalid_action")
        except NotAsked:
            away = "Home Assistant is not connected, so it could not check this action."
            return [*doubts(plan.steps), away]
        return [*doubts(plan.steps), *await self._home.missing(plan)]

    async def save(self, action: Action, *, create: bool) -> tuple[Action, Sequence[str]]:
        """Create or replace an action; return it with warnings. Raises `Invalid`, `Conflict`."""
        warnings = await self.validate(action.plan)
        saved = await self._store.save_action(action, create=create, now=self._now())
        self._changes.tell(Subject.ACTION, saved.name)
        return saved, warnings

    async def delete(self, name: str, *, force: bool) -> None:
        """Delete an action; `Conflict` while tokens use it, unless ``force`` revokes them."""
        try:
            await self._store.delete_action(name, force=force, now=self._now())
        finally:
            if force:  # the tokens that it revoked, which may be a million, and also when it failed
                self._changes.tell(Subject.MANY, name)
        self._changes.tell(Subject.ACTION, name)

    async def run(self, name: str) -> Ran:
        """Run an action now, as its owner; raises `HomeError` and the refusals of `Home.check`."""
        plan = self.get(name).plan
        self._home.check(plan)
        return await self._home.run(plan, {"token": None, "submission": None})


class Tokens:
    """The owner's tokens."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part once
        self,
        *,
        store: Store,
        codes: Codes,
        now: Clock,
        changes: Changes,
        random: Randomness,
        base_url: str,
    ) -> None:
        """Take the parts; ``base_url`` is what links begin with."""
        self._store = store
        self._codes = codes
        self._now = now
        self._changes = changes
        self._random = random
        self._base_url = base_url.rstrip("/")

    def get(self, token_id: str) -> Token:
        """Return one, or raise `NotFound`."""
        if (token := self._store.token(token_id)) is None:
            raise NotFound("token", token_id)
        return token

    def code(self, token: Token) -> Code:
        """Return a token's code; `Conflict` (``link_unknown``) for one that was imported."""
        if token.weak:
            msg = (
                f"The link of token {token.id} was imported, and otsd does not know it; whoever "
                "has it can use it. Give the token a new link with rotate."
            )
            raise Conflict("link_unknown", msg)
        return self._codes.code(token.lookup)

    def link(self, token: Token) -> str:
        """Return a token's link, which carries its code: it is for whoever may use it.

        Raises:
            Conflict: as `code` does.

        """
        return f"{self._base_url}/?token={self.code(token).reveal()}"

    async def mint(self, wish: Mint, request: Request | None = None) -> Token:
        """Make a token; a ``request`` that was seen before returns the one made then.

        Raises:
            NotFound: there is no such action.
            Invalid: it would end before it begins, or has ended already.
            Conflict: the request's key came with another body before.

        """
        now = truncate(self._now())

        def make() -> Token:
            # looked at only now: what was made for the same request stays the answer to it
            if (action := self._store.action(wish.action)) is None:
                raise NotFound("action", wish.action)
            defaults = _bounded(action.defaults) if wish.bounded else action.defaults
            expires_at = _expiry(wish, defaults.expires_in, now)
            _check_span(wish.valid_from, expires_at, now)
            return Token(
                id=new_id(self._random),
                lookup=new_lookup(self._random),
                action=action.name,
                comment=wish.comment,
                max_uses=defaults.max_uses if wish.max_uses is UNSET else wish.max_uses,
                uses_taken=0,
                round=0,
                valid_from=wish.valid_from,
                expires_at=expires_at,
                created_at=now,
                created_by=wish.created_by,
                last_used_at=None,
                revoked_at=None,
                paused=False,
                device=wish.device,
            )

        token = await self._store.add_token(make, request, now)
        self._changes.tell(Subject.TOKEN, token.id)
        return token

    async def duplicate(self, token_id: str, created_by: str) -> Token:
        """Mint another of the same kind: same action, uses, comment; the same span from now on."""
        like = self.get(token_id)
        begin = like.valid_from or like.created_at
        now = truncate(self._now())
        later = like.valid_from if like.valid_from and like.valid_from > now else None
        return await self.mint(
            Mint(
                action=like.action,
                created_by=created_by,
                comment=like.comment,
                max_uses=like.max_uses,
                valid_from=later,
                expires_in=None if like.expires_at is None else like.expires_at - begin,
                device=like.device,
            )
        )

    async def edit(self, token_id: str, edit: Edit) -> Token:
        """Change what may change of a token that is not revoked."""
        now = self._now()

        def change(token: Token) -> Token:
            _not_revoked(token)
            comment = token.comment if edit.comment is UNSET else edit.comment
            valid_from = token.valid_from if edit.valid_from is UNSET else edit.valid_from
            expires_at = token.expires_at if edit.expires_at is UNSET else edit.expires_at
            max_uses = token.max_uses if edit.max_uses is UNSET else edit.max_uses
            if (valid_from, expires_at) != (token.valid_from, token.expires_at):
                _check_span(valid_from, expires_at, None if edit.expires_at is UNSET else now)
            if max_uses is not None and max_uses < token.uses_taken:
                msg = f"{token.uses_taken} uses are taken already; max_uses cannot be below that."
                raise Conflict("uses_taken", msg)
            return replace(
                token,
                comment=comment,
                max_uses=max_uses,
                valid_from=valid_from,
                expires_at=expires_at,
            )

        return await self._change(token_id, change)

    async def revoke(self, token_id: str, request: Request | None = None) -> Token:
        """End a token for good; revoking twice is no fault."""
        now = truncate(self._now())
        return await self._change(
            token_id,
            lambda token: token if token.revoked_at else replace(token, revoked_at=now),
            request,
        )

    async def pause(self, token_id: str, request: Request | None = None) -> Token:
        """Forbid submissions until `resume`."""
        return await self._change(
            token_id, lambda token: replace(_not_revoked(token), paused=True), request
        )

    async def resume(self, token_id: str, request: Request | None = None) -> Token:
        """Allow submissions again."""
        return await self._change(
            token_id, lambda token: replace(_not_revoked(token), paused=False), request
        )

    async def replenish(self, token_id: str, request: Request | None = None) -> Token:
        """Set the uses left to ``max_uses``."""
        now = self._now()

        def change(token: Token) -> Token:
            if token.state(now) is TokenState.EXPIRED:
                msg = f"Token {token.id} has expired; give it a later expires_at first."
                raise Conflict("expired", msg)
            _not_revoked(token)
            return replace(token, uses_taken=0, round=token.round + 1)

        return await self._change(token_id, change, request)

    async def rotate(self, token_id: str) -> Token:
        """Give a token a new code; the old link is answered as revoked."""

        def change(token: Token) -> Token:
            return replace(_not_revoked(token), lookup=new_lookup(self._random), weak=False)

        return await self._change(token_id, change)

    async def delete(self, token_id: str) -> None:
        """Remove a token and its history."""
        await self._store.delete_token(token_id)
        self._changes.tell(Subject.TOKEN, token_id)

    async def refund(self, submission_id: int) -> Submission:
        """Give back the use of a submission that stayed spent; `Conflict` when it cannot be."""
        submission = await self._store.refund(submission_id)
        self._changes.tell(Subject.SUBMISSION, submission.id)
        self._changes.tell(Subject.TOKEN, submission.token_id)
        return submission

    async def _change(
        self, token_id: str, change: Callable[[Token], Token], request: Request | None = None
    ) -> Token:
        token = await self._store.change_token(token_id, change, request, truncate(self._now()))
        self._changes.tell(Subject.TOKEN, token_id)
        return token


def new_id(random: Randomness) -> str:
    """Make the public id of a token."""
    return random(_ID_LENGTH).translate(_ID_TABLE).decode()


def new_lookup(random: Randomness) -> int:
    """Make the lookup id of a code, 64 bits."""
    return int.from_bytes(random(8), "big")


def _bounded(defaults: Defaults) -> Defaults:
    return Defaults(defaults.max_uses or BOUNDED_USES, defaults.expires_in or BOUNDED_LENGTH)


def _expiry(wish: Mint, default: timedelta | None, now: datetime) -> datetime | None:
    if wish.expires_at is not UNSET:
        return wish.expires_at
    length = default if wish.expires_in is UNSET else wish.expires_in
    return None if length is None else max(wish.valid_from or now, now) + length


def _check_span(
    valid_from: datetime | None, expires_at: datetime | None, now: datetime | None
) -> None:
    if expires_at is None:
        return
    if valid_from is not None and expires_at <= valid_from:
        raise Invalid([Fault(("expires_at",), "it would end before it begins (valid_from)")])
    if now is not None and expires_at <= now:
        raise Invalid([Fault(("expires_at",), "this time is past")])


def _not_revoked(token: Token) -> Token:
    if token.revoked_at is not None:
        msg = f"Token {token.id} is revoked, which is final."
        raise Conflict("revoked", msg)
    return token
