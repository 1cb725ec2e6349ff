"""The errors of calls to Email Bison, and for each what to do about it."""

import re

from pydantic import SecretStr

from kpi_pipeline.bison.model import KeyUse

MAX_CHARACTERS = 200

# The vendor's document: an integer, a pipe and about 48 alphanumerics; a URL escapes the pipe.
_KEY = re.compile(r"(?<!\d)\d+(?:\||%7[Cc])\w{20,}")
# Letters and digits mixed, longer than any word: a token or a digest.
_RANDOM = re.compile(r"\b(?=\w*\d)(?=\w*[A-Za-z])\w{32,}")
# Names of secrets, such as webhooks_secret_key, and what stands after them.
_NAMED_SECRET = re.compile(
    r"""((?:secret|token|passw|authorization|api[_-]?key|\bbearer\b)[\w-]*+)  # the name
        (\\?["']?\s*[:=]>?\s*\\?["']?(?:bearer\s+)?|\s+(?<=bearer\s))   # what joins them
        (?:(?<=")[^"\\]+|(?<=')[^'\\]+|[^\s"'\\,;&<>()\[\]{}]+)""",
    re.IGNORECASE | re.VERBOSE,
)
# Longer texts are cut before they are searched; what the cut leaves of a word is left out.
_MOST_SEARCHED = 2000
_BROKEN_WORD = re.compile(r"(?<=[^\w|%])[\w|%]+\Z")
_USER_OF_URL = re.compile(r"(?<=://)[^\s/@]+@")
_NOT_TEXT = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff]+")


def excerpt(text: str, *secrets: SecretStr) -> str:
    """`text` on one line, without control characters, keys masked, at most 200 characters.

    Masked are the `secrets`, and what has the form of an API key or of another token.
    """
    line = _bounded(_NOT_TEXT.sub(" ", text).strip())
    for secret in secrets:
        whole = secret.get_secret_value()
        for part in (whole, whole.partition("|")[2]):
            if part:
                line = line.replace(part, "***")
    # Masked before it is cut: half a key would no longer look like one.
    line = _RANDOM.sub("***", _KEY.sub("***", line))
    return line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 1] + "…"


def without_secrets(text: str) -> str:
    """A server's text with every value masked that stands after the name of a secret."""
    return _USER_OF_URL.sub("***@", _NAMED_SECRET.sub(r"\1\2***", _bounded(text)))


def _bounded(text: str) -> str:
    if len(text) <= _MOST_SEARCHED:
        return text
    return _BROKEN_WORD.sub("", text[:_MOST_SEARCHED])


# The names say what happened; all of them are errors, so "Error" would only lengthen them.
# ruff: noqa: N818


class BisonError(Exception):
    """A call to Email Bison that gave no usable answer.

    `client` is the workspace, or "instance NAME" where the call concerns no single client; `call`
    is the method and path; `remedy` says what to do next. `status` is the HTTP status, where it
    made the error, and `message` what the server said, cleaned and cut short. None of it ever holds
    an API key.
    """

    def __init__(
        self,
        client: str,
        call: str,
        what: str,
        remedy: str,
        status: int | None = None,
        message: str = "",
    ) -> None:
        super().__init__(client, call, what, remedy, status, message)
        self.client = client
        self.call = call
        self.what = what
        self.remedy = remedy
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.client}: {self.call} {self.what}. {self.remedy}."


class RejectedKey(BisonError):
    """The API key is not valid, or not for this workspace (401, 403)."""


class MissingKey(BisonError):
    """There is no API key: the client has none, and the instance no master key."""


class WrongWorkspace(BisonError):
    """The API key acts in another workspace than the registry says."""


class WorkspaceGone(BisonError):
    """The workspace does not exist any more (404)."""


class RateLimited(BisonError):
    """Too many calls (429), still after the last try.

    `alone_seconds` is how long this client alone is to wait; 0 where the pacing holds back all.
    """

    alone_seconds = 0.0


class Unavailable(BisonError):
    """Time-outs, broken connections, 408 or 5xx, still after the last try."""


class MalformedAnswer(BisonError):
    """An answer that can't be believed: no JSON, a wrong shape, or a failure with status 200."""


class RefusedRequest(BisonError):
    """The instance rejected the request: a redirect or any other 4xx, such as 422."""


# What to do about each error: sentences without their full stop.

_IN_THE_CSV = "in the CSV and import it (`kpi clients import`)"

MISSING_KEY = (
    f"Give the client an api_key {_IN_THE_CSV}, or give its instance a super-admin key in "
    "KPI_BISON_INSTANCES"
)
MISSING_MASTER_KEY = "Give the instance its super-admin key in KPI_BISON_INSTANCES"
WRONG_REGISTRY = f"Correct the client's bison_workspace_id or its api_key {_IN_THE_CSV}"
SWITCH_TOO_SLOW = f"Run it again later, or give the client an api_key of its own {_IN_THE_CSV}"
KEY_MOVED = (
    "Do not switch workspaces in Email Bison's own pages as the master key's user during a sync, "
    f"or give the client an api_key of its own {_IN_THE_CSV}"
)
GONE = (
    "Check in Email Bison whether the workspace still exists: if not, set the client inactive "
    f"{_IN_THE_CSV}; if so, check the address of its instance in KPI_BISON_INSTANCES"
)
RATE_LIMITED = "Run it again later, or lower KPI_BISON_CALLS_PER_SECOND"
UNAVAILABLE = (
    "Check that Email Bison is up and its address in KPI_BISON_INSTANCES is right, then run it "
    "again"
)
MALFORMED = "No number was taken from it; run it again, and report it to Email Bison if it stays"
ADDRESS = (
    "Check the instance's address in KPI_BISON_INSTANCES: it answers, but not as Email Bison's API "
    "does"
)
REFUSED = "The request does not fit this instance; report it with this message"


def for_key(use: KeyUse) -> str:
    """The remedy for a rejected API key."""
    if use is KeyUse.MASTER:
        return "Give the instance a valid super-admin key in KPI_BISON_INSTANCES"
    return f"Give the client a valid api_key of its workspace {_IN_THE_CSV}"
