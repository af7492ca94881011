"""A place of its own for a test: a network, and mounts, where whoever runs the tests is root."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHELL = ("unshare", "--map-root-user", "--net", "--mount", "sh", "-euc")
"""What runs a script of the shell there; its first argument is ``$0``."""
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where the programs are that such a script needs."""

# `machine DIRECTORY FOLDER…` makes a root of its own: what the machine has, and the folders empty
MACHINE = """
machine() {
    root=$1; shift
    mount -t tmpfs none "$root"
    mkdir $(printf "$root%s " "$@")
    for each in /*; do
        if [ -e "$root$each" ]; then continue
        elif [ -L "$each" ]; then cp -P "$each" "$root$each"
        elif [ -d "$each" ]; then mkdir "$root$each" && mount --rbind "$each" "$root$each"
        fi
    done
}
"""


def told(script: str, *arguments: str) -> Any:
    """Run a script there, and return what it prints as JSON."""
    done = subprocess.run(
        [*SHELL, script, "sh", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
