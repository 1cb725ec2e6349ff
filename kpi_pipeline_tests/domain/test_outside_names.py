"""Names from outside are text in each medium, whatever characters they hold."""

import csv
import html
import io
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kpi_pipeline.domain.outside_names import (
    for_chat,
    for_json,
    for_markdown,
    for_spreadsheet,
    for_terminal,
    visible,
)

# Any text, and texts of the characters that some medium obeys.
NAMES = st.text() | st.text("aé1 .)(@<>!|[]`*_~#&=+-\\\t\n\r\x1b\x9b\u202e\u200f\u2066'\"/:")


@given(NAMES)
def test_no_character_that_is_shown_controls_a_terminal_or_the_direction(name: str) -> None:
    shown = visible(name)
    controls = [it for it in shown if unicodedata.category(it) in {"Cc", "Cf", "Zl", "Zp", "Cs"}]
    assert set(controls) <= {"\u200c", "\u200d"}
    assert for_terminal(f"{name}\nnext").endswith("\nnext")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Acme \x1b[2J\x9b1A", "Acme [U+001B][2J[U+009B]1A"),
        ("Acme \u202eemca", "Acme [U+202E]emca"),
        ("Two\nlines\tof it", "Two lines of it"),
        ("Søren & Söhne 👩‍💻", "Søren & Söhne 👩‍💻"),
    ],
)
def test_control_characters_are_shown_as_codes_and_all_others_as_they_are(
    name: str, shown: str
) -> None:
    assert visible(name) == shown


@given(NAMES)
def test_a_message_calls_nobody_and_hides_no_link(name: str) -> None:
    sent = for_chat(f"x {name} y")
    assert not re.search(r"(?<!\w)@\w|<[!@#/\w]|\]\(", sent)
    assert sent.replace("\u200b", "") == for_terminal(f"x {name} y")
    assert for_chat("Write to ops@agency.example.") == "Write to ops@agency.example."


@pytest.mark.parametrize("name", ["@everyone", "<!channel>", "<@U024BE7LH>", "a @here b"])
def test_a_mention_in_a_name_is_separated_from_its_sign(name: str) -> None:
    assert name not in for_chat(name)


@given(NAMES)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    reader = MarkdownIt("commonmark").enable("table").enable("strikethrough")
    shown = visible(name).strip()
    # Markdown itself leaves out what is invisible at the ends of a line, and joins spaces of HTML.
    rendered = html.unescape(reader.render(f"- {for_markdown(name)}"))
    expected = f"<ul>\n<li>{shown}</li>\n</ul>\n"
    assert rendered == expected


@given(st.lists(NAMES))
def test_json_means_the_same_and_controls_no_terminal(names: list[str]) -> None:
    shown = for_json(json.dumps(names, indent=2, ensure_ascii=False))
    assert json.loads(shown) == names
    assert all(it.isprintable() for it in shown.split("\n"))


@pytest.mark.parametrize("name", ["# x", "1. x", "- x", "+ x", "*x*", "a|b", "[a](http://b)"])
def test_markdown_of_a_name_has_no_heading_list_table_or_link(name: str) -> None:
    rendered = MarkdownIt("commonmark").enable("table").render(for_markdown(name))
    assert rendered == f"<p>{html.escape(name)}</p>\n"


@given(NAMES | st.integers() | st.none())
def test_a_text_in_a_spreadsheet_is_no_formula_and_a_number_stays_one(value: str | int) -> None:
    cell = for_spreadsheet(value)
    if not isinstance(value, str):
        assert cell is value
        return
    assert isinstance(cell, str)
    assert not cell.lstrip(" \n").startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell in {value, f"'{value}"}
    line = io.StringIO()
    csv.writer(line).writerow([cell, -1])
    assert next(csv.reader(io.StringIO(line.getvalue(), newline=""))) == [cell, "-1"]
