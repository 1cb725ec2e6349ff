"""Text of a message: what happened to whom since when, the numbers, what to do, and where to look.

For phones and chat rooms: plain text, always under 4 KB.
"""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.alerts.rules import Notice, NoticeKind
from kpi_pipeline.alerts.wording import are_named, what_is_well, whom
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, mute_name
from kpi_pipeline.domain.formatting import counted, duration, listed, moment
from kpi_pipeline.domain.outside_names import for_chat

MAX_BYTES = 4_000

_MAX_TITLE = 160
_MAX_TEXT = 600
_MAX_LINE = 240
_MAX_LINES = 5
# Reserved for "… and 12 more".
_RESERVED = 120


class MessageType(StrEnum):
    """What a message brings, in apprise's words, which receivers of JSON read as its `type`."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Message:
    """One message."""

    title: str
    body: str
    type: MessageType = MessageType.INFO


TEST_MESSAGE = Message(
    "A test of kpi_pipeline's alerts", "If you read this, alerts reach you here. Nothing is wrong."
)


def compose(notices: Sequence[Notice], *, timezone: ZoneInfo, page: str, now: datetime) -> Message:
    """One message of all notices; `page` is the URL of Dagster's UI, times are in `timezone`."""
    parts = [_part(it, timezone, page, now) for it in notices]
    title = _title(notices)
    return Message(title, _fit(parts, MAX_BYTES - _bytes(title)), _type(notices))


def cut(text: str, longest: int) -> str:
    """The text on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def _type(notices: Sequence[Notice]) -> MessageType:
    severities = {it.problem.severity for it in notices if it.problem is not None}
    if not severities:
        return MessageType.SUCCESS
    return MessageType.FAILURE if Severity.ERROR in severities else MessageType.WARNING


def _title(notices: Sequence[Notice]) -> str:
    if len(notices) == 1:
        return _heading(notices[0])
    bad = [it for it in notices if it.problem is not None]
    resolved = len(notices) - len(bad)
    counts = [
        counted(len(bad), "problem") if bad else "",
        f"{resolved} resolved" if resolved else "",
    ]
    named = "; ".join(map(_what_happened, bad or notices))
    return cut(f"KPIs: {', '.join(it for it in counts if it)}: {named}", _MAX_TITLE)


def _heading(notice: Notice) -> str:
    return cut(f"{_first_words(notice)}: {_what_happened(notice)}", _MAX_TITLE)


def _first_words(notice: Notice) -> str:
    if notice.problem is None:
        return "RESOLVED"
    severity = notice.problem.severity
    match notice.kind:
        case NoticeKind.REMINDER:
            words = f"STILL {severity}"
        case NoticeKind.WORSE:
            words = f"WORSE, {severity}"
        case _:
            words = f"{severity}"
    return f"{words}, FLAPPING" if notice.flaps else words


def _what_happened(notice: Notice) -> str:
    """What happened to whom: those who joined a problem come first."""
    problem, state = notice.problem, notice.state
    if problem is None:
        return f"{what_is_well(state.names[0], state.title)}{whom(_had_it(state))}"
    if notice.joined and set(notice.joined) < set(problem.clients):
        in_all = counted(len(problem.clients), "client")
        return f"{problem.title}{whom(notice.joined)} as well, {in_all} in all"
    return f"{problem.title}{whom(problem.clients)}"


def _had_it(state: AlertState) -> list[str]:
    """All clients that anybody was alerted to."""
    told = {reason.client for it in state.told.values() for reason in it.reasons}
    return sorted((told | set(state.clients)) - {""})


def _part(notice: Notice, timezone: ZoneInfo, page: str, now: datetime) -> str:
    state, problem = notice.state, notice.problem
    since = moment(state.since, timezone)
    if problem is None:
        ended = state.ended_at or now
        lasted = duration(ended - state.since)
        return (
            f"{_heading(notice)}\n"
            f"It lasted {lasted}: from {since} to {moment(ended, timezone)}.{_flaps(notice)}"
        )
    return "\n".join(
        [
            _heading(notice),
            f"Since {since}{_for_how_long(now - state.since)}.{_flaps(notice)}",
            *_clients(problem, notice.joined),
            *_lines(problem, notice.joined),
            cut(problem.what, _MAX_TEXT),
            f"See {page.rstrip('/')}{problem.path}",
            f"To mute it for two days: kpi alerts mute {shlex.quote(_narrowest(problem))} --for 2d",
        ]
    )


def _for_how_long(passed: timedelta) -> str:
    return f" ({duration(passed)})" if passed >= timedelta(minutes=1) else ""


def _flaps(notice: Notice) -> str:
    if not notice.flaps:
        return ""
    times = f"it began {counted(notice.flaps, 'time')} within 24 hours"
    if notice.problem is None:
        return f" It flapped: {times}."
    return f" It flaps: {times}, so its end is sent only once it stays away."


def _narrowest(problem: Problem) -> str:
    """What to mute to mute nothing else: one client in it, or else the whole problem."""
    all_of_clients = all(it.clients for it in problem.lines)
    if len(problem.clients) == 1 and all_of_clients and not problem.also:
        return mute_name(problem.clients[0], problem.name)
    return problem.name


def _clients(problem: Problem, joined: Sequence[str]) -> Iterable[str]:
    """All clients, those who joined first, where the heading does not name them all."""
    some = bool(joined) and set(joined) < set(problem.clients)
    if some or not are_named(problem.clients):
        rest = [it for it in problem.clients if it not in joined]
        yield f"Clients ({len(problem.clients)}): {listed([*joined, *rest])}"


def _lines(problem: Problem, joined: Sequence[str]) -> Iterable[str]:
    first = set(joined)
    lines = sorted(problem.lines, key=lambda it: not first & set(it.clients))
    for line in lines[:_MAX_LINES]:
        yield f"- {cut(_line(line), _MAX_LINE)}"
    left = max(len(lines) - _MAX_LINES, 0) + problem.more
    if left:
        yield f"- … and {left} more"


def _line(line: Line) -> str:
    return f"{listed(line.clients, 3)}: {line.text}" if line.clients else line.text


def _fit(parts: Sequence[str], room: int) -> str:
    """As many whole parts as fit, and the number of those left out."""
    fitting: list[str] = []
    for part in parts:
        used = sum(_bytes(it) + 2 for it in fitting)
        if used + _bytes(part) + _RESERVED > room and fitting:
            left = len(parts) - len(fitting)
            fitting.append(f"… and {left} more: `kpi alerts list` shows them all.")
            break
        fitting.append(part)
    body = "\n\n".join(fitting)
    if _bytes(body) <= room:
        return body
    while _bytes(body) > room - 3:
        body = body[:-20]
    return f"{body}…"


def _bytes(text: str) -> int:
    """How many bytes of UTF-8 are sent."""
    return len(for_chat(text).encode())
