"""The page with the form that asks for a password. It needs no script."""

import base64
import hashlib
from html import escape

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; background: #f4f5f7; color: #1c2127;
  display: grid; place-items: center; min-height: 90vh; margin: 0 }
main { background: #fff; border: 1px solid #d5dae0; border-radius: 8px; padding: 2rem;
  width: min(22rem, 80vw) }
h1 { font-size: 1.2rem; margin: 0 0 1rem }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem .75rem;
  border-radius: 6px; border: 1px solid #8f99a8; margin-top: .5rem }
button { background: #1c2127; color: #fff; border-color: #1c2127; cursor: pointer }
.error { color: #a82a2a }
@media (prefers-color-scheme: dark) {
  body { background: #14171a; color: #e4e7eb }
  main { background: #1c2127; border-color: #3b434c }
  input { background: #14171a; color: inherit }
  button { background: #e4e7eb; color: #14171a }
  .error { color: #fa999c }
}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# The browser applies this style, sends the form back here, and loads and runs nothing.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def login_form(action: str, then: str, error: str | None) -> str:
    """Asks for a password, and sends it to `action` together with the path to show `then`."""
    shown = f'<p class="error" role="alert">{escape(error)}</p>' if error else ""
    return _page(
        f'{shown}<form method="post" action="{escape(action)}">'
        f'<input type="hidden" name="then" value="{escape(then)}">'
        '<label for="password">Password</label>'
        '<input id="password" name="password" type="password" required autofocus'
        ' autocomplete="current-password">'
        "<button>Log in</button></form>"
    )


def logout_form(action: str, home: str, role: str) -> str:
    """Says who is logged in, and sends the end of the session to `action`."""
    return _page(
        f'<p>You are logged in as {escape(role)}. <a href="{escape(home)}">Back to the page</a></p>'
        f'<form method="post" action="{escape(action)}"><button>Log out</button></form>'
    )


def _page(content: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>KPI pipeline</title><style>{_STYLE}</style>"
        f"<main><h1>KPI pipeline</h1>{content}</main></html>"
    )
