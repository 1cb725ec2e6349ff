import json
import re
from dataclasses import dataclass, replace

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bison_sandbox.state import sandbox_of

_UNDOCUMENTED = {"undocumented_flag": True, "undocumented": {"since": 3, "note": "new"}}
_ESCAPE = re.compile(r"\\(u00[01][0-9a-f]|.)")
_SHORT = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def answer(request: Request, data: object, status: int = 200) -> JSONResponse:
    """Data in the wrapping that every answer of the vendor has."""
    return whole_answer(request, {"data": data}, status)


def whole_answer(request: Request, content: object, status: int = 200) -> JSONResponse:
    """An answer with all that stands around its data, as the sandbox's variants have it."""
    variants = sandbox_of(request).variants
    if variants.extra_fields:
        content = _with_undocumented(content)
    return (_RawJSONResponse if variants.control_characters else JSONResponse)(content, status)


def text(request: Request, value: str, number: int) -> str:
    """A text field; by the variant, with control characters in it that belong to this number."""
    if not sandbox_of(request).variants.control_characters:
        return value
    # Every one of the 32 by some number, and a bare line break and tab in each.
    return f"{value[:1]}{chr(number % 32)}{value[1:]}\n\t\x01\x0b"


def raw_json(content: object) -> bytes:
    """JSON with its control characters as they are, which is no strict JSON any more."""
    strict = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPE.sub(_unescaped, strict).encode()


class _RawJSONResponse(JSONResponse):
    def render(self, content: object) -> bytes:
        return raw_json(content)


def _unescaped(escape: re.Match[str]) -> str:
    body = escape[1]
    if body.startswith("u"):
        return chr(int(body[1:], 16))
    return _SHORT.get(body, escape[0])


def _with_undocumented(content: object) -> object:
    if isinstance(content, list):
        return [_with_undocumented(each) for each in content]
    if isinstance(content, dict):
        return {key: _with_undocumented(each) for key, each in content.items()} | _UNDOCUMENTED
    return content


@dataclass(frozen=True)
class WholeAnswer:
    """An answer as the application gave it, before any of it is sent."""

    start: Message
    body: bytes

    @classmethod
    async def of(cls, app: ASGIApp, scope: Scope, receive: Receive) -> "WholeAnswer":
        """What the application answers to a call."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await app(scope, receive, keep)
        start, *rest = messages
        return cls(start, b"".join(message.get("body", b"") for message in rest))

    def with_body(self, body: bytes) -> "WholeAnswer":
        """The same with another body, and with a Content-Length that fits it."""
        headers = MutableHeaders(raw=list(self.start["headers"]))
        headers["content-length"] = str(len(body))
        return replace(self, start={**self.start, "headers": headers.raw}, body=body)

    def half(self) -> bytes:
        """The first half of the body."""
        return self.body[: len(self.body) // 2]

    async def send(self, send: Send) -> None:
        """Send all of it."""
        await send(self.start)
        await send({"type": "http.response.body", "body": self.body})

    async def send_half(self, send: Send) -> None:
        """Send its head, which promises all of it, and the first half of its body."""
        await send(self.start)
        await send({"type": "http.response.body", "body": self.half(), "more_body": True})
