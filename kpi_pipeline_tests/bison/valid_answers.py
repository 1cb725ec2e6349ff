"""Whole answers as an instance gives them, each with the numbers that it tells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Generic, TypeVar

from hypothesis import strategies as st

from kpi_pipeline.bison import DayCounts, PeriodStats
from kpi_pipeline_tests.bison.damages import Body
from kpi_pipeline_tests.bison.support import DAY, LABELS

T = TypeVar("T")
Write = Callable[[int], int | str]

PERIOD = tuple(DAY + timedelta(days=n) for n in range(5))
LAST = PERIOD[-1]

_WRITES: list[Write] = [int, str]
# No zeros: a number that is lost must show.
_NUMBERS = st.integers(1, 9999)
_MOMENT = "2025-04-14T16:59:21.000000Z"


@dataclass(frozen=True)
class Valid(Generic[T]):
    """An answer, and what is to be read from it."""

    body: Body
    truth: T


def series(
    counts: Mapping[str, Mapping[date, int]], write: Write = int
) -> Valid[dict[date, DayCounts]]:
    """A series of DAY to LAST; a day that no label lists is a day of zeros."""
    lines = [
        {
            "label": label,
            "color": "#123456",
            "dates": [[day.isoformat(), write(number)] for day, number in line.items()],
        }
        for label, line in counts.items()
    ]
    fields = {label: label.lower().replace(" ", "_") for label in counts}
    truth = {
        day: DayCounts(**{fields[label]: line.get(day, 0) for label, line in counts.items()})
        for day in PERIOD
    }
    return Valid({"data": lines}, truth)


def plan(numbers: Sequence[int], write: Write = int) -> Valid[int]:
    """A sending plan of one campaign for each number."""
    plans = [
        {
            "emails_being_sent": write(number),
            "campaign_id": 40 + place,
            "campaign": {"id": 40 + place, "name": f"Café {place}", "status": 2},
        }
        for place, number in enumerate(numbers)
    ]
    return Valid({"data": plans}, sum(numbers))


def stats(truth: PeriodStats, write: Write = int) -> Valid[PeriodStats]:
    """The totals of a period, beside some of those that we leave."""
    body = {
        "emails_sent": write(truth.emails_sent),
        "total_leads_contacted": write(400),
        "opened": write(77),
        "unique_opens_per_contact": write(66),
        "unique_replies_per_contact": write(truth.replied),
        "unique_replies_per_contact_percentage": "7.75",
        "bounced": write(truth.bounced),
        "unsubscribed": write(truth.unsubscribed),
        "interested": write(truth.interested),
    }
    return Valid({"data": body}, truth)


def user(number: int, team: int, parent: int) -> Valid[int]:
    """Whose key it is; the workspace's id, which stands beside the user's and the parent's."""
    acting = {
        "id": team,
        "name": "Café Ünic",
        "personal_team": False,
        "main": True,
        "parent_id": parent,
        "created_at": _MOMENT,
        "updated_at": _MOMENT,
    }
    who = {"id": number, "name": "Inès", "email": "ines@mill.example", "team": acting}
    return Valid({"data": who}, team)


def page(ids: Sequence[int], number: int, last: int) -> dict[str, Any]:
    """One page of a list of workspaces, two a page; beyond the last one it is empty."""
    shown = ids[2 * number - 2 : 2 * number]
    address = "https://bison.example/api/workspaces/v1.1?page="
    return {
        "data": [{"id": id, "name": f"Café {id}", "main": False} for id in shown],
        "links": {
            "first": f"{address}1",
            "last": f"{address}{last}",
            "prev": f"{address}{number - 1}" if number > 1 else None,
            "next": f"{address}{number + 1}" if number < last else None,
        },
        "meta": {
            "current_page": number,
            "from": 2 * number - 1 if shown else None,
            "last_page": last,
            "per_page": 2,
            "to": 2 * number - 2 + len(shown) if shown else None,
            "total": len(ids),
        },
    }


@st.composite
def valid_series(draw: st.DrawFn) -> Valid[dict[date, DayCounts]]:
    """A series that lists some of its days."""
    listed = draw(st.lists(st.sampled_from(PERIOD), unique=True, min_size=1))
    counts = {label: {day: draw(_NUMBERS) for day in listed} for label in LABELS}
    return series(counts, draw(st.sampled_from(_WRITES)))


@st.composite
def valid_plans(draw: st.DrawFn) -> Valid[int]:
    """A sending plan of up to four campaigns, and one at least."""
    numbers = draw(st.lists(_NUMBERS, min_size=1, max_size=4))
    return plan(numbers, draw(st.sampled_from(_WRITES)))


@st.composite
def valid_stats(draw: st.DrawFn) -> Valid[PeriodStats]:
    """The totals of a period."""
    totals = PeriodStats(*(draw(_NUMBERS) for _ in range(5)))
    return stats(totals, draw(st.sampled_from(_WRITES)))


@st.composite
def valid_users(draw: st.DrawFn) -> Valid[int]:
    """Whose key it is."""
    return user(*draw(st.lists(_NUMBERS, min_size=3, max_size=3, unique=True)))
