"""The `workspace` key of a client: made once from its name, and never changed."""

import re
import unicodedata
from collections.abc import Collection

# Dagster checks no dynamic partition key; a key with "|" vanishes from its grid.
_LONGEST = 63
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "&": " and "}
)


def make_slug(name: str, taken: Collection[str]) -> str:
    """A key for a client called `name` that is none of `taken`.

    It matches `^[a-z0-9][a-z0-9_-]{0,62}$`. Accents are dropped; what no ASCII letter stands for
    is left out; a name of such letters alone gives `client`. A second `acme` becomes `acme-2`.
    """
    plain = unicodedata.normalize("NFKD", name.strip().casefold().translate(_LETTERS))
    plain = plain.replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    ascii_only = plain.encode("ascii", "ignore").decode()
    stem = re.sub(r"[^a-z0-9]+", "-", ascii_only)[:_LONGEST].strip("-") or "client"
    slug, number = stem, 1
    while slug in taken:
        number += 1
        ending = f"-{number}"
        slug = stem[: _LONGEST - len(ending)].rstrip("-") + ending
    return slug
