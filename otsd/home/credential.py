"""The credential of otsd's own connection to Home Assistant: configured, or granted by a login.

What an administrator granted is a refresh token. It is kept encrypted, and each connection begins
with a new access token of it, which lives for half an hour; the connection outlives that.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cryptography.fernet import Fernet, InvalidToken

from otsd.core.access import AccountsUnavailable, LoginRefused
from otsd.core.errors import Conflict
from otsd.supervise import CredentialRefused, Lost

if TYPE_CHECKING:
    from otsd.core.ports import Store
    from otsd.home.accounts import Accounts
    from otsd.home.home import Credential, HomeAssistant

GRANT: Final = "home_assistant.grant"
"""Under which name the store keeps what was granted; nothing, or empty, when nothing is."""
_ENDED: Final = (
    "Home Assistant does not accept the access any more that was granted to otsd: it was ended "
    "there, its user is gone, or admin.base_url is another now. Connect again on the admin page, "
    "under Connections."
)


def unsealed(sealed: str | None, secret: bytes) -> str | None:
    """Return the refresh token that was kept under `GRANT`; ``secret`` is a Fernet key."""
    with suppress(InvalidToken):  # of another key: it has to be granted anew
        if sealed:
            return Fernet(secret).decrypt(sealed.encode()).decode()
    return None


def credential_of(refresh: str, accounts: Accounts) -> Credential:
    """Return the credential that a refresh token gives."""

    async def credential() -> str:
        try:
            return await accounts.refresh(refresh)
        except LoginRefused as error:
            raise CredentialRefused(_ENDED) from error
        except AccountsUnavailable as error:
            raise Lost(error.reason) from error

    return credential


class OwnCredential:
    """Where otsd's own credential comes from, and how it is granted and given up."""

    def __init__(
        self,
        home: HomeAssistant,
        accounts: Accounts,
        store: Store,
        *,
        secret: bytes,
        configured: str | None,
    ) -> None:
        """Take the parts, and use what was granted before, if anything was.

        ``secret`` is a Fernet key; ``configured`` names a credential that comes from elsewhere
        and that no login replaces: ``token`` or ``supervisor``.
        """
        self._home = home
        self._accounts = accounts
        self._store = store
        self._secret = secret
        self._configured = configured
        if configured is None and (refresh := self._granted()):
            self._use(refresh)

    def source(self) -> str:
        """Return where it comes from: ``supervisor``, ``token``, ``login``, or ``none``."""
        return self._configured or ("login" if self._granted() else "none")

    def can_be_granted(self) -> bool:
        """Return whether none is configured."""
        return self._configured is None

    async def grant(self, refresh: str) -> None:
        """Connect by this refresh token from now on; the one before is given up."""
        before = self._granted()
        sealed = Fernet(self._secret).encrypt(refresh.encode()).decode()
        await self._store.remember(GRANT, sealed)
        self._use(refresh)
        await self._revoke(before)

    async def give_up(self) -> None:
        """Give up what was granted; `Conflict` when nothing was."""
        if self._configured is not None or not (before := self._granted()):
            msg = "otsd is not connected by a login, so there is nothing to give up."
            raise Conflict("not_granted", msg)
        await self._store.remember(GRANT, "")
        self._home.use(None)
        await self._revoke(before)

    def _granted(self) -> str | None:
        return unsealed(self._store.recall(GRANT), self._secret)

    async def _revoke(self, refresh: str | None) -> None:
        with suppress(AccountsUnavailable):
            if refresh:
                await self._accounts.revoke(refresh)

    def _use(self, refresh: str) -> None:
        self._home.use(credential_of(refresh, self._accounts))
