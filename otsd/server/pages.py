"""The visitor's pages, rendered from ``web/visitor``: complete without JavaScript, in one piece.

Style and script stand in the page, allowed by their hashes, so that a page is one answer even on
the slowest network. What people wrote is text: the templates escape everything.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otsd.server.answers import Answer

# in the wheel the folder lies in the package, in a checkout beside it
_PACKAGED: Final = Path(__file__).parent / "visitor_pages"
_FOLDER: Final = (
    _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[2] / "web" / "visitor"
)


# how an answer looks at one glance, by its code: its tone, which style.css colours, and its icon
_LOOKS: Final = {
    "running": ("wait", "ring"),
    "executed": ("good", "check"),
    "action_failed": ("bad", "cross"),
    "action_incomplete": ("warn", "alert"),
    "outcome_unknown": ("warn", "question"),
    "home_unavailable": ("wait", "house"),
    "target_unavailable": ("wait", "house"),
    "busy": ("wait", "clock"),
    "storage_unavailable": ("wait", "clock"),
    "not_yet_valid": ("wait", "clock"),
    "paused": ("wait", "pause"),
    "too_many_requests": ("gone", "clock"),
    "expired": ("gone", "stop"),
    "used_up": ("gone", "stop"),
    "revoked": ("gone", "stop"),
    "unknown_token": ("gone", "question"),
    "not_found": ("gone", "question"),
}
_OTHER_LOOKS: Final = ("bad", "cross")
_NOTHING_MORE: Final[Mapping[str, Any]] = {
    "headline": None,
    "title": None,
    "comment": None,
    "offer": None,
    "uses": None,
    "is_replay": False,
}


@dataclass(frozen=True, slots=True)
class Offer:
    """A button that submits a token, with an attempt of its own."""

    code: str
    attempt: str


class Pages:
    """Renders the pages of one site."""

    def __init__(self, *, title: str, contact: str | None, root: str) -> None:
        """Take what the owner set; ``root`` is the path below which the browser finds us."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
        )
        style = (_FOLDER / "style.css").read_text("utf-8")
        script = (_FOLDER / "script.js").read_text("utf-8")
        environment.globals.update(
            site_title=title, contact=contact, root=root, style=style, script=script
        )
        self._environment = environment
        self.policy: str = (
            f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
            "img-src data:; connect-src 'self'; frame-ancestors 'none'; form-action 'self'; "
            "base-uri 'none'"
        )
        """The Content-Security-Policy of every answer."""

    def form(self) -> str:
        """Ask for a code."""
        return self._render("form.html", code="form", tone="ready", again=None, show_contact=True)

    def token(self, **facts: Any) -> str:  # noqa: ANN401 - what the template shows
        """Show what a link does, with the button that does it."""
        state = {"code": "ready", "tone": "ready", "again": None, "show_contact": False}
        return self._render("token.html", **state, **facts)

    def answer(self, answer: Answer, *, show_contact: bool, **facts: Any) -> str:  # noqa: ANN401
        """Say why not, or what became of it."""
        tone, icon = _LOOKS.get(answer.code, _OTHER_LOOKS)
        return self._render(
            "answer.html",
            answer=answer,
            code=answer.code,
            tone=tone,
            icon_name=icon,
            again=answer.looks_again,
            show_contact=show_contact,
            **{**_NOTHING_MORE, **facts},
        )

    def _render(self, name: str, **facts: Any) -> str:  # noqa: ANN401
        return self._environment.get_template(name).render(facts)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
