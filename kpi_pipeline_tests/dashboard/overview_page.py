"""What the tests of the overview read from its page."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from html import unescape
from xml.etree.ElementTree import Element

import httpx
from sqlalchemy import Engine, event

from kpi_pipeline_tests.dashboard.pages import elements, text_of, valid


def page(browse: httpx.Client, query: str = "") -> Element:
    answer = browse.get(f"/{query}")
    assert answer.status_code == 200, answer.text
    return valid(answer.text)


def rows_of(document: Element) -> dict[str, Element]:
    """The rows, or cards, by workspace, in their order."""
    named = [it for it in document.iter() if (it.get("id") or "").startswith("row-")]
    return {str(it.get("id")).removeprefix("row-"): it for it in named}


def numbers_of(row: Element) -> Iterator[tuple[str, str]]:
    for element in row.iter():
        if column := element.get("data-c"):
            yield column, text_of(element)


def badge_of(document: Element) -> str:
    return next(text_of(it) for it in document.iter() if it.get("id") == "badge")


def tiles_of(document: Element) -> list[str]:
    return [text_of(it) for it in elements(document, "div") if it.get("class") == "tile"]


def chips_of(document: Element) -> list[str]:
    chips = (it for it in elements(document, "a") if "chip" in (it.get("class") or "").split())
    return [text_of(it) for it in chips]


def number_in(text: str) -> Decimal | None:
    plain = text.replace(",", "").replace("\N{MINUS SIGN}", "-").removesuffix(" %")
    return None if plain == "–" else Decimal(plain)


def marks_of(row: Element) -> list[str]:
    return [
        unescape(str(it.get("title"))) for it in row.iter() if "wrong" in (it.get("class") or "")
    ]


def heading_of(document: Element, text: str) -> Element:
    return next(it for it in elements(document, "th") if text_of(it) == text)


@contextmanager
def statements_of(engine: Engine) -> Iterator[list[str]]:
    found: list[str] = []

    def note(*arguments: object) -> None:
        found.append(str(arguments[2]))

    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)
