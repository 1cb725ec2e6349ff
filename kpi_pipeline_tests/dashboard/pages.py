"""What every page of the dashboard must be: valid HTML, usable by everybody, safe to open."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import html5lib
import pytest
from axe_playwright_python.sync_playwright import Axe
from html5lib.html5parser import ParseError
from playwright.sync_api import Page

from kpi_pipeline_tests.end_to_end.chromium import find_chromium

_XHTML = "{http://www.w3.org/1999/xhtml}"
# What a phrase, such as a span, may not contain.
_BLOCKS = {
    "article", "aside", "details", "div", "dl", "fieldset", "footer", "form", "h1", "h2", "h3",
    "header", "main", "nav", "ol", "p", "section", "table", "ul",
}  # fmt: skip
_PHRASES = {"a", "abbr", "b", "bdi", "button", "code", "em", "h1", "h2", "h3", "label", "legend"}
_PHRASES |= {"p", "small", "span", "strong", "summary", "time"}


def require_chromium() -> str:
    """The browser's path; skips the test on a machine without one."""
    executable = find_chromium()
    if executable is None:
        if os.environ.get("KPI_TEST_BROWSER") == "required":
            pytest.fail("KPI_TEST_BROWSER=required, and there is no chromium")
        pytest.skip("there is no chromium")
    return executable


def parsed(html: str) -> Element:
    """The document, if it is well formed to the letter of HTML."""
    parser = html5lib.HTMLParser(strict=True)
    try:
        return parser.parse(html)  # type: ignore[no-any-return]
    except ParseError as error:
        (line, column), code, _ = parser.errors[-1]
        text = html.splitlines()[line - 1]
        raise AssertionError(f"{code} ({error}) in line {line}, column {column}: {text}") from None


def valid(html: str) -> Element:
    """The document, once it is found to be valid HTML that the pages' policy lets work."""
    document = parsed(html)
    problems = [*_structure(document), *_references(document), *_inline(document)]
    assert not problems, "\n".join(problems)
    return document


def no_violations(page: Page, where: str | dict[str, list[list[str]]] | None = None) -> None:
    """Have axe-core examine the page as it is now, or the part of it that `where` selects."""
    found = Axe().run(page, where)
    assert found.violations_count == 0, found.generate_report()


def elements(document: Element, name: str) -> list[Element]:
    """All elements of a name."""
    return list(document.iter(f"{_XHTML}{name}"))


def text_of(element: Element) -> str:
    """The text of an element, with single blanks."""
    return re.sub(r"\s+", " ", "".join(element.itertext())).strip()


def _name(element: Element) -> str:
    return str(element.tag).removeprefix(_XHTML)


def _structure(document: Element) -> Iterator[str]:
    for name, least in (("title", 1), ("h1", 1), ("main", 1)):
        if (number := len(elements(document, name))) != least:
            yield f"{number} elements {name}"
    levels = [int(_name(it)[1]) for it in document.iter() if re.fullmatch("h[1-6]", _name(it))]
    for before, level in zip([0, *levels], levels, strict=False):
        if level > before + 1:
            yield f"a heading of level {level} after one of level {before}"
    for element in document.iter():
        if _name(element) in _PHRASES:
            inside = {_name(it) for child in element for it in child.iter()} & _BLOCKS
            if inside and _name(element) != "a":
                yield f"{', '.join(sorted(inside))} within a {_name(element)}"
    for table in elements(document, "table"):
        for cell in elements(table, "th"):
            if cell.get("scope") not in ("col", "row", "colgroup", "rowgroup"):
                yield f"a heading without a scope: {text_of(cell)}"


def _references(document: Element) -> Iterator[str]:
    ids = Counter(it.get("id") for it in document.iter() if it.get("id"))
    yield from (f"{number} elements with the id {it}" for it, number in ids.items() if number > 1)
    for element in document.iter():
        for attribute in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            for name in (element.get(attribute) or "").split():
                if name not in ids:
                    yield f"{attribute}={name}, and no such element"
    labelled = {it.get("for") for it in elements(document, "label")}
    within = {id(it) for label in elements(document, "label") for it in label.iter()}
    for name in ("input", "select", "textarea"):
        for field in elements(document, name):
            named = field.get("id") in labelled or id(field) in within or field.get("aria-label")
            if not named and field.get("type") not in ("hidden", "submit"):
                yield f"a field without a label: {field.get('name')}"


def _inline(document: Element) -> Iterator[str]:
    for element in document.iter():
        for name in element.attrib:
            if name == "style" or name.startswith(("on", "hx-on")):
                yield f"{name} on a {_name(element)}: the policy forbids it"
        if _name(element) == "script" and not element.get("src"):
            yield "a script within the page"
    yield from ("a style within the page" for _ in elements(document, "style"))
