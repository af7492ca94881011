"""What people install: a wheel with everything in it, and nothing that belongs to a machine."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from otsd.store.database import schemas

ROOT = Path(__file__).parents[1]


def _build(target: str, source: Path, into: Path) -> Path:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)],
        cwd=source,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert built.returncode == 0, built.stdout
    (found,) = into.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return found


def _page(wheel: Path) -> dict[str, bytes]:
    """Return the files of the admin page that are in a wheel."""
    folder = "otsd/server/admin_pages/"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(folder)]
        return {name.removeprefix(folder): archive.read(name) for name in names}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    return _build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_has_the_pages_and_every_step_of_the_schema(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    pages = {f"otsd/server/visitor_pages/{file.name}" for file in (ROOT / "web/visitor").iterdir()}
    assert pages <= names
    assert len([name for name in names if name.startswith("otsd/store/schema/")]) == len(schemas())


def test_the_wheel_has_the_owners_page_whole(wheel: Path) -> None:
    """What the document names is there; nothing in it is loaded from another host."""
    page = _page(wheel)
    document = page["index.html"].decode()
    loaded = re.findall(r'(?:src|href)="([^"]*)"', document)
    assert {Path(name).suffix for name in loaded} >= {".js", ".css", ".svg"}
    assert [name for name in loaded if name.removeprefix("./") not in page] == []
    assert "<style" not in document
    assert re.findall(r"<script(?![^>]* src=)", document) == []
    for name in page:
        if name.endswith((".js", ".css")):
            assert gzip.decompress(page[f"{name}.gz"]) == page[name]


def test_the_source_distribution_builds_the_same_page(wheel: Path, tmp_path: Path) -> None:
    """It brings along what the page is made from, and nothing that was built."""
    source = _build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / source.name.removesuffix(".tar.gz")
    assert (unpacked / "web/admin/package-lock.json").is_file()
    assert not (unpacked / "web/admin/dist").exists()
    assert not (unpacked / "web/admin/node_modules").exists()
    assert _page(_build("wheel", unpacked, tmp_path / "wheel")) == _page(wheel)


def test_the_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Its pages are found in the package, by an interpreter that knows nothing of the folder."""
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    dependencies = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(dependencies + "\n")
    program = (
        "import otsd.server.pages as pages\n"
        "print(pages.__file__)\n"
        "print(pages.Pages(title='Our house', contact=None, root='').form())\n"
    )
    shown = subprocess.run(
        [environment / "bin/python", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.startswith(str(packages))
    assert "Our house" in shown


def test_the_repository_names_no_machine_and_no_registry() -> None:
    """What is committed is the same wherever it came from."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    unwanted = re.compile(
        r"--index-url|--extra-index|--find-links|pythonhosted|pypi\.org/simple|registry\.npm|"
        r"/(?:root|work|home/[a-z]+)/[a-z.]"
    )
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name in listed
        if name and (ROOT / name).is_file() and name != "tests/test_package.py"
        for number, line in enumerate(
            (ROOT / name).read_text("utf-8", "replace").splitlines(), start=1
        )
        if unwanted.search(line)
    ]
    assert found == []
