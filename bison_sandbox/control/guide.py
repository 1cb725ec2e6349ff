"""How to use a sandbox, as `GET /` and the start of the server show it."""

from collections.abc import Iterable
from textwrap import fill

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.faults import KINDS
from bison_sandbox.requests import base_url
from bison_sandbox.state import Sandbox, sandbox_of
from bison_sandbox.variants import names

_GUIDE = """\
Address:      {url}
Master key:   {master_key}
Clients:      {url}/sandbox/clients.csv (names, targets, and the API keys of most)

Try it:
  curl -H 'Authorization: Bearer {master_key}' {url}/api/users

Break it, without a key and from this machine only:
  curl {url}/sandbox/faults -d '{{"kind": "status", "status": 429, "path": "stats", "times": 3}}'
  curl -X DELETE {url}/sandbox/faults
  curl -X PATCH {url}/sandbox/variants -d '{{"paging": "cursor", "user_member": "team"}}'
  curl -X DELETE {url}/sandbox/variants
  curl {url}/sandbox/keys/revoke -d '{{"workspace_id": {workspace_id}}}'
  curl {url}/sandbox/ui-user -d '{{"workspace_id": {workspace_id}}}'

Let something happen, and see what came of it:
  curl {url}/sandbox/mark-interested -d '{{"workspace_id": {workspace_id}, "leads": 3}}'
  curl {url}/sandbox/events -d '{{"workspace_id": {workspace_id}, "type": "email_bounced"}}'
  curl {url}/sandbox/parent-hook -d '{{"url": "http://127.0.0.1:8080/in"}}'
  curl {url}/sandbox/clock -d '{{"now": "2026-03-18T15:00:00-05:00"}}'
  curl {url}/sandbox/deliveries
  curl {url}/sandbox/calls
  curl '{url}/sandbox/counts?workspace_id={workspace_id}&start_date={today}&end_date={today}'

Faults:   {faults}
Variants: {variants}
`kpi sandbox --help` explains them.
"""
_WIDTH = 100


def routes() -> list[BaseRoute]:
    """The endpoint of this file."""
    return [Route("/", show_guide, methods=["GET"])]


async def show_guide(request: Request) -> Response:
    """Show the guide, with the address as the caller sees it."""
    return PlainTextResponse(guide(sandbox_of(request), base_url(request)))


def guide(sandbox: Sandbox, url: str) -> str:
    """The guide to a sandbox at this address; it holds the sandbox's master key."""
    return _GUIDE.format(
        url=url,
        master_key=sandbox.master_key.token,
        workspace_id=sandbox.workspaces.largest_id,
        today=sandbox.clock.today(),
        faults=_listed(KINDS),
        variants=_listed(names()),
    )


def _listed(words: Iterable[str]) -> str:
    return fill(", ".join(words), _WIDTH, subsequent_indent=" " * 10, initial_indent=" " * 10)[10:]
