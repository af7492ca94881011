"""What people install: a wheel with everything in it, and nothing that belongs to a machine."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from otsd.store.database import schemas

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_pages_and_every_step_of_the_schema(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    pages = {f"otsd/server/visitor_pages/{file.name}" for file in (ROOT / "web/visitor").iterdir()}
    assert pages <= names
    assert len([name for name in names if name.startswith("otsd/store/schema/")]) == len(schemas())


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
