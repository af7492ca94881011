"""The one page of the owner's side that needs no front end: a sentence, and what to do next."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

from aiohttp import web

_STYLE: Final = """
:root { color-scheme: light dark; --page: #f5f5f7; --card: #fff; --ink: #141414; --quiet: #5e5e5e;
  --line: #0000001f; --accent: #0079a1; --on-accent: #fff; }
@media (prefers-color-scheme: dark) { :root { --page: #111; --card: #1c1c1c; --ink: #e9e9e9;
  --quiet: #a8a8a8; --line: #ffffff24; --accent: #03a9f4; --on-accent: #00141c; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; min-height: 100svh; display: grid; place-items: center;
  padding: 16px; background: var(--page); color: var(--ink);
  font: 16px/1.5 Roboto, "Noto Sans", -apple-system, "Segoe UI", system-ui, sans-serif; }
main { width: 100%; max-width: 26rem; padding: 24px; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; }
header { display: flex; align-items: center; gap: 10px; margin-bottom: 20px; color: var(--quiet);
  overflow-wrap: anywhere; }
svg { flex: none; width: 32px; height: 32px; }
h1 { margin: 0 0 8px; font-size: 1.4rem; font-weight: 500; line-height: 1.3; }
p { margin: 0; overflow-wrap: anywhere; }
a { display: inline-block; margin-top: 24px; padding: 10px 24px; border-radius: 999px;
  background: var(--accent); color: var(--on-accent); text-decoration: none; font-weight: 500; }
a + a { margin-left: 8px; padding: 10px 16px; background: none; color: var(--accent); }
a:focus-visible { outline: 3px solid var(--ink); outline-offset: 2px; }
"""

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{heading} · {title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<svg viewBox="0 0 24 24" aria-hidden="true"><rect width="24" height="24" rx="6" fill="#03a9f4"/>
<path fill="#fff" transform="translate(3.6 3.6) scale(.7)" d="M22 18v4h-4v-3h-3v-3h-3l-2.26-2.26
A6 6 0 1 1 13.74 9.74L22 18M7 5a2 2 0 1 0 0 4a2 2 0 0 0 0-4Z"/></svg>
{title}
</header>
<h1>{heading}</h1>
<p>{text}</p>
{links}
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
    status: int, title: str, heading: str, text: str, *links: tuple[str, str]
) -> web.Response:
    """Return a page; ``links`` are words and where they lead, of which the first is a button."""
    page = _PAGE.format(
        title=escape(title),
        heading=escape(heading),
        text=escape(text),
        links="\n".join(f'<a href="{escape(to)}">{escape(words)}</a>' for words, to in links),
        style=_STYLE,
    )
    response = web.Response(status=status, text=page, content_type="text/html", charset="utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    return response
