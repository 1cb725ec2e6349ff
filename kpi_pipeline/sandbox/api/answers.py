import json
import re

from starlette.requests import Request
from starlette.responses import JSONResponse

from kpi_pipeline.sandbox.state import sandbox_of

_UNDOCUMENTED = {"undocumented_flag": True, "undocumented": {"since": 3, "note": "new"}}
_ESCAPE = re.compile(r"\\(u00[01][0-9a-f]|.)")
_SHORT = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def answer(request: Request, data: object, status: int = 200) -> JSONResponse:
    """Data in the wrapping that every answer of the vendor has."""
    return whole_answer(request, {"data": data}, status)


def whole_answer(request: Request, content: object, status: int = 200) -> JSONResponse:
    """An answer with all that stands around its data, as the sandbox's manners have it."""
    manners = sandbox_of(request).manners
    if manners.extra_fields:
        content = _with_undocumented(content)
    return (_RawJSONResponse if manners.control_characters else JSONResponse)(content, status)


def text(request: Request, value: str, number: int) -> str:
    """A text field; by the manner, with control characters in it that belong to this number."""
    if not sandbox_of(request).manners.control_characters:
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
