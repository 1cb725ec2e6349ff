"""The names of all variables: each one called KPI_… must be known, or it is refused by name.

A misspelt setting would otherwise be ignored, and its default would hold.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream

from kpi_pipeline.errors import KpiError

PREFIX = "KPI_"
# Read before the settings are: the settings file to read in place of .env.
OTHER_VARIABLES = frozenset({"KPI_ENV_FILE"})
# What replaces a setting of an earlier version.
_REPLACED = {
    "KPI_HOURLY_REFRESH": "KPI_REFRESH_MINUTES replaces it: the minutes between two refreshes "
    "(15 unless set; 60 is every hour), or `off`"
}
# The tests have options of their own.
_OF_TESTS = re.compile(r"KPI_TEST_\w+")
# One secret for each instance; the last part names the instance.
_OF_AN_INSTANCE = re.compile(r"KPI_WEBHOOK_SECRET_\w+")
# Kubernetes sets these, with their values, for each service called kpi-… in the namespace.
_OF_KUBERNETES = re.compile(
    r"KPI_(\w+_)?(SERVICE_HOST=|SERVICE_PORT(_\w+)?=|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?=|=\w+://)).*"
)


def unknown_variables(settings: Iterable[str], file: Path | None) -> list[str]:
    """One sentence for each variable of the environment and of `file` that nothing reads.

    `settings` are the names of the settings' fields. No value is shown: it may be a secret.

    Raises:
        KpiError: if the file is not text of lines NAME=VALUE.
    """
    known = {f"{PREFIX}{name.upper()}" for name in settings}
    places = {} if file is None else {it: f"line {no} of {file}" for it, no in _lines(file).items()}
    places |= {
        name: "in the environment"
        for name, value in os.environ.items()
        if not _OF_KUBERNETES.fullmatch(f"{name}={value}")
    }
    return [
        f"{name} ({place}) is not a setting{_suggestion(name.upper(), known)}"
        for name, place in places.items()
        if name.upper().startswith(PREFIX) and not _is_known(name.upper(), known)
    ]


def _is_known(name: str, known: set[str]) -> bool:
    families = (_OF_TESTS, _OF_AN_INSTANCE)
    return name in known | OTHER_VARIABLES or any(it.fullmatch(name) for it in families)


def _suggestion(name: str, known: set[str]) -> str:
    if name in _REPLACED:
        return f" any more; {_REPLACED[name]}"
    candidates = (known | OTHER_VARIABLES | {"KPI_WEBHOOK_SECRET_NAME"}) - {"KPI_WEBHOOK_SECRET"}
    # Compared without the prefix, which would make any two of them alike.
    by_rest = {it.removeprefix(PREFIX): it for it in sorted(candidates)}
    nearest = difflib.get_close_matches(name.removeprefix(PREFIX), by_rest, n=1)
    return f"; did you mean {by_rest[nearest[0]]}?" if nearest else ""


def _lines(file: Path) -> Mapping[str, int]:
    """The names that the settings file sets, each with the number of its line."""
    lines = {}
    for binding in parse_stream(StringIO(_text(file))):
        text, line = binding.original.string, binding.original.line
        # What was read begins with the blank lines above it.
        line += len(re.findall(r"\r\n|\n|\r", text[: len(text) - len(text.lstrip())]))
        if binding.key is not None and binding.value is not None:
            lines[binding.key] = line
        elif (binding.error or binding.key is not None) and PREFIX in text.upper():
            raise KpiError(
                f"Line {line} of the settings file {file} cannot be read. Write NAME=VALUE, and "
                "quotes on both sides of a value that holds line breaks."
            )
    return lines


def _text(file: Path) -> str:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise KpiError(f"The settings file {file} cannot be read: {reason}.") from None
    except UnicodeDecodeError:
        text = "\0"
    # UTF-16 without a byte order mark decodes, too: to letters with a NUL beside each.
    if "\0" in text:
        raise KpiError(f"The settings file {file} is not UTF-8 text. Save it again as UTF-8.")
    return text
