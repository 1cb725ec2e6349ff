"""Text of a message: problem, clients, since when, numbers, where to look, what to do.

For phones and chat rooms: plain text, always under 4 KB.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.alerts.rules import Notice, NoticeKind
from kpi_pipeline.domain.formatting import duration, listed, moment

MAX_BYTES = 4_000

_MAX_TITLE = 160
_MAX_TEXT = 600
_MAX_LINE = 240
_MAX_LINES = 5
# Reserved for "… and 12 more".
_RESERVED = 120


@dataclass(frozen=True)
class Message:
    """One message. `bad` is None for one without a new or resolved problem."""

    title: str
    body: str
    bad: bool | None


def compose(notices: Sequence[Notice], *, timezone: ZoneInfo, page: str, now: datetime) -> Message:
    """One message of all notices; `page` is the URL of Dagster's UI, times are in `timezone`."""
    parts = [_part(it, timezone, page, now) for it in notices]
    title = _title(notices)
    room = MAX_BYTES - _bytes(title)
    return Message(
        title, _fit(parts, room), any(it.kind is not NoticeKind.RESOLVED for it in notices)
    )


def cut(text: str, longest: int) -> str:
    """The text on one line, cut with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def _title(notices: Sequence[Notice]) -> str:
    bad = [it for it in notices if it.kind is not NoticeKind.RESOLVED]
    resolved = len(notices) - len(bad)
    if len(notices) == 1:
        (only,) = notices
        return cut(f"{_heading(only)}: {only.state.title}", _MAX_TITLE)
    counts = [
        f"{len(bad)} problem{'s' if len(bad) > 1 else ''}" if bad else "",
        f"{resolved} resolved" if resolved else "",
    ]
    named = "; ".join(it.state.title for it in bad or notices)
    return cut(f"KPIs: {', '.join(it for it in counts if it)}: {named}", _MAX_TITLE)


def _heading(notice: Notice) -> str:
    match notice.kind:
        case NoticeKind.RESOLVED:
            return "RESOLVED"
        case NoticeKind.REMINDER:
            return f"STILL {notice.state.severity}"
        case NoticeKind.WORSE:
            return f"WORSE, {notice.state.severity}"
        case NoticeKind.NEW:
            return notice.state.severity


def _part(notice: Notice, timezone: ZoneInfo, page: str, now: datetime) -> str:
    state, problem = notice.state, notice.problem
    heading = f"{_heading(notice)}: {cut(state.title, _MAX_TITLE)}"
    since = moment(state.since, timezone)
    if problem is None:
        lasted = duration((state.ended_at or now) - state.since)
        return f"{heading}\nIt started {since} and lasted {lasted}."
    return "\n".join(
        [
            heading,
            f"Since {since}.",
            *_clients(problem),
            cut(problem.what, _MAX_TEXT),
            *_lines(problem),
            f"See {page.rstrip('/')}{problem.path}",
            f"To mute it for two days: kpi alerts mute {problem.name} --for 2d",
        ]
    )


def _clients(problem: Problem) -> Iterable[str]:
    if problem.clients:
        yield f"Clients ({len(problem.clients)}): {listed(problem.clients)}"


def _lines(problem: Problem) -> Iterable[str]:
    for line in problem.lines[:_MAX_LINES]:
        yield f"- {cut(_line(line), _MAX_LINE)}"
    left = max(len(problem.lines) - _MAX_LINES, 0) + problem.more
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
    body = "\n\n".join(fitting).encode()
    return body[: room - 3].decode(errors="ignore") + "…" if len(body) > room else body.decode()


def _bytes(text: str) -> int:
    return len(text.encode())
