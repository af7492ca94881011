"""Every command of the pages is run, in order, as a reader would: from nothing to a used link."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from otsd.cli import parser
from otsd.settings import schema
from tests.docs.pages import Block, blocks, every
from tests.docs.sandbox import THIS_OTSD, Sandbox, commands, harm
from tests.fakes.home_assistant import FakeHomeAssistant
from tests.test_docs import ROOT

# What is not run here and why, by the page and how the block begins. Everything else is run.
_ENGINE: Final = "needs a container engine; what it starts is tried by tests/container"
_ROOT: Final = "changes the machine, as root; the unit is tried by tests/test_systemd.py"
NOT_RUN: Final[Mapping[tuple[str, str], str]] = {
    ("docs/add-on.md", "python3 "): "builds otsd, as others do; see tests/addon/test_files.py",
    ("docs/admin.md", "ssh "): "needs a second machine",
    ("docs/backup.md", ""): "ends otsd in between; all of it is run by tests/cli/test_backup.py",
    ("docs/container.md", "chmod 600 .env"): _ENGINE,
    ("docs/container.md", "docker "): _ENGINE,
    ("docs/container.md", "git pull"): _ENGINE,
    ("docs/container.md", "sudo install "): "changes the machine, as root",
    ("docs/contributing.md", "scripts/check "): "takes a minute; it holds these tests to the rules",
    ("docs/contributing.md", "scripts/test "): "runs the tests, of which this is one",
    ("docs/demo.md", "scripts/demo "): "installs a real house first; it is run by tests/demo",
    ("docs/performance.md", "scripts/benchmark"): "takes minutes; the figures are from it",
    ("docs/systemd.md", "useradd "): _ROOT,
    ("docs/systemd.md", "systemctl "): _ROOT,
    ("docs/systemd.md", "sudo -u otsd "): _ROOT,
    ("docs/systemd.md", "/opt/otsd/bin/pip "): _ROOT,
}

# Pages that are read one after the other, in a copy of the repository: they say how otsd is
# installed and started, and what is done with it then.
NEWCOMERS: Final = (("README.md",), ("docs/get-started.md", "docs/first-link.md"))

# What a page takes for granted beside the daemon.
FILES: Final[Mapping[str, Mapping[str, str]]] = {
    "docs/configuration.md": {"/run/secrets/mqtt": "secret"},
    "docs/migrate.md": {"db.json": (Path(__file__).parent / "one-time-service.json").read_text()},
}

# Pages that begin with an otsd in which nothing is yet; the others have the action of the pages.
EMPTY: Final = {"docs/migrate.md"}


def meant(block: Block, key: tuple[str, str]) -> bool:
    """Tell whether a key of the table means a block."""
    page, beginning = key
    return block.page == page and block.text.startswith(beginning)


ALL: Final = every("sh")
RUN: Final = [each for each in ALL if not any(meant(each, key) for key in NOT_RUN)]
LEFT: Final = [each for each in ALL if each not in RUN]
OTHERS: Final = sorted(
    {each.page for each in RUN} - {page for pages in NEWCOMERS for page in pages}
)

_REPOSITORY: Final = re.compile(r"(?:^|\s)((?:scripts|docs|tests|benchmarks|addon)/[\w./-]+)")


async def play(sandbox: Sandbox, page: str) -> None:
    """Run what a page says, and see that it prints what stands right below."""
    for block in blocks(ROOT / page):
        if block not in RUN:
            continue
        try:
            printed = await sandbox.run(block.text)
        except AssertionError as error:
            error.add_note(f"{block}: {block.first}")
            raise
        assert block.shown in (None, printed), block


# -- what is run -----------------------------------------------------------------------------


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_touches_nothing_of_the_machine_or_is_listed_with_a_reason(block: Block) -> None:
    assert harm(block.text.replace("/run/secrets", "secrets")) == []


@pytest.mark.parametrize(
    "text",
    [
        "sudo otsd run",
        "useradd otsd",
        "cat x | sudo tee y",
        "x=$(systemctl stop otsd)",
        "otsd status && reboot",
        "otsd status; reboot",
        "cp config.toml /etc/otsd",
        "curl -o ~/.profile http://localhost:1337",
        "otsd backup ../x",
        "cat > /etc/passwd <<'X'\nx\nX\n",
        "cat > x <<'X'\nx\nX\nreboot\n",
        "python3 -m venv /opt/otsd",
        "python3 -c 1",
        "OTSD_X=1 reboot",
        "otsd \\\n    status --storage.directory=/var/lib/otsd",
    ],
)
def test_what_may_touch_the_machine_is_known(text: str) -> None:
    assert harm(text) != []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what is in the repository, and nothing that was built or kept beside."""
    copy = tmp_path_factory.mktemp("copy")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.split("\0"):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.mark.parametrize("pages", NEWCOMERS, ids=lambda pages: pages[0])
async def test_a_newcomer_gets_from_a_copy_of_the_repository_to_a_used_link(
    checkout: Path, fake_home: FakeHomeAssistant, pages: tuple[str, ...]
) -> None:
    shutil.rmtree(checkout / "data", ignore_errors=True)
    async with Sandbox(checkout, fake_home, programs=checkout / "venv/bin") as sandbox:
        for page in pages:
            await play(sandbox, page)
    assert (checkout / "data/otsd.db").is_file()
    used = [call.service for call in fake_home.calls]
    assert used == (["unlock"] if "docs/first-link.md" in pages else [])


@pytest.mark.parametrize("page", OTHERS)
async def test_what_a_page_says_can_be_done(
    tmp_path: Path, fake_home: FakeHomeAssistant, page: str
) -> None:
    async with Sandbox(tmp_path, fake_home, programs=THIS_OTSD) as sandbox:
        sandbox.prepare(FILES.get(page, {}))
        if not any(sandbox.serves(each.text) for each in RUN if each.page == page):
            await sandbox.serve(action=page not in EMPTY)
        await play(sandbox, page)


# -- what is not -----------------------------------------------------------------------------


def test_every_block_that_is_not_run_is_there() -> None:
    assert [key for key in NOT_RUN if not any(meant(each, key) for each in LEFT)] == []


def test_every_test_that_is_named_instead_is_there() -> None:
    named = [name for why in NOT_RUN.values() for name in re.findall(r"tests/[\w./]+", why)]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("block", LEFT, ids=str)
async def test_what_is_not_run_is_commands_and_files_that_there_are(block: Block) -> None:
    read = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-n"],
        input=block.text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (read.returncode, read.stderr) == (0, "")
    assert [name for name in _REPOSITORY.findall(block.text) if not (ROOT / name).exists()] == []
    for words in commands(block.text):
        given = arguments(words)
        if given is not None:
            parser.build(schema()).parse_args(given)  # exits, and so fails, at wrong usage


def arguments(words: list[str]) -> list[str] | None:
    """Return what otsd is given, if it is called: by itself, by sudo, or within a container."""
    match words:
        case (
            ["docker", "compose", "exec", "otsd", "otsd", *given]
            | ["docker", "compose", "exec", "-T", "otsd", "otsd", *given]
            | ["docker", "compose", "run", "--rm", "-T", "otsd", *given]
        ):
            pass
        case ["sudo", "-u", "otsd", program, *given] | [program, *given]:
            if Path(program).name != "otsd":
                return None
        case _:
            return None
    return given[: given.index("<")] if "<" in given else given
