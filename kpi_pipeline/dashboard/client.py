"""`GET /clients/{workspace}`: everything that is known of one client, at one day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from markupsafe import Markup
from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kpi_pipeline.dashboard import client_view as view
from kpi_pipeline.dashboard.live import LiveView, hub, stream
from kpi_pipeline.dashboard.look_back import LookBack, look_back
from kpi_pipeline.dashboard.overview.totals import Badge, badge, badge_of_past, data_from
from kpi_pipeline.dashboard.site import Site, site, visitor
from kpi_pipeline.db.dashboard.client import (
    ClientCard,
    ClientSync,
    Number,
    PositiveReply,
    StoredDay,
    read_card,
    read_days,
    read_positive_replies,
    read_syncs,
)
from kpi_pipeline.db.dashboard.overview import ClientDay
from kpi_pipeline.db.dashboard.problems import read_problems
from kpi_pipeline.db.registry.targets import TargetChange, read_changes, why_not_undone
from kpi_pipeline.domain.calendar import days_in_month, first_of_month, first_of_previous_month
from kpi_pipeline.domain.client_problems import Problem
from kpi_pipeline.domain.formatting import whose_day
from kpi_pipeline.domain.standing import Standing, daily_quota, standing

_ONE_DAY = timedelta(days=1)
_MOST_EDITS = 8
_WAYS = {"webhook": "by webhook", "feed": "by Email Bison's event feed", "file": "by file"}


@dataclass(frozen=True)
class Quota:
    """How many a day are needed from the shown day on to reach each target."""

    positive_replies: int | None
    emails: int | None


@dataclass(frozen=True)
class LastReply:
    """When the last positive reply was, and how it arrived; without `at` only its day is known."""

    at: datetime | None
    day: date
    way: str


@dataclass(frozen=True)
class TargetEdit:
    """A change of targets, and whether it can be taken back now."""

    change: TargetChange
    can_be_undone: bool


@dataclass(frozen=True)
class ClientPage:
    """What the page of one client shows at `look.day`.

    `numbers` are those of the day's row, and `last_month` those of the last day of the month
    before.
    """

    card: ClientCard
    look: LookBack
    day: StoredDay | None
    numbers: Mapping[str, Number]
    last_month: Mapping[str, Number]
    month_before: date
    quota: Quota
    days_left: int
    standing: Standing
    badge: Badge
    last_reply: LastReply | None
    month_chart: Markup
    replies_chart: Markup
    emails_chart: Markup
    lines: Sequence[view.DayLine]
    gaps: Sequence[tuple[date, date]]
    targets: Sequence[view.TargetPeriod]
    edits: Sequence[TargetEdit]
    syncs: Sequence[ClientSync]
    replies: Sequence[PositiveReply]
    problems: Sequence[Problem]
    bison_url: str | None

    @property
    def csv_path(self) -> str:
        """The address of the month's rows as CSV."""
        first = first_of_month(self.look.day)
        query = {"workspace": self.card.workspace, "from": first, "to": self.look.day}
        return f"/api/client-metrics?{urlencode({**query, 'format': 'csv'})}"


def client_page(request: Request) -> Response:
    """The page of one client."""
    of, look = site(request), _look(request)
    # Read before the numbers: what changes meanwhile is then sent to the page.
    version = hub(request).version
    with of.engine.connect() as connection:
        page = read_page(of, connection, _workspace(request), look)
    return of.render(
        request,
        "client/page.html",
        **values(of, page, may_edit=visitor(request).may_edit),
        version=version,
    )


def live(request: Request) -> Response:
    """What changes on a client's page, as server-sent events; none of a past day."""
    of, look, workspace = site(request), _look(request), _workspace(request)
    with of.engine.connect() as connection:
        if read_card(connection, workspace, look.day) is None:
            raise HTTPException(404, f"There is no client {workspace}.")
    may_edit = visitor(request).may_edit
    shown = LiveView(
        ("client", look, may_edit),
        lambda changed: changes(of, workspace, look, changed, may_edit=may_edit),
    )
    return stream(request, shown if look.is_today else None)


def changes(
    of: Site, workspace: str, look: LookBack, changed: frozenset[str] | None, *, may_edit: bool
) -> str:
    """The parts of a client's open pages that change; nothing if only others did."""
    if changed and workspace not in changed:
        return ""
    with of.engine.connect() as connection:
        page = read_page(of, connection, workspace, look)
    # An empty set: time has passed, which changes the badge alone.
    is_time = changed is not None and not changed
    template = "overview/_badge.html" if is_time else "client/_changes.html"
    return of.part(template, **values(of, page, may_edit=may_edit), now=of.now())


def values(of: Site, page: ClientPage, *, may_edit: bool) -> dict[str, Any]:
    """What the templates of this page use, beside what they all do."""
    dagster, workspace = of.settings.page_url, page.card.workspace
    return {
        "page": page,
        "card": page.card,
        "look": page.look,
        "row": page.numbers,
        "table": view.TABLE,
        "ways": _WAYS,
        "partition_url": partial(partition_url, dagster, workspace),
        "run_url": partial(run_url, dagster),
        "whose_day": whose_day(of.day_zone, of.timezone),
        "workspace": workspace,
        "active": page.card.active,
        "may_edit": may_edit,
        "oob": False,
    }


def read_page(of: Site, connection: Connection, workspace: str, look: LookBack) -> ClientPage:
    """Read what the page of a client shows, in six queries.

    Raises:
        HTTPException: 404 if there is no such client.
    """
    day = look.day
    card = read_card(connection, workspace, day)
    if card is None:
        raise HTTPException(404, f"There is no client {workspace}.")
    month_before = first_of_previous_month(day)
    first = min(month_before, day - timedelta(days=view.CHART_DAYS - 1))
    days = read_days(connection, workspace, first, day)
    replies = read_positive_replies(connection, workspace, day)
    syncs = read_syncs(connection, workspace)
    edits = read_changes(connection, workspace)
    row = view.numbers_of(days.get(day))
    on_day, so_far, target = (
        _whole(row[name])
        for name in ("positive_replies_today", "positive_replies_mtd", "monthly_kpi_target")
    )
    emails, sent, plan = (
        _whole(row[name])
        for name in ("emails_sent_today", "emails_sent_mtd", "monthly_sending_target")
    )
    return ClientPage(
        card=card,
        look=look,
        day=days.get(day),
        numbers=row,
        last_month=view.numbers_of(days.get(first_of_month(day) - _ONE_DAY)),
        month_before=month_before,
        quota=Quota(daily_quota(target, so_far, on_day, day), daily_quota(plan, sent, emails, day)),
        days_left=days_in_month(day) - day.day + 1,
        standing=standing(so_far, _whole(row["projection_positive_replies_eom"]), target),
        badge=_badge(of, card, look, days),
        last_reply=_last_reply(replies, days),
        month_chart=view.month_chart(days, day),
        replies_chart=view.daily_chart(
            days, day, "positive_replies_today", "Positive replies", card.first_row
        ),
        emails_chart=view.daily_chart(
            days, day, "emails_sent_today", "Emails sent", card.first_row
        ),
        lines=view.month_lines(days, day),
        gaps=view.gaps(days, day, card.first_row),
        targets=view.target_periods(card.targets, day),
        edits=[TargetEdit(it, why_not_undone(it, edits) is None) for it in edits[:_MOST_EDITS]],
        syncs=syncs,
        replies=replies,
        problems=read_problems(connection).get(workspace, []),
        bison_url=_bison_url(of, card.instance),
    )


def partition_url(dagster: str, workspace: str, day: date) -> str:
    """The address of a client's day on Dagster's page."""
    key = quote(f"{day}|{workspace}", safe="")
    return f"{dagster}/assets/client_metrics?view=partitions&partition={key}"


def run_url(dagster: str, run_id: str) -> str | None:
    """The address of a run on Dagster's page; None for a sync without Dagster."""
    try:
        UUID(run_id)
    except ValueError:
        return None
    return f"{dagster}/runs/{run_id}"


def _badge(of: Site, card: ClientCard, look: LookBack, days: view.Days) -> Badge:
    """The badge of the overview, of this client alone: its name is in the heading."""
    row = days.get(look.day)
    known: dict[str, Any] = dict.fromkeys(ClientDay._fields)
    known |= {
        "workspace": card.workspace,
        "label": card.label,
        "as_of": row and row.as_of,
        "happened_at": row.written_at if row is not None and row.source == "webhook" else None,
        "last_date": card.last_row,
        "last_as_of": card.last_as_of,
    }
    client = ClientDay(**known)
    if not card.active:
        return Badge("final", "Inactive", None)
    if look.is_today:
        now = of.now()
        data = {card.workspace: data_from(client, now, of.day_zone)}
        found = badge([client], data, now, of.settings.stale_after)
    else:
        found = badge_of_past([client], look.day, of.day_zone)
    return replace(found, names=())


def _last_reply(replies: Sequence[PositiveReply], days: view.Days) -> LastReply | None:
    """The last positive reply: that of the last event, or else of the last day that counts one."""
    counted = [day for day, it in days.items() if _whole(it.numbers.get("positive_replies_today"))]
    if replies and (not counted or counted[-1] <= replies[0].business_date):
        last = replies[0]
        return LastReply(
            last.happened_at, last.business_date, _WAYS.get(last.source, f"by {last.source}")
        )
    return LastReply(None, counted[-1], "by sync") if counted else None


def _look(request: Request) -> LookBack:
    of = site(request)
    return look_back(request, f"/clients/{_workspace(request)}", of.today())


def _workspace(request: Request) -> str:
    return str(request.path_params["workspace"])


def _bison_url(of: Site, instance: str) -> str | None:
    return next((it.url for it in of.settings.bison_instances if it.name == instance), None)


def _whole(value: Number) -> int | None:
    return None if value is None else int(value)


ROUTES = [
    Route("/clients/{workspace}", client_page),
    Route("/clients/{workspace}/live", live),
]
