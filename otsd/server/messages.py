"""The one page of the owner's side that needs no front end: a sentence, and what to do next."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

from aiohttp import web

_STYLE: Final = """
:root { color-scheme: light dark; --page: #fafafa; --card: #fff; --ink: #212121; --line: #e0e0e0;
  --accent: #0277a8; --on-accent: #fff; }
@media (prefers-color-scheme: dark) { :root { --page: #111; --card: #1c1c1c; --ink: #e1e1e1;
  --line: #3a3a3a; --accent: #4fc3f7; --on-accent: #00202e; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 16px;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 Roboto, system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 26rem; padding: 24px; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
h1 { margin: 0 0 8px; font-size: 1.4rem; font-weight: 500; line-height: 1.3; }
p { margin: 0 0 16px; overflow-wrap: anywhere; }
a { display: inline-block; padding: 10px 20px; border-radius: 999px; background: var(--accent);
  color: var(--on-accent); text-decoration: none; font-weight: 500; }
a:focus-visible { outline: 3px solid var(--ink); outline-offset: 2px; }
"""

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading} · {title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{heading}</h1>
<p>{text}</p>
{link}
</main>
</body>
</html>
"""

_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
)
"""The Content-Security-Policy of a message, but for who may frame it."""


def message(
    status: int, title: str, heading: str, text: str, link: tuple[str, str] | None = None
) -> web.Response:
    """Return a page; ``link`` is the words of its button and where it leads."""
    button = "" if link is None else f'<a href="{escape(link[1])}">{escape(link[0])}</a>'
    page = _PAGE.format(
        title=escape(title), heading=escape(heading), text=escape(text), link=button, style=_STYLE
    )
    response = web.Response(status=status, text=page, content_type="text/html", charset="utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    return response
