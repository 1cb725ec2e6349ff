"""What a sandbox is started with, as an object and as words of a command line."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from zoneinfo import ZoneInfo

from bison_sandbox.faults import KINDS, Fault, fault_from
from bison_sandbox.requests import InvalidError
from bison_sandbox.variants import Variants

MOST_CLIENTS = 10_000
HIGHEST_FIRST_ID = 1_000_000_000
HIGHEST_PACE = 100_000


class SandboxError(Exception):
    """The sandbox can't start as asked; the message is a sentence that says what to change."""


@dataclass(frozen=True)
class SandboxOptions:
    """What a sandbox is started with.

    - `port`: 0 takes any free one.
    - `clients`: the number of workspaces at the start; with `seed` it determines all data.
    - `calls_per_second`: the limit that all calls of the instance share; 0 for no limit.
    - `longest_queue`: how many seconds a call waits for that limit at most; one that would have to
      wait longer is answered 429. The real one lets calls wait for as long as half a minute.
    - `latency`: mean duration of a call in seconds, besides that limit; 0 for none.
    - `today`: the sandbox's date when it starts, at the real time of day; None for the real date.
    - `timezone`: where a day begins and ends.
    - `first_workspace_id`: workspace ids count up from it; None draws ids with gaps.
    - `variants`, `faults`: those in force at the start.
    - `live`: leads turn interested while it runs, `live_pace` times as many as in a real agency of
      its size.

    Raises SandboxError for a value out of range.
    """

    host: str = "127.0.0.1"
    port: int = 8025
    clients: int = 26
    seed: int = 7
    calls_per_second: float = 9.5
    longest_queue: float = 35.0
    latency: float = 0.25
    today: date | None = None
    timezone: str = "America/Chicago"
    first_workspace_id: int | None = None
    variants: Variants = field(default_factory=Variants)
    faults: tuple[Fault, ...] = ()
    live: bool = False
    live_pace: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise SandboxError(f"The port must be between 0 and 65535, not {self.port}.")
        if not 1 <= self.clients <= MOST_CLIENTS:
            raise SandboxError(
                f"The number of clients must be between 1 and {MOST_CLIENTS}, not {self.clients}."
            )
        first_id = self.first_workspace_id
        if first_id is not None and not 1 <= first_id <= HIGHEST_FIRST_ID:
            raise SandboxError(
                f"The first workspace id must be between 1 and {HIGHEST_FIRST_ID}, not {first_id}."
            )
        if self.calls_per_second < 0:
            raise SandboxError("The calls per second must be 0 (no limit) or more.")
        if not self.longest_queue >= 0:
            raise SandboxError("The longest queue must be 0 (none) or more seconds.")
        if self.latency < 0:
            raise SandboxError("The latency must be 0 (none) or more seconds.")
        if not 0 < self.live_pace <= HIGHEST_PACE:
            raise SandboxError(
                f"The live pace must be above 0 and at most {HIGHEST_PACE}, not {self.live_pace:g}."
            )
        try:
            ZoneInfo(self.timezone)
        except (KeyError, OSError, ValueError) as error:
            raise SandboxError(
                f"There is no time zone {self.timezone!r}: give one as Area/City, for example "
                "America/Chicago."
            ) from error


def variants_from_words(words: Sequence[str]) -> Variants:
    """Variants from texts `NAME=VALUE`; later ones win.

    Raises SandboxError, which names the allowed values.
    """
    variants = Variants()
    defaults = asdict(variants)
    for word in words:
        values = {
            name: _like(defaults.get(name), text) for name, text in _pairs([word], word).items()
        }
        try:
            variants = variants.changed(values)
        except InvalidError as error:
            raise _sandbox_error(word, error) from error
    return variants


def fault_from_words(text: str) -> Fault:
    """A fault from a text `KIND name=value …`, quoted as for a shell.

    A value is parsed as JSON if the option is no text and the value is valid JSON. Raises
    SandboxError, which names what is allowed.
    """
    try:
        kind, *words = shlex.split(text) or [""]
    except ValueError as error:
        raise SandboxError(f"The sandbox can't read {text!r}: its quotes don't match.") from error
    values = {
        name: value if name in _text_options(kind) else _json_or_text(value)
        for name, value in _pairs(words, text).items()
    }
    try:
        return fault_from({**values, "kind": kind})
    except InvalidError as error:
        raise _sandbox_error(text, error) from error


def _pairs(words: Iterable[str], text: str) -> Mapping[str, str]:
    pairs = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise SandboxError(f"The sandbox can't read {text!r}: {word!r} is not NAME=VALUE.")
        pairs[name] = value
    return pairs


def _sandbox_error(text: str, error: InvalidError) -> SandboxError:
    sentences = [sentence for each in (error.errors or {}).values() for sentence in each]
    return SandboxError(f"The sandbox can't read {text!r}. {' '.join(sentences)}")


def _like(default: object, text: str) -> object:
    """A text converted to the type of a variant's default; the text itself if that fails."""
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text, text)
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            return text
    return text


def _text_options(kind: str) -> set[str]:
    fields = KINDS.get(kind, Fault).model_fields
    return {name for name, field in fields.items() if field.annotation in (str, str | None)}


def _json_or_text(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value
