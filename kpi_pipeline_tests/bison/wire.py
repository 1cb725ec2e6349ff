"""An answer as it comes over the wire, and ways to damage its bytes and its envelope."""

import gzip
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import httpx
from hypothesis import strategies as st

from kpi_pipeline_tests.bison.damages import Body
from kpi_pipeline_tests.bison.mutations import encoded

SUCCESSES_OF_OTHER_KINDS = (201, 202, 203, 204, 205, 206, 207, 226)
NO_SUCCESSES = (
    *(300, 301, 302, 303, 304, 307, 308),
    *(400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504),
)


class _Stream(httpx.AsyncByteStream):
    # httpx decodes a response that is given its content at once; one off the wire it does not.
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


@dataclass(frozen=True)
class Wire:
    """Body, status and headers."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> httpx.Response:
        """The response, which tells the length that the body has."""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(self.body))}
        return httpx.Response(
            self.status, headers=headers | dict(self.headers), stream=_Stream(self.body)
        )


@st.composite
def damaged_bytes(draw: st.DrawFn, body: Body) -> Wire:
    """The answer doubled, among other bytes, in another charset, or compressed amiss."""
    damage = draw(st.sampled_from([_surrounded, _recoded, _compressed]))
    return damage(draw, encoded(body))


def _surrounded(draw: st.DrawFn, text: bytes) -> Wire:
    before = [b"", text, b"\xef\xbb\xbf", b")]}',\n", b"data: ", b"\x00", b"<!-- -->"]
    after = [b"", text, b"\n" + text, b"null", b"</html>", b"\x00", b"\n"]
    return Wire(draw(st.sampled_from(before)) + text + draw(st.sampled_from(after)))


def _recoded(draw: st.DrawFn, text: bytes) -> Wire:
    charsets = ["latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp037"]
    written = draw(st.sampled_from(charsets))
    claimed = draw(st.sampled_from(["utf-8", *charsets]))
    return Wire(
        text.decode().encode(written, errors="replace"),
        headers={"Content-Type": f"application/json; charset={claimed}"},
    )


def _compressed(draw: st.DrawFn, text: bytes) -> Wire:
    packed = draw(st.sampled_from([text, gzip.compress(text, mtime=0), zlib.compress(text)]))
    place = draw(st.integers(0, len(packed) - 1))
    flipped = packed[:place] + bytes([packed[place] ^ 0xFF]) + packed[place + 1 :]
    content = draw(st.sampled_from([packed, packed[:place], packed + packed, flipped]))
    encoding = draw(st.sampled_from(["gzip", "deflate", "br", "zstd", "identity", "gzip, gzip"]))
    return Wire(content, headers={"Content-Encoding": encoding})


@st.composite
def damaged_envelope(draw: st.DrawFn, body: Body) -> Wire:
    """The answer whole, but with a failure reported beside it, another status, or another type."""
    status = draw(st.sampled_from([200, *SUCCESSES_OF_OTHER_KINDS, *NO_SUCCESSES]))
    kind = draw(st.sampled_from(["application/json", "text/html", "text/plain", "image/png", ""]))
    verdicts: list[Body] = [True, False, "false", "False", 0, "0", None, "no", [], {}]
    members = {"success": draw(st.sampled_from(verdicts)), "message": "Stale"}
    spoiled = draw(st.sampled_from([body, *with_members(body, members)]))
    headers = {"Content-Type": kind, "Location": "https://bison.example/login"}
    return Wire(encoded(spoiled), status, headers)


def with_members(body: Body, members: dict[str, Body]) -> list[Body]:
    """`body` with the members added on top, and again with them added to its `data`."""
    spoiled = [body | members]
    if isinstance(body["data"], dict):
        spoiled.append(body | {"data": body["data"] | members})
    return spoiled
