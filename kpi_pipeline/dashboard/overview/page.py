"""`GET /`: all clients on one page, those with a problem first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kpi_pipeline.checks.freshness import NIGHTLY_SYNC
from kpi_pipeline.dashboard.formatting import age
from kpi_pipeline.dashboard.live import LiveView, hub, stream
from kpi_pipeline.dashboard.marks import is_from_future
from kpi_pipeline.dashboard.overview.columns import COLUMNS, GROUPS, SHOWN, SORTABLE, Column
from kpi_pipeline.dashboard.overview.rows import RowInputs, row_html
from kpi_pipeline.dashboard.overview.totals import (
    Badge,
    Totals,
    badge,
    badge_of_past,
    data_from,
    totals,
)
from kpi_pipeline.dashboard.overview.view import PROBLEM, RATES, STATUSES, View, read_view
from kpi_pipeline.dashboard.paging import PAGE_SIZE
from kpi_pipeline.dashboard.site import Site, site
from kpi_pipeline.db.dashboard.overview import (
    NUMBERS,
    ClientDay,
    ClientNumbers,
    read_client_days,
    read_numbers,
)
from kpi_pipeline.domain.client_problems import Problem
from kpi_pipeline.domain.formatting import whose_day
from kpi_pipeline.domain.standing import Standing, daily_quota, standing

_URGENCY = {it: place for place, it in enumerate(Standing)}
# A link with more workspaces would be longer than some proxies take.
_MOST_IN_A_LINK = 50


@dataclass(frozen=True)
class Chip:
    """A filter by status: its name, the number of clients, and whether it is chosen."""

    status: str
    name: str
    count: int
    chosen: bool


@dataclass(frozen=True)
class OverviewPage:
    """What the overview shows: `clients` of `all_clients` pass the filters, `rows` are a page of
    them, as HTML.

    `with_row` counts all clients that have a row of the day. `listed` are the workspaces of the
    page in their order, those included whose rows are not read.
    """

    view: View
    now: datetime
    badge: Badge
    totals: Totals
    chips: Sequence[Chip]
    rows: Sequence[Markup]
    listed: tuple[str, ...]
    columns: Sequence[Column]
    clients: int
    all_clients: int
    with_row: int
    first: int
    pages: int
    csv_path: str
    whose_day: str


@dataclass(frozen=True)
class _Seen:
    """A client with what places it in the list."""

    client: ClientDay
    standing: Standing
    problems: Sequence[Problem]
    data_from: datetime | None

    @property
    def urgency(self) -> tuple[object, ...]:
        """The order of the start: problems, then who is furthest from the target."""
        worst = min((it.severity != "ERROR" for it in self.problems), default=2)
        progress = self.client.progress
        by_progress = (progress is None, progress or 0.0)
        return worst, _URGENCY[self.standing], by_progress, self.name

    @property
    def name(self) -> tuple[str, str]:
        """What orders clients by name."""
        return self.client.label.casefold(), self.client.workspace


def overview(request: Request) -> Response:
    """The page of all clients."""
    of = site(request)
    view = read_view(request, of.today())
    # Read before the numbers: what changes meanwhile is then sent to the page.
    version = hub(request).version
    with of.engine.connect() as connection:
        page = read_page(of, connection, view)
    return of.render(request, "overview/page.html", **values(page), version=version)


def live(request: Request) -> Response:
    """What changes on the page with the same query, as server-sent events; none of a past day."""
    of = site(request)
    view = read_view(request, of.today())
    shown = LiveView(("overview", view), OpenPages(of, view))
    return stream(request, shown if view.look.is_today else None)


ROUTES = [Route("/", overview), Route("/live", live)]


def values(page: OverviewPage) -> dict[str, Any]:
    """What the templates of the overview use, beside what all templates do."""
    return {
        "page": page,
        "view": page.view,
        "look": page.view.look,
        "all_columns": COLUMNS.values(),
        "groups": GROUPS,
        "usual_columns": SHOWN,
        "sortable": SORTABLE,
        "rates": RATES,
        "page_size": PAGE_SIZE,
        "yesterday": page.view.look.url(page.view.look.today - timedelta(days=1)),
        "oob": False,
    }


class OpenPages:
    """Renders what changes on the open pages of a view, of which it knows the list of clients."""

    def __init__(self, of: Site, view: View) -> None:
        self._of, self._view = of, view
        self._listed: tuple[str, ...] | None = None
        self._has_rows = True

    def __call__(self, only: frozenset[str] | None) -> str:
        """The elements that change, each in place of the one of the same id.

        `only` are the clients that changed; None: anything may have, so the list is there as a
        whole; an empty set: time has passed, which changes the badge, and what came before.

        Clients come and go at once. They change places when time has passed: not so often that
        nobody can read the list.
        """
        page = self._read(only)
        time_alone = only is not None and not only
        if only is not None and self._listed is not None:
            same = set(page.listed) == set(self._listed) and bool(page.with_row) == self._has_rows
            if not same or (time_alone and page.listed != self._listed):
                only = None
                page = self._read(None)
        if only is None or self._listed is None:
            self._listed, self._has_rows = page.listed, bool(page.with_row)
        return self._of.part(
            f"overview/{'_badge' if time_alone and only is not None else '_changes'}.html",
            **{**values(page), "whole": only is None, "oob": True, "now": page.now},
        )

    def _read(self, only: frozenset[str] | None) -> OverviewPage:
        with self._of.engine.connect() as connection:
            return read_page(self._of, connection, self._view, only)


def read_page(
    of: Site, connection: Connection, view: View, only: frozenset[str] | None = None
) -> OverviewPage:
    """Read what a view shows, in two queries; its rows are those of `only`, unless it is None."""
    now, today = of.now(), view.look.today
    number = SORTABLE.get(view.sort)
    clients, problems = read_client_days(
        connection, view.day, today, number if number in NUMBERS else None
    )
    if not view.look.is_today:
        # The checks are about the rows as they are now.
        problems = {}
    seen = [
        _Seen(
            it,
            standing(
                it.positive_replies_mtd, it.projection_positive_replies_eom, it.monthly_kpi_target
            ),
            problems.get(it.workspace, ()),
            data_from(it, now, of.day_zone),
        )
        for it in clients
    ]
    named = [it for it in seen if _has_name(it.client, view) and _within(it.client, view)]
    chosen = _in_order([it for it in named if _has_status(it, view.status)], view)
    pages = max(1, -(-len(chosen) // PAGE_SIZE))
    first = (min(view.page, pages) - 1) * PAGE_SIZE
    shown = chosen[first : first + PAGE_SIZE]
    listed = tuple(it.client.workspace for it in shown)
    if only is not None:
        shown = [it for it in shown if it.client.workspace in only]
    numbers = read_numbers(connection, [it.client.workspace for it in shown], view.day)
    return OverviewPage(
        view=view,
        now=now,
        badge=_badge(of, view, seen, now),
        totals=totals([it.client for it in chosen]),
        chips=_chips(named, view),
        rows=[_row(of, it, numbers[it.client.workspace], view, now) for it in shown],
        listed=listed,
        columns=[COLUMNS[key] for key in view.cols],
        clients=len(chosen),
        all_clients=len(seen),
        with_row=sum(it.client.has_row for it in seen),
        first=first,
        pages=pages,
        csv_path=_csv_path(view, chosen),
        whose_day=whose_day(of.day_zone, of.timezone),
    )


def _row(of: Site, seen: _Seen, numbers: ClientNumbers, view: View, now: datetime) -> Markup:
    times = [it for it in (seen.data_from, seen.client.happened_at) if it is not None and it <= now]
    at = max(times, default=None)
    inputs = RowInputs(
        client=seen.client,
        found=numbers,
        standing=seen.standing,
        problems=tuple(seen.problems),
        cols=view.cols,
        cards=view.layout == "cards",
        query=view.look.query,
        day=view.day,
        today=view.look.today,
        data_from=at,
        age=age(at, now),
        from_future=is_from_future(seen.client.as_of, now),
        nightly_sync=f"{NIGHTLY_SYNC:%H:%M} {now.astimezone(of.timezone):%Z}",
    )
    return row_html(of, inputs)


def _badge(of: Site, view: View, seen: Sequence[_Seen], now: datetime) -> Badge:
    clients = [it.client for it in seen]
    if not view.look.is_today:
        return badge_of_past(clients, view.day, of.day_zone)
    known = {it.client.workspace: it.data_from for it in seen}
    return badge(clients, known, now, of.settings.stale_after)


def _has_name(client: ClientDay, view: View) -> bool:
    wanted = view.q.casefold()
    return wanted in client.label.casefold() or wanted in client.workspace


def _within(client: ClientDay, view: View) -> bool:
    """Whether each rate is within the bounds; one that is missing is within none."""
    for bound, limit in view.bounds:
        rate, _, side = bound.rpartition("_")
        value = client.progress if rate == "progress" else getattr(client, RATES[rate])
        if value is None or (value < limit if side == "min" else value > limit):
            return False
    return True


def _has_status(seen: _Seen, status: str) -> bool:
    if status == PROBLEM:
        return bool(seen.problems)
    return not status or seen.standing == STATUSES[status]


def _in_order(seen: Sequence[_Seen], view: View) -> list[_Seen]:
    if not view.sort:
        return sorted(seen, key=lambda it: it.urgency)
    in_order = sorted(seen, key=lambda it: it.name, reverse=view.sort == "name" and view.descending)
    if view.sort == "name":
        return in_order
    numbers = {it.client.workspace: _sorted_by(it.client, view) for it in seen}
    known = [it for it in in_order if numbers[it.client.workspace] is not None]
    known.sort(key=lambda it: numbers[it.client.workspace], reverse=view.descending)
    # Missing is neither large nor small.
    return known + [it for it in in_order if numbers[it.client.workspace] is None]


def _sorted_by(client: ClientDay, view: View) -> Any:
    if view.sort == "daily_quota":
        return daily_quota(
            client.monthly_sending_target,
            client.emails_sent_mtd,
            client.emails_sent_today,
            view.day,
        )
    return client.sorted_by


def _chips(seen: Sequence[_Seen], view: View) -> list[Chip]:
    counts = Counter(it.standing for it in seen)
    chips = [Chip("", "all", len(seen), not view.status)]
    # In the order of the eye: what is good, and then what is not.
    for it in (Standing.ABOVE_TARGET, Standing.ON_TRACK, Standing.BEHIND, Standing.NO_TARGET,
               Standing.NO_DATA):  # fmt: skip
        status = it.replace(" ", "-")
        chips.append(Chip(status, it, counts[it], view.status == status))
    if view.look.is_today:
        with_problem = sum(bool(it.problems) for it in seen)
        chips.append(Chip(PROBLEM, "need attention", with_problem, view.status == PROBLEM))
    return chips


def _csv_path(view: View, chosen: Sequence[_Seen]) -> str:
    """The address of the rows that are shown; of all clients' if there are too many for a link."""
    path = f"/api/client-metrics?date={view.day}&format=csv"
    if view.is_filtered and len(chosen) <= _MOST_IN_A_LINK:
        path += f"&workspace={','.join(it.client.workspace for it in chosen)}"
    return path
