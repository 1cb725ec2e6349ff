"""Damage to the bytes or the envelope of an answer gives the same numbers or an error.

The envelope is its status, its headers and the verdict beside its data.
"""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpi_pipeline_tests.bison.answers import (
    Body,
    Kind,
    Wire,
    careful,
    encoded,
    examples,
    of_every_kind,
)

SUCCESSES_OF_OTHER_KINDS = (201, 202, 203, 204, 205, 206, 207, 226)
NO_SUCCESSES = (
    *(300, 301, 302, 303, 304, 307, 308),
    *(400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504),
)
NO_ANSWERS = [
    b"",
    b" \r\n\t ",
    b"null",
    b"0",
    b"5",
    b"NaN",
    b"true",
    b'"data"',
    b"[]",
    b"{}",
    b"OK",
    b"\x00",
    b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>",
    b'{"data": null}',
    b'{"data": ' + b"9" * 5000 + b"}",
    b'{"data": ' + b"[" * 100_000,
]


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


@of_every_kind
@careful
@given(data=st.data())
def test_a_whole_answer_gives_its_numbers(kind: Kind, data: st.DataObject) -> None:
    valid = data.draw(kind.others)
    assert kind.read(Wire(encoded(valid.body))) == valid.truth


@of_every_kind
@pytest.mark.parametrize("damage", [damaged_bytes, damaged_envelope])
@careful
@given(data=st.data())
def test_no_damage_to_the_bytes_or_the_envelope_gives_other_numbers(
    kind: Kind, damage: Callable[[Body], st.SearchStrategy[Wire]], data: st.DataObject
) -> None:
    valid = data.draw(kind.others)
    wire = data.draw(damage(valid.body))
    assert kind.read(wire) in (valid.truth, None)


@pytest.mark.thorough
@of_every_kind
def test_an_answer_that_is_cut_off_anywhere_is_an_error(kind: Kind) -> None:
    text = encoded(kind.one.body)
    for length in examples(range(len(text))):
        assert kind.read(Wire(text[:length])) is None, text[:length]


@of_every_kind
def test_what_is_no_answer_at_all_is_an_error(kind: Kind) -> None:
    for text in NO_ANSWERS:
        assert kind.read(Wire(text)) is None, text[:40]


@of_every_kind
def test_a_failure_beside_whole_numbers_is_an_error(kind: Kind) -> None:
    for success in (False, "false", "False", " FALSE "):
        for body in with_members(kind.one.body, {"success": success}):
            assert kind.read(Wire(encoded(body))) is None, body


@of_every_kind
def test_whole_numbers_under_a_status_that_is_no_success_are_an_error(kind: Kind) -> None:
    for status in NO_SUCCESSES:
        wire = Wire(encoded(kind.one.body), status, {"Location": "https://bison.example/login"})
        assert kind.read(wire) is None, status


@of_every_kind
def test_the_type_that_an_answer_claims_to_have_does_not_matter(kind: Kind) -> None:
    wire = Wire(encoded(kind.one.body), headers={"Content-Type": "text/html; charset=latin-1"})
    assert kind.read(wire) == kind.one.truth
