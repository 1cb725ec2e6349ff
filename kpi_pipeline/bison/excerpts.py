"""Short, clean quotations of what a server said, safe to show and to log."""

import re

from pydantic import SecretStr

MAX_CHARACTERS = 200

# The vendor's document: an integer, a pipe and about 48 alphanumerics; a URL escapes the pipe.
_KEY = re.compile(r"\d+(?:\||%7[Cc])\w{20,}")
_NOT_TEXT = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff]+")


def excerpt(text: str, *secrets: SecretStr) -> str:
    """`text` on one line, without control characters, keys masked, at most 200 characters."""
    line = _NOT_TEXT.sub(" ", text).strip()
    for secret in secrets:
        whole = secret.get_secret_value()
        for part in (whole, whole.partition("|")[2]):
            if part:
                line = line.replace(part, "***")
    # Masked before it is cut: half a key would no longer look like one.
    line = _KEY.sub("***", line)
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 1] + "…"
