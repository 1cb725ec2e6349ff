"""Names and texts from outside as plain text, for each medium that people read.

Clients, workspaces and errors are named by others. A name must not move the cursor of a terminal,
call everybody in a chat, become a link or a table in Markdown, or a formula in a spreadsheet.
"""

import json
import re

# Joiners are a part of emoji and of some scripts.
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
# Invisible: with it between them, characters are no command to a chat.
_SEPARATOR = "\N{ZERO WIDTH SPACE}"
# A mention (@here, <!channel>, <@U123>), a link with a text of its own: <URL|text>, [text](URL).
_CHAT_COMMAND = re.compile(r"(?<!\w)@(?=\w)|<(?=\S)|\](?=\()")
_MARKDOWN = str.maketrans({it: f"\\{it}" for it in "\\`*_[]<>|~#&"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def visible(text: str) -> str:
    """The text on one line, with control characters, those of direction included, as codes."""
    return text if text.isprintable() else "".join(map(_visible, text))


def for_terminal(text: str) -> str:
    """A text of several lines without any character that a terminal would obey."""
    return "\n".join(map(visible, text.split("\n")))


def for_chat(text: str) -> str:
    """A text of several lines that calls nobody, and whose links show where they lead."""
    return _CHAT_COMMAND.sub(lambda found: found.group() + _SEPARATOR, for_terminal(text))


def for_json(text: str) -> str:
    """JSON that means the same, and has no character that a terminal would obey."""
    safe = (it if it.isprintable() or it == "\n" else json.dumps(it)[1:-1] for it in text)
    return text if text.isprintable() else "".join(safe)


def for_markdown(text: str) -> str:
    """The text on one line, in Markdown that shows it as it is.

    A bare address still becomes a link, as it shows where it leads.
    """
    line = visible(text).strip().translate(_MARKDOWN)
    start = re.match(r"\d{1,9}(?=[.)])|(?=[-+=])", line)
    return f"{start.group()}\\{line[start.end() :]}" if start else line


def for_spreadsheet(value: object) -> object:
    """The value of a cell of CSV: a text that would be a formula begins with an apostrophe.

    Numbers stay numbers, negative ones included.
    """
    if isinstance(value, str) and value.lstrip(" \n").startswith(_FORMULA):
        return f"'{value}"
    return value


def _visible(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if character.isspace() else f"[U+{ord(character):04X}]"
