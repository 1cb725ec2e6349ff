"""Fetches one client's facts from Email Bison: one call, whatever the number of days."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonClient, BisonError, WorkspaceReader
from kpi_pipeline.db.facts import SendingPlan, plan_requested_at
from kpi_pipeline.db.findings import possible_day_zones
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.db.sync_log import note_unknown_fields
from kpi_pipeline.domain.calendar import fetch_period
from kpi_pipeline.sync.identity import read_client
from kpi_pipeline.sync.scope import BackfillScope, PartitionBlock

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedFacts:
    """One client's daily counts, and its sending plan if today is among the requested dates.

    `as_of` is the moment at which the request for the daily series was sent. `unlisted` are the
    parts of the period for which the answer listed no day at all. `warning` is a sentence, if the
    sending plan could not be read.
    """

    as_of: datetime
    days: Mapping[date, Mapping[str, int | None]]
    unlisted: Sequence[tuple[date, date]]
    plan: SendingPlan | None = None
    warning: str | None = None


def facts_period(dates: Sequence[date], backfill: BackfillScope | None) -> tuple[date, date]:
    """First and last day to fetch for `dates`, or for all dates of `backfill`."""
    if backfill is None:
        return fetch_period(min(dates), max(dates))
    return fetch_period(backfill.first, backfill.last)


async def fetch_facts(
    app: AppContext,
    bison: BisonClient,
    client: Client,
    dates: Sequence[date],
    block: PartitionBlock,
) -> FetchedFacts:
    """Fetch all facts that the rows of `dates`, or of all dates of its backfill, are computed from.

    `block` is that of the run: `dates` may begin before its own.

    A sending plan that fails costs no other number: the facts hold without it.

    Raises:
        KpiError: if the client's API key can't be decrypted.
        BisonError: if any other call failed for good, or its answer is not valid.
    """
    today = app.today()
    first, last = facts_period(dates, block.backfill)

    async def read(reader: WorkspaceReader) -> FetchedFacts:
        series = await reader.daily_series(first, last)
        days = {day: asdict(counts) for day, counts in series.days.items()}
        facts = FetchedFacts(series.as_of, days, series.unlisted)
        if today not in dates:
            return facts
        state = partial(_plan_state, app, client, today)
        requested_at, zones = await asyncio.to_thread(retry_on_disconnect, state)
        age = series.as_of - requested_at if requested_at else None
        # One from a clock that ran ahead is younger than nothing.
        if age is not None and timedelta(0) <= age < block.plan_max_age:
            return facts
        # A sending plan carries no date, so "today" must be the same day in Email Bison.
        if not app.bison_agrees_on(today, zones):
            return facts
        plan, warning = await _sending_plan(reader, client, today, series.as_of)
        if app.today() != today or not app.bison_agrees_on(today, zones):
            # Midnight passed between the calls: the plan may be of either day.
            return facts
        return replace(facts, plan=plan, warning=warning)

    return await read_client(app, bison, client, read)


def _plan_state(
    app: AppContext, client: Client, today: date
) -> tuple[datetime | None, list[ZoneInfo]]:
    """When today's plan was last requested, and the zones that may bound the instance's days."""
    with app.engine.connect() as connection:
        zones = possible_day_zones(connection, client.instance)
        requested_at = plan_requested_at(connection, client.workspace, today)
    return requested_at, [ZoneInfo(name) for name in zones]


async def _sending_plan(
    reader: WorkspaceReader, client: Client, today: date, as_of: datetime
) -> tuple[SendingPlan, str | None]:
    """Today's plan, and a warning if it could not be read: an older one holds no more then."""
    try:
        for_today = await reader.sending_plan("today")
        for_tomorrow = await reader.sending_plan("tomorrow")
    except BisonError as error:
        # The facts were just read, so it is not the workspace that is gone.
        not_offered = error.status == 404
        remedy = "This instance may not offer sending plans" if not_offered else error.remedy
        return SendingPlan(today, None, None, as_of), (
            f"{client.workspace}: the sending plan of {today} is not known: {error.call} "
            f"{error.what}. Its two columns are NULL, and all other numbers are stored. {remedy}."
        )
    return SendingPlan(today, for_today, for_tomorrow, as_of), None


def report_unknown_fields(
    app: AppContext, instance: str, seen: Mapping[tuple[str, str], int]
) -> None:
    """Count the undocumented fields that answers held, and log a warning for new ones.

    `seen` maps (call, field) to the number of answers that held it. A database error is only
    logged: the numbers of a run do not depend on these counts.
    """
    if not seen:
        return
    try:
        with app.engine.begin() as connection:
            new = note_unknown_fields(connection, instance, seen, app.now())
    except SQLAlchemyError:
        _log.exception("The unknown fields of instance %s could not be counted", instance)
        return
    if new:
        _log.warning(
            "instance %s: answers hold fields that this version does not know and ignores: %s. "
            "Each is reported once and counted in the table bison_unknown_fields.",
            instance,
            "; ".join(f"{call}: {field}" for call, field in new),
        )
