"""The text of a message: what, which clients, since when, the numbers, where to look, what to do.

It goes to phones and chat rooms: plain text, under 4 KB, whatever happened.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from kpi_pipeline.alerts.problem import Line, Trouble
from kpi_pipeline.alerts.rules import Kind, Notice
from kpi_pipeline.domain.formatting import duration, listed, moment

MOST_BYTES = 4_000

_LONGEST_TITLE = 160
_LONGEST_TEXT = 600
_LONGEST_LINE = 240
_MOST_LINES = 5
# What stays free for "… and 12 more".
_ROOM_FOR_THE_REST = 120


@dataclass(frozen=True)
class Message:
    """One message; `bad` is None where it tells of no trouble and of no end of one."""

    title: str
    body: str
    bad: bool | None


def compose(notices: Sequence[Notice], *, timezone: ZoneInfo, page: str, now: datetime) -> Message:
    """One message of all notices; `page` is the address of Dagster's page, times are local."""
    parts = [_part(it, timezone, page, now) for it in notices]
    title = _title(notices)
    room = MOST_BYTES - _bytes(title)
    return Message(title, _fit(parts, room), any(it.kind is not Kind.WELL for it in notices))


def cut(text: str, longest: int) -> str:
    """The text in one line, with an ellipsis where it was longer."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def _title(notices: Sequence[Notice]) -> str:
    bad = [it for it in notices if it.kind is not Kind.WELL]
    well = len(notices) - len(bad)
    if len(notices) == 1:
        (only,) = notices
        return cut(f"{_heading(only)}: {only.state.title}", _LONGEST_TITLE)
    counts = [
        f"{len(bad)} problem{'s' if len(bad) > 1 else ''}" if bad else "",
        f"{well} over" if well else "",
    ]
    told = "; ".join(it.state.title for it in bad or notices)
    return cut(f"KPIs: {', '.join(it for it in counts if it)}: {told}", _LONGEST_TITLE)


def _heading(notice: Notice) -> str:
    match notice.kind:
        case Kind.WELL:
            return "OVER"
        case Kind.STILL:
            return f"STILL {notice.state.severity}"
        case Kind.WORSE:
            return f"WORSE, {notice.state.severity}"
        case Kind.BROKEN:
            return notice.state.severity


def _part(notice: Notice, timezone: ZoneInfo, page: str, now: datetime) -> str:
    state, trouble = notice.state, notice.trouble
    heading = f"{_heading(notice)}: {cut(state.title, _LONGEST_TITLE)}"
    since = moment(state.since, timezone)
    if trouble is None:
        lasted = duration((state.ended_at or now) - state.since)
        return f"{heading}\nIt began {since}, and lasted {lasted}."
    return "\n".join(
        [
            heading,
            f"Since {since}.",
            *_clients(trouble),
            cut(trouble.what, _LONGEST_TEXT),
            *_lines(trouble),
            f"See {page.rstrip('/')}{trouble.path}",
            f"To hear no more of it for two days: kpi alerts mute {trouble.name} --for 2d",
        ]
    )


def _clients(trouble: Trouble) -> Iterable[str]:
    if trouble.clients:
        yield f"Clients ({len(trouble.clients)}): {listed(trouble.clients)}"


def _lines(trouble: Trouble) -> Iterable[str]:
    for line in trouble.lines[:_MOST_LINES]:
        yield f"- {cut(_line(line), _LONGEST_LINE)}"
    left = max(len(trouble.lines) - _MOST_LINES, 0) + trouble.more
    if left:
        yield f"- … and {left} more"


def _line(line: Line) -> str:
    return f"{listed(line.clients, 3)}: {line.text}" if line.clients else line.text


def _fit(parts: Sequence[str], room: int) -> str:
    """As many whole parts as there is room for, and how many are left out."""
    fitting: list[str] = []
    for part in parts:
        used = sum(_bytes(it) + 2 for it in fitting)
        if used + _bytes(part) + _ROOM_FOR_THE_REST > room and fitting:
            left = len(parts) - len(fitting)
            fitting.append(f"… and {left} more: `kpi alerts list` shows them all.")
            break
        fitting.append(part)
    body = "\n\n".join(fitting).encode()
    return body[: room - 3].decode(errors="ignore") + "…" if len(body) > room else body.decode()


def _bytes(text: str) -> int:
    return len(text.encode())
