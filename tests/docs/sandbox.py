"""A folder in which the commands of a page run as in a terminal, beside a real otsd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from tests.daemon import OPEN_DOOR, free_port
from tests.fakes.home_assistant import FakeHomeAssistant

THIS_OTSD: Final = Path(sys.executable).parent
"""The folder with the program ``otsd`` of these tests."""

SHOWN_ID: Final = "k7m2qx4d"

# what touches nothing but the folder in which it is called, with words that name nothing outside
_HARMLESS: Final = {
    *("otsd", "venv/bin/otsd", "venv/bin/pip install", "python3 -m venv"),
    *("cat", "cp", "curl", ". venv/bin/activate"),
}
_OUTSIDE: Final = re.compile(r"(?:^|=)[/~]|\.\.")
_HERE_DOCUMENT: Final = re.compile(r"^(.*)<<'(\w+)'(.*)\n(?s:.*?)^\2$", re.MULTILINE)
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=")
_SEPARATORS: Final = {"&&", "||", "|", "&", ";", "(", ")", "$("}
_SERVES: Final = re.compile(r"\botsd run( |$)")

_PATIENCE: Final = 60.0
_PATIENCE_WITH_PIP: Final = 300.0


def harm(text: str) -> list[str]:
    """Return what keeps a block from being run here: commands that may touch the machine."""
    return [" ".join(words) for words in commands(text) if not _is_harmless(words)]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a block, each with its words, without what is assigned before them."""
    text = _HERE_DOCUMENT.sub(r"\1\3", text).replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line.replace("$(", " ; "), posix=True, punctuation_chars="();<>|&")
        lexer.commenters = ""
        lexer.whitespace_split = True
        words: list[str] = []
        for word in _uncommented(lexer):
            if word in _SEPARATORS:
                yield from [words] if words else []
                words = []
            elif words or not _ASSIGNMENT.match(word):
                words.append(word)
        yield from [words] if words else []


def _uncommented(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("#"):
            return
        yield word


def _is_harmless(words: list[str]) -> bool:
    program = any(words[: len(each.split())] == each.split() for each in _HARMLESS)
    return program and not any(map(_OUTSIDE.search, words[1:]))


class Sandbox:
    """Runs blocks of commands; one that ends with ``otsd run`` goes on until `close`.

    What a page shows stands for something here: the id of a token for that of one which exists, the
    usual ports for free ones, ``/run/secrets`` for a folder. A variable for each setting stands for
    what a reader writes into his configuration, and for his login in a browser.
    """

    def __init__(self, folder: Path, home: FakeHomeAssistant, *, programs: Path) -> None:
        """Take the folder to run in, the house, and the folder with ``otsd``."""
        self.folder = folder
        self.public = free_port()
        self.admin = free_port()
        self._serving: subprocess.Popen[bytes] | None = None
        # an answer that is an error is one for bash, too
        (folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")
        machine = {key: value for key, value in os.environ.items() if not key.startswith("OTSD_")}
        environment = {
            **machine,
            "PATH": f"{programs}{os.pathsep}{machine['PATH']}",
            "CURL_HOME": str(folder),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",  # most of it is never run here
            "OTSD_HOME_ASSISTANT__URL": home.url,
            "OTSD_HOME_ASSISTANT__TOKEN": home.token,
            "OTSD_PUBLIC__HOST": "127.0.0.1",
            "OTSD_PUBLIC__PORT": str(self.public),
            "OTSD_ADMIN__PORT": str(self.admin),
        }
        self._place: dict[str, Any] = {
            "cwd": folder,
            "env": environment,
            "stdin": subprocess.DEVNULL,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def prepare(self, files: Mapping[str, str]) -> None:
        """Write what a page takes for granted."""
        for path, text in files.items():
            file = self.folder / self._here(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    @staticmethod
    def serves(text: str) -> bool:
        """Tell whether a block ends with the daemon."""
        return _SERVES.search(text.rstrip().rpartition("\n")[2]) is not None

    async def serve(self, *, action: bool) -> None:
        """Start otsd for a page that does not say how, with or without the action of the pages."""
        await self.run("otsd run")
        if action:
            body = {"title": "Open the front door", "yaml": OPEN_DOOR}
            assert (await self._admin("PUT", "/actions/open-door", json=body))["name"]

    async def run(self, text: str) -> str:
        """Run a block as bash does, up to the first command that fails; return what it printed."""
        if SHOWN_ID in text:
            text = text.replace(SHOWN_ID, await self._token())
        text = self._here(text)
        assert harm(text) == [], "this may touch the machine"
        command = ["bash", "-euo", "pipefail", "-c", text]
        if self.serves(text):
            await self._start(command)
            return ""
        ended: subprocess.CompletedProcess[str] = await asyncio.to_thread(
            lambda: subprocess.run(
                command,
                **self._place,
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE_WITH_PIP,
            )
        )
        assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}"
        return ended.stdout

    async def close(self) -> None:
        """End otsd as Ctrl-C does, if it runs."""
        if self._serving is None:
            return
        process, self._serving = self._serving, None
        try:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            assert await asyncio.to_thread(process.wait, _PATIENCE) == 0, self._log()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    async def _start(self, command: list[str]) -> None:
        assert self._serving is None, "it runs already"
        with (self.folder / "log").open("wb") as log:
            process = self._serving = subprocess.Popen(
                command, **self._place, stdout=log, stderr=log, start_new_session=True
            )
        async with asyncio.timeout(_PATIENCE_WITH_PIP):
            while not await self._is_ready():
                assert process.poll() is None, self._log()
                await asyncio.sleep(0.02)

    async def _is_ready(self) -> bool:
        """Tell whether visitors are served and the house is connected, as whoever reads on has it."""
        with contextlib.suppress(aiohttp.ClientError, FileNotFoundError):
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://127.0.0.1:{self.public}/healthz"),
            ):
                status = await self._admin("GET", "/status")
                return bool(status["home_assistant"]["state"] == "connected")
        return False

    async def _token(self) -> str:
        """Make a token, and return its id."""
        return str((await self._admin("POST", "/tokens", json={"action": "open-door"}))["id"])

    async def _admin(self, method: str, path: str, **more: Any) -> Any:
        """Ask on the control socket, which is faster than a command."""
        connector = aiohttp.UnixConnector(path=str(self.folder / "data/otsd.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.request(method, f"http://otsd/api/v1{path}", **more) as answer,
        ):
            return await answer.json(content_type=None)

    def _here(self, text: str) -> str:
        """Return a text with what stands here for what a page shows."""
        text = text.replace("/run/secrets", "secrets")
        text = text.replace("localhost:1337", f"127.0.0.1:{self.public}")
        return text.replace("localhost:8099", f"127.0.0.1:{self.admin}")

    def _log(self) -> str:
        return (self.folder / "log").read_text()
