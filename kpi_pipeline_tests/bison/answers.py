"""Answers with numbers: whole ones, and what the client reads from whole or damaged ones."""

import json
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from itertools import islice
from typing import Any, Generic, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    ClientOptions,
    DayCounts,
    PeriodStats,
    WorkspaceReader,
    WorkspaceRef,
    WrongWorkspace,
)
from kpi_pipeline_tests.bison.support import (
    DAY,
    HARBOR,
    LABELS,
    WORKSPACE_KEY,
    client_for,
    line,
    run,
)

T = TypeVar("T")
Body = Any
Path = tuple[str | int, ...]
Write = Callable[[int], int | str]

PERIOD = tuple(DAY + timedelta(days=n) for n in range(5))
IDS = [7, 9, 12]
TOTALS = PeriodStats(emails_sent=990, interested=5, bounced=12, unsubscribed=3, replied=31)
# Many more than the lists in these tests have pages.
MOST_PAGES = 30

# Markers of what Python's JSON writer can't write: a name that comes twice in one object, and a
# control character without its escape.
AGAIN = "␆"
RAW_CONTROL = "␇"

# The same examples in every run, and no time limit: other work shares the machine.
careful = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

_MOMENT = "2025-04-14T16:59:21.000000Z"
# No zeros: a number that is lost must show.
_NUMBERS = st.integers(1, 9999)
_WRITES: st.SearchStrategy[Write] = st.sampled_from([int, str])


def examples(items: Iterable[T]) -> Iterator[T]:
    """All of `items` with the profile `long`; else each fifth, from a random start."""
    step = 1 if settings().max_examples > 100 else 5
    return islice(items, random.randrange(step), None, step)


def encoded(body: Body) -> bytes:
    """The JSON text of a body, damaged or not."""
    text = json.dumps(body, ensure_ascii=False)
    return text.replace(AGAIN, "").replace(RAW_CONTROL, "\x07").encode()


@dataclass(frozen=True)
class Valid(Generic[T]):
    """An answer, and what is to be read from it."""

    body: Body
    truth: T


def series(
    counts: Mapping[str, Mapping[date, int]], write: Write = int
) -> Valid[dict[date, DayCounts]]:
    """A series of PERIOD; a day that no label lists is a day of zeros."""
    lines = [
        line(label, ((day, write(count)) for day, count in days.items()))
        for label, days in counts.items()
    ]
    fields = {label: label.lower().replace(" ", "_") for label in counts}
    truth = {
        day: DayCounts(**{fields[label]: days.get(day, 0) for label, days in counts.items()})
        for day in PERIOD
    }
    return Valid({"data": lines}, without_opens(truth))


def without_opens(days: Mapping[date, DayCounts]) -> dict[date, DayCounts]:
    """The counts that feed numbers: a damaged line of opens is as good as none."""
    return {
        day: replace(counts, total_opens=None, unique_opens=None) for day, counts in days.items()
    }


@st.composite
def any_series(draw: st.DrawFn) -> Valid[dict[date, DayCounts]]:
    """A series that lists some of its days."""
    days = draw(st.lists(st.sampled_from(PERIOD), unique=True, min_size=1))
    counts = {label: {day: draw(_NUMBERS) for day in days} for label in LABELS}
    return series(counts, draw(_WRITES))


def plan(emails: Sequence[int], write: Write = int) -> Valid[int]:
    """A sending plan with one campaign for each number of emails."""
    plans = [
        {
            "emails_being_sent": write(number),
            "campaign_id": 40 + place,
            "campaign": {"id": 40 + place, "name": f"Café {place}", "status": 2},
        }
        for place, number in enumerate(emails)
    ]
    return Valid({"data": plans}, sum(emails))


def stats(truth: PeriodStats, write: Write = int) -> Valid[PeriodStats]:
    """The totals of a period, beside some that the client ignores."""
    counts = asdict(truth) | {"unique_replies_per_contact": truth.replied}
    del counts["replied"]
    counts |= {"total_leads_contacted": 400, "opened": 77, "unique_opens_per_contact": 66}
    body = {name: write(count) for name, count in counts.items()}
    return Valid({"data": body | {"unique_replies_per_contact_percentage": "7.75"}}, truth)


def user(number: int, team: int, parent: int, names: Sequence[str] = ("team",)) -> Valid[int]:
    """Whose API key it is; beside the workspace's id are the user's and the parent's."""
    acting = {"id": team, "name": "Café Ünic", "main": True, "parent_id": parent}
    acting |= {"personal_team": False, "created_at": _MOMENT, "updated_at": _MOMENT}
    who = {"id": number, "name": "Inès", "email": "ines@mill.example"}
    return Valid({"data": who | dict.fromkeys(names, acting)}, team)


def page(number: int) -> dict[str, Any]:
    """One of the two pages of the list of the workspaces IDS, two a page; any other is empty."""
    ids = IDS[2 * number - 2 : 2 * number]
    pages = {"first": 1, "last": 2, "prev": number - 1, "next": number + 1 if number < 2 else 0}
    address = "https://bison.example/api/workspaces/v1.1?page="
    return {
        "data": [{"id": id, "name": f"Café {id}", "main": False} for id in ids],
        "links": {name: f"{address}{n}" if n else None for name, n in pages.items()},
        "meta": {
            "current_page": number,
            "from": 2 * number - 1 if ids else None,
            "last_page": 2,
            "per_page": 2,
            "to": 2 * number - 2 + len(ids) if ids else None,
            "total": len(IDS),
        },
    }


@dataclass(frozen=True)
class Wire:
    """An answer as it comes over the network."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> httpx.Response:
        """The response, not decoded yet, with the length of the body in its headers."""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(self.body))}
        return httpx.Response(
            self.status, headers=headers | dict(self.headers), stream=httpx.ByteStream(self.body)
        )


def read_series(wire: Wire) -> dict[date, DayCounts] | None:
    """The counts of PERIOD that feed numbers, or None where the client rejects the answer."""

    async def read(reader: WorkspaceReader) -> dict[date, DayCounts]:
        return without_opens((await reader.daily_series(PERIOD[0], PERIOD[-1])).days)

    return _read_as_harbor(lambda request: wire, read)


def read_plan(wire: Wire) -> int | None:
    """The emails planned for today."""
    return _read_as_harbor(lambda request: wire, lambda reader: reader.sending_plan("today"))


def read_pages_of_plan(page: Callable[[int], Wire]) -> int | None:
    """The emails planned for today, by an instance with these pages."""
    return _read_as_harbor(_by_number(page), lambda reader: reader.sending_plan("today"))


def read_stats(wire: Wire) -> PeriodStats | None:
    """The totals of DAY."""
    return _read_as_harbor(lambda request: wire, lambda reader: reader.stats(DAY, DAY))


def read_team(wire: Wire) -> int | None:
    """The workspace to which the client thinks the API key belongs."""
    elsewhere = WorkspaceRef("far-away", "main", bison_workspace_id=10**6)

    async def read(client: BisonClient) -> int:
        try:
            await client.check_key(elsewhere, WORKSPACE_KEY)
        except WrongWorkspace as wrong:
            return int(re.findall(r"belongs to workspace (\d+)", wrong.what)[0])
        return elsewhere.bison_workspace_id

    return _read(lambda request: wire, read)


def read_list(page: Callable[[int], Wire]) -> list[int] | None:
    """The ids of the workspaces, in order, from an instance with these pages."""

    async def read(client: BisonClient) -> list[int]:
        return sorted(workspace.id for workspace in await client.list_workspaces())

    return _read(_by_number(page), read)


def _by_number(page: Callable[[int], Wire]) -> Callable[[httpx.Request], Wire]:
    # A walk over more than MOST_PAGES is a failure of the test.
    numbers: list[int] = []

    def answer(request: httpx.Request) -> Wire:
        numbers.append(int(request.url.params["page"]))
        assert len(numbers) <= MOST_PAGES, "the walk does not end"
        return page(numbers[-1])

    return answer


def _read_as_harbor(
    answer: Callable[[httpx.Request], Wire], read: Callable[[WorkspaceReader], Awaitable[T]]
) -> T | None:
    async def work(client: BisonClient) -> T:
        return (await client.read_as(HARBOR, WORKSPACE_KEY, read)).value

    return _read(answer, work)


def _read(
    answer: Callable[[httpx.Request], Wire], read: Callable[[BisonClient], Awaitable[T]]
) -> T | None:
    # Only the client's own errors count as rejections; any other fails the test.
    async def handler(request: httpx.Request) -> httpx.Response:
        return answer(request).response()

    async def work() -> T:
        async with client_for(handler, options=ClientOptions(attempts=1)) as client:
            return await read(client)

    try:
        return run(work())
    except BisonError:
        return None


@dataclass(frozen=True)
class Kind:
    """An answer that numbers come from: how it is read, one of it, and any of it.

    Damage spares the parts of the one at `spared`, which are like others. The lists at `uncounted`
    do not say how many entries they have.
    """

    read: Callable[[Wire], object]
    one: Valid[Any]
    others: st.SearchStrategy[Valid[Any]]
    uncounted: tuple[Path, ...] = ()
    spared: tuple[Path, ...] = ()


def _listed(number: int) -> Kind:
    """One page of a list, whose other page is whole."""

    def read(wire: Wire) -> list[int] | None:
        return read_list(lambda n: wire if n == number else Wire(encoded(page(n))))

    valid = Valid(page(number), IDS)
    return Kind(read, valid, st.just(valid))


# One day of five: its loss shows, and each further day would take a second longer.
_COUNTS = {label: {DAY: number} for number, label in enumerate(LABELS, start=11)}
_OTHER_LINES = tuple(
    ("data", place) for place, label in enumerate(LABELS) if label not in ("Sent", "Bounced")
)
_PLANS = st.builds(plan, st.lists(_NUMBERS, min_size=1, max_size=4), _WRITES)
_STATS = st.builds(stats, st.builds(PeriodStats, *[_NUMBERS] * 5), _WRITES)
_NAMES = st.sampled_from([["team"], ["workspace"], ["team", "workspace"]])
_USERS = st.builds(
    lambda ids, names: user(ids[0], ids[1], ids[2], names),
    st.lists(_NUMBERS, min_size=3, max_size=3, unique=True),
    _NAMES,
)

KINDS = {
    "series": Kind(read_series, series(_COUNTS), any_series(), spared=_OTHER_LINES),
    "plan": Kind(read_plan, plan([40, 2]), _PLANS, uncounted=(("data",),)),
    "stats": Kind(read_stats, stats(TOTALS, str), _STATS),
    "user": Kind(read_team, user(3, 7, 1, ["workspace"]), _USERS),
    "first page of a list": _listed(1),
    "last page of a list": _listed(2),
}
of_every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
