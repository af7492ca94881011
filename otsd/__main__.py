"""Lets ``python -m otsd`` do what ``otsd`` does."""

import sys

from otsd.cli import main

sys.exit(main())
