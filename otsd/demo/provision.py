"""Install Home Assistant into a virtual environment of its own, once per machine.

The result is kept in a cache folder. Whoever comes second waits for the first, whoever comes later
finds the marker file that is written last. A folder without it is a leftover and is built again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otsd.core.errors import OtsdError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Progress = Callable[[str, float], None]
"""Hears what is being done, and how much of the whole is done already, from 0 to 1."""

OLDEST_PYTHON: Final = (3, 13)
FORMAT: Final = 1
"""Raise this when what is installed changes, so that older installations are built again."""

COMPONENTS = (
    "api",
    "auth",
    "automation",
    "config",
    "counter",
    "frontend",
    "homeassistant",
    "input_boolean",
    "light",
    "lock",
    "mqtt",
    "notify",
    "persistent_notification",
    "scene",
    "script",
    "template",
    "websocket_api",
)
"""What the configurations use, besides all that Home Assistant loads unasked."""

STUBS = {
    "pymicro_vad": "class MicroVad:\n    def Process10ms(self, audio):\n        return 0.0\n",
    "pyspeex_noise": (
        "class AudioProcessor:\n"
        "    def __init__(self, *args):\n        pass\n\n"
        "    def Process10ms(self, audio):\n        return audio\n"
    ),
}
"""Compiled modules for voice, without which newer versions have no services and no front end."""

_PROBE = """
import sys, ensurepip, venv
if sys.implementation.name == "cpython" and sys.version_info.releaselevel == "final":
    print(*sys.version_info[:3])
"""

_REQUIREMENTS = """
import json, pathlib, sys
import homeassistant
from homeassistant import bootstrap
root = pathlib.Path(homeassistant.__file__).parent
todo = {*sys.argv[1:], *bootstrap.CORE_INTEGRATIONS, *bootstrap.DEFAULT_INTEGRATIONS}
seen, requirements = set(), set()
while todo:
    domain = todo.pop()
    seen.add(domain)
    manifest = root / "components" / domain / "manifest.json"
    if manifest.exists():
        content = json.loads(manifest.read_text())
        requirements.update(content.get("requirements", ()))
        todo |= set(content.get("dependencies", ())) - seen
print(json.dumps(sorted(requirements)))
print(root / "package_constraints.txt")
"""


class ProvisionError(OtsdError):
    """Home Assistant cannot be installed; the message says what to do about it."""


@dataclass(frozen=True)
class Installation:
    """An installed Home Assistant."""

    folder: Path
    version: str
    interpreter: str
    """The interpreter that it was made with, and its version."""

    @property
    def python(self) -> Path:
        """The interpreter that has Home Assistant."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def stubs(self) -> Path:
        """A folder for `PYTHONPATH` with stand-ins for modules that could not be installed."""
        return self.folder / "stubs"


def default_cache() -> Path:
    """Tell where installations are kept unless somebody says otherwise."""
    if own := os.environ.get("OTSD_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "otsd"
    return Path.home() / ".cache" / "otsd"


def find_interpreter() -> Path:
    """Find the newest CPython on this machine that can run Home Assistant."""
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if named := os.environ.get("OTSD_HA_PYTHON"):
        path = Path(named)
        if (version := _probe(path)) is None:
            msg = f"OTSD_HA_PYTHON is {named}, which is no working CPython with venv and ensurepip."
            raise ProvisionError(msg)
        if version < OLDEST_PYTHON:
            told = ".".join(map(str, version))
            msg = f"OTSD_HA_PYTHON is Python {told}, but Home Assistant needs {oldest} or newer."
            raise ProvisionError(msg)
        return path
    found = {path: _probe(path) for path in _candidates()}
    suitable = [
        (version, path) for path, version in found.items() if version and version >= OLDEST_PYTHON
    ]
    if not suitable:
        msg = (
            f"Home Assistant needs Python {oldest} or newer with venv and ensurepip, and there is "
            "none on PATH, of pyenv or of uv: install one (Debian 13: apt install python3-venv; "
            f"elsewhere: uv python install {oldest}, or pyenv install {oldest}), or name its "
            "interpreter in the environment variable OTSD_HA_PYTHON."
        )
        raise ProvisionError(msg)
    return max(suitable, key=lambda each: each[0])[1]


def find_installation(cache: Path | None = None) -> Installation | None:
    """Return what is installed already, without installing anything."""
    folder = _folder(cache)
    try:
        content = json.loads((folder / "installed.json").read_text())
        installation = Installation(folder, content["version"], content["interpreter"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = content.get("format") == FORMAT and installation.python.exists()
    return installation if usable else None


def provision(cache: Path | None = None, progress: Progress | None = None) -> Installation:
    """Install Home Assistant unless that has been done, which takes a minute or three.

    It blocks. An exception that a signal handler raises ends it and whatever it has started.

    Raises:
        ProvisionError: it cannot be installed here.

    """
    if installation := find_installation(cache):
        return installation
    tell = progress or _silent
    folder = _folder(cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(
        folder.with_suffix(".lock"), lambda: tell("waiting for another installation", 0.0)
    ) as lock:
        if installation := find_installation(cache):
            return installation
        return _install(folder, lock, tell)


@contextmanager
def locked(path: Path, when_waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold a lock between processes; a subprocess that inherits its descriptor prolongs it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if when_waiting:
                when_waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _folder(cache: Path | None) -> Path:
    """Name the installation's folder without running any interpreter: that would take long."""
    named = os.environ.get("OTSD_HA_PYTHON")
    suffix = "-" + hashlib.sha256(named.encode()).hexdigest()[:8] if named else ""
    return (cache or default_cache()).absolute() / f"home-assistant{suffix}"


def _install(folder: Path, lock: int, tell: Progress) -> Installation:
    tell("looking for a Python interpreter", 0.0)
    base = find_interpreter()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    scratch = folder / "scratch"  # what an installer that was killed leaves behind is in the cache
    scratch.mkdir()
    run = _Runner(lock, scratch)
    installation = Installation(folder, "", str(base))
    python = installation.python

    tell("creating a virtual environment", 0.01)
    run(base, "-m", "venv", folder / "venv")
    tell("installing the installer", 0.1)
    # each subprocess has the lock's descriptor: should we be killed, it is held until that ends too
    installer: Sequence[str | Path] = (python, "-m", "pip", "install", "--quiet")
    if run.succeeds(*installer, "uv"):
        installer = (python, "-m", "uv", "pip", "install", "--quiet", "--python", python)
    tell("installing Home Assistant, which takes a minute or two", 0.15)
    if not run.succeeds(*installer, "homeassistant"):
        # uv reads none of pip's configuration, such as where to get packages from.
        installer = (python, "-m", "pip", "install", "--quiet")
        run(*installer, "homeassistant")
    tell("installing what its components need", 0.8)
    listed, constraints = run(python, "-c", _REQUIREMENTS, *COMPONENTS).splitlines()
    requirements: list[str] = json.loads(listed)
    optional = {each: _module(each) for each in requirements if _module(each) in STUBS}
    run(
        *installer,
        "--constraint",
        constraints,
        *(each for each in requirements if each not in optional),
    )
    installation.stubs.mkdir()
    for requirement, module in optional.items():
        if not run.succeeds(*installer, "--constraint", constraints, requirement):
            (installation.stubs / f"{module}.py").write_text(STUBS[module])

    tell("looking at the result", 0.98)
    version = run(
        python, "-c", "from homeassistant.const import __version__; print(__version__)"
    ).strip()
    done = Installation(folder, version, f"{base} {run(python, '-V').strip()}")
    shutil.rmtree(scratch, ignore_errors=True)
    marker = folder / "installed.json"
    content = asdict(done) | {"folder": str(folder), "format": FORMAT}
    marker.with_suffix(".new").write_text(json.dumps(content))
    marker.with_suffix(".new").rename(marker)
    tell(f"Home Assistant {version} is installed", 1.0)
    return done


class _Runner:
    """Runs commands that share our lock, and explains their failures."""

    def __init__(self, lock: int, scratch: Path) -> None:
        self._lock = lock
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name
            not in {
                "PYTHONPATH",
                "PYTHONHOME",
                "VIRTUAL_ENV",
                "PIP_TARGET",
                "PIP_PREFIX",
                "PIP_USER",
            }
        } | {"TMPDIR": str(scratch)}

    def __call__(self, *command: str | Path) -> str:
        """Run a command and return its output."""
        result = self._run(command)
        if result.returncode:
            said = (result.stderr.strip() or result.stdout.strip())[-2000:]
            shown = " ".join(str(each) for each in command if "\n" not in str(each))
            msg = f"Home Assistant cannot be installed. This failed: {shown}\n{said}"
            raise ProvisionError(msg)
        return result.stdout

    def succeeds(self, *command: str | Path) -> bool:
        """Run a command that is allowed to fail."""
        return self._run(command).returncode == 0

    def _run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(  # noqa: S603 - what we install, and nobody else's words
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
            pass_fds=(self._lock,),
            start_new_session=True,
        ) as process:
            try:
                said, complained = process.communicate()
            except BaseException:  # such as Ctrl-C: what it started ends with it
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, said, complained)


def _candidates() -> list[Path]:
    names = ("python3", "python3.[1-9][0-9]")
    folders = [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    found = [path for folder in folders for name in names for path in folder.glob(name)]
    found += (Path.home() / ".pyenv" / "versions").glob("*/bin/python3")
    found += (Path.home() / ".local" / "share" / "uv" / "python").glob("*/bin/python3")
    return list({path.resolve(): path for path in found}.values())


def _probe(path: Path) -> tuple[int, ...] | None:
    """Return an interpreter's version if it works and can make virtual environments."""
    try:
        result = subprocess.run(  # noqa: S603 - an interpreter of this machine
            [path, "-I", "-c", _PROBE],
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
        return tuple(map(int, result.stdout.split())) or None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _module(requirement: str) -> str:
    return requirement.partition("==")[0].lower().replace("-", "_")


def _silent(_what: str, _fraction: float) -> None:
    pass
