"""Why Home Assistant could not be asked, in plain words, and which setting may mend it."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from yarl import URL


def why(url: URL, error: Exception) -> str:
    """Say in plain words why Home Assistant at an address could not be asked."""
    cause: BaseException | None = error
    while cause is not None:
        if reason := _reason(url, cause):
            return reason
        cause = cause.__cause__
    return f"{url} does not speak as Home Assistant does ({type(error).__name__})"


def _reason(url: URL, cause: BaseException) -> str | None:  # noqa: PLR0911 - a sentence each
    match cause:
        case aiohttp.ClientConnectorCertificateError():
            return (
                f"the certificate of {url.host} is not trusted ({cause.certificate_error}); "
                "see home_assistant.ca_file and home_assistant.verify_tls"
            )
        case aiohttp.ClientConnectorSSLError():
            return f"{url.host}:{url.port} does not speak TLS; see home_assistant.url"
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return f"the name {url.host} is not known; see home_assistant.url"
        case aiohttp.ClientConnectorError():
            return f"nothing answers at {url.host}:{url.port}{_said(cause.os_error)}"
        case aiohttp.WSServerHandshakeError(status=HTTPStatus.FORBIDDEN):
            return f"{url} lets nobody in from here (HTTP 403); see its ip_bans.yaml"
        case aiohttp.WSServerHandshakeError():
            return f"{url} answers with HTTP {cause.status}; is it Home Assistant?"
        case TimeoutError():
            return f"{url} does not answer"
        case _:
            return None


def _said(error: OSError) -> str:
    """Return what the system says; asyncio puts words of its own into its place."""
    return f" ({os.strerror(error.errno)})" if error.errno else ""
