"""The page with the form of the login. It needs no script."""

import base64
import hashlib
from html import escape

from kpi_pipeline.web.visitor import Visitor

_STYLE = """
:root { color-scheme: light dark; --bg: #f7f7f5; --surface: #fff; --line: #85827a; --ink: #1c1b19;
  --muted: #6b6963; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --bg: #141413; --surface: #1d1c1b; --line: #77746c;
  --ink: #eceae4; --muted: #a5a29a; --bad: #f28b82 } }
body { font: 16px/1.5 system-ui, sans-serif; background: var(--bg); color: var(--ink);
  display: grid; place-items: center; min-height: 90vh; margin: 0 }
main { background: var(--surface); border-radius: 10px; padding: 2rem; width: min(22rem, 80vw);
  box-shadow: 0 1px 4px #0003 }
h1 { font-size: 1.2rem; margin: 0 0 .5rem }
label { display: block; margin-top: 1rem }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem .75rem;
  border-radius: 8px; border: 1px solid var(--line); margin-top: .25rem }
input { background: var(--bg); color: inherit }
button { background: var(--ink); color: var(--surface); border-color: var(--ink);
  margin-top: 1.25rem; cursor: pointer }
small { color: var(--muted) }
a { color: inherit }
.error { color: var(--bad) }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# The browser applies this style, sends the form back here, and loads and runs nothing.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def login_form(action: str, then: str, name: str, error: str | None, *, shared: bool) -> str:
    """Asks for a name and a password, and sends them to `action` with the path to show `then`.

    `shared` is whether there is a password that needs no name.
    """
    shown = f'<p class="error" role="alert">{escape(error)}</p>' if error else ""
    hint = '<small id="hint">Empty, if you were given a password alone.</small>' if shared else ""
    focus = " autofocus"
    wanted = ' aria-describedby="hint"' if shared else " required"
    return _page(
        f'{shown}<form method="post" action="{escape(action)}">'
        f'<input type="hidden" name="then" value="{escape(then)}">'
        '<label for="name">Name</label>'
        f'<input id="name" name="name" value="{escape(name[:100])}"{wanted}{"" if name else focus}'
        f' autocapitalize="none" spellcheck="false" autocomplete="username">{hint}'
        '<label for="password">Password</label>'
        f'<input id="password" name="password" type="password" required{focus if name else ""}'
        ' autocomplete="current-password">'
        "<button>Log in</button></form>"
    )


def logout_form(action: str, home: str, visitor: Visitor) -> str:
    """Says who is logged in, and sends the end of the session to `action`."""
    button = f'<form method="post" action="{escape(action)}"><button>Log out</button></form>'
    return _page(
        f"<p>You are logged in as {escape(visitor.name)} ({visitor.role.value}). "
        f'<a href="{escape(home)}">Back to the page</a></p>'
        + (button if visitor.can_log_out else "")
    )


def _page(content: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Log in · KPI pipeline</title><style>{_STYLE}</style>"
        f"<main><h1>KPI pipeline</h1>{content}</main></html>"
    )
