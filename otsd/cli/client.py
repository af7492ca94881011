"""The daemon's API, over the control socket in the storage directory."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode

from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta
    from pathlib import Path

_PAGE: Final = 500
_FIRST_ERROR: Final = 400
_PART: Final = 256 * 1024


class NoDaemon(OtsdError):
    """Nobody listens on the control socket."""


class NoReply(OtsdError):
    """The daemon was asked, and its answer did not come or cannot be understood."""


class Problem(OtsdError):
    """The daemon refused; ``str()`` is its sentence, with each fault and its place.

    ``faults`` are pairs of both, as in ``("defaults.max_uses", "…")``; ``errors`` are lines.
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        """Take the problem document (RFC 9457)."""
        self.status = status
        self.code = str(document.get("code", ""))
        self.faults = [
            (".".join(map(str, error.get("loc", ()))), str(error.get("msg")))
            for error in document.get("errors", ())
        ]
        self.errors = [f"{place}: {msg}" if place else msg for place, msg in self.faults]
        detail = str(document.get("detail") or f"the daemon answered {status}")
        # of a body that is wrong, the detail mostly names the faults already
        super().__init__("\n".join([detail, *(line for line in self.errors if line not in detail)]))


def segment(name: str) -> str:
    """Make a name one segment of a path, whatever it holds."""
    return quote(name, safe="", errors="surrogateescape")


def _written(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, deadline: timedelta) -> None:
        super().__init__("otsd", timeout=deadline.total_seconds())
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError as error:
            self.close()
            raise NoDaemon(self._why(error)) from error

    def _why(self, error: OSError) -> str:
        if isinstance(error, PermissionError):
            return (
                f"The control socket {self._path} is another user's: "
                "call otsd as the user that the daemon runs as."
            )
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)):
            return (
                f"No daemon is running: nobody listens on {self._path}. Start one with: otsd run "
                "(or name its configuration: --config FILE)."
            )
        return f"The control socket {self._path} cannot be used: {error.strerror or error}."


class Client:
    """Asks the daemon, one request after another over one connection."""

    def __init__(self, path: Path, deadline: timedelta) -> None:
        """Take the socket; nothing is connected before the first request."""
        self._path = path
        self._connection = _Connection(path, deadline)
        self._deadline = deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: object = None, **query: object
    ) -> tuple[int, Any]:
        """Ask, and return the status and what was answered (``None`` for an empty answer).

        Args:
            method: GET, POST …
            path: below ``/api/v1``, made of `segment`.
            body: what is sent as JSON, if it is not ``None``; bytes are JSON already.
            query: what is not ``None`` goes into the query.

        Raises:
            NoDaemon: nobody listens.
            NoReply: the answer did not come, and what became of the request is not known.
            Problem: the daemon refused.

        """
        given = {name: value for name, value in query.items() if value is not None}
        text = urlencode(given, errors="surrogateescape")
        address = f"/api/v1{path}" + (f"?{text}" if text else "")
        sent = body if body is None or isinstance(body, bytes) else _written(body)
        with self._understood():
            self._connection.request(
                method,
                address,
                sent,
                {} if sent is None else {"Content-Type": "application/json"},
            )
            response = self._connection.getresponse()
            content = response.read()
            answer = json.loads(content) if content else None
        if response.status >= _FIRST_ERROR:
            raise Problem(response.status, answer if isinstance(answer, dict) else {})
        return response.status, answer

    def download(self, path: str) -> Iterator[bytes]:
        """GET, and yield what is answered part by part; raises as `request` does."""
        with self._understood():
            self._connection.request("GET", f"/api/v1{path}")
            response = self._connection.getresponse()
            if response.status >= _FIRST_ERROR:
                answer = json.loads(response.read())
                raise Problem(response.status, answer if isinstance(answer, dict) else {})
        while True:
            with self._understood():
                part = response.read(_PART)
                if not part and response.length:
                    raise http.client.IncompleteRead(b"", response.length)
            if not part:
                return
            yield part

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Say in words why there was no answer, or none that makes sense."""
        try:
            yield
        except TimeoutError as error:
            self._connection.close()
            msg = (
                f"The daemon on {self._path} has not answered within "
                f"{self._deadline.total_seconds():.0f} s; look at its log."
            )
            raise NoReply(msg) from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            msg = f"The daemon on {self._path} ended before it answered."
            raise NoReply(msg) from error
        except ValueError as error:
            msg = f"What listens on {self._path} does not speak as this otsd does."
            raise NoReply(msg) from error

    def get(self, path: str, **query: object) -> Any:  # noqa: ANN401 - JSON is whatever it is
        """GET, and return the answer."""
        return self.request("GET", path, **query)[1]

    def post(self, path: str, body: object = None) -> Any:  # noqa: ANN401
        """POST, and return the answer."""
        return self.request("POST", path, body)[1]

    def pages(
        self, path: str, limit: int | None, query: Mapping[str, str | None], most: int = _PAGE
    ) -> Iterator[list[Any]]:
        """Read a list, all of it or as many items as ``limit`` says; ``most`` in a page."""
        cursor = None
        while limit is None or limit > 0:
            size = most if limit is None else min(limit, most)
            page = self.get(path, limit=size, cursor=cursor, **query)
            yield page["items"]
            if (cursor := page["next"]) is None:
                return
            limit = None if limit is None else limit - len(page["items"])
