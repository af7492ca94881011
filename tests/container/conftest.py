"""The image, made once for all tests of the container."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.container.image import Build


@pytest.fixture(scope="package")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Walk through the Dockerfile."""
    folder = tmp_path_factory.mktemp("build")
    try:
        yield Build(folder)
    finally:
        shutil.rmtree(folder)  # the modules of Node are many
