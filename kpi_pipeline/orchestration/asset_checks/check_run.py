"""Does the checks, stores what they found, and says it to Dagster."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import dagster as dg
from dagster import DagsterInstance
from sqlalchemy import Connection

from kpi_pipeline.app import AppContext
from kpi_pipeline.checks import automation, bison, coverage, freshness, plausible, webhook_events
from kpi_pipeline.checks.outcome import ASKING_BISON, Check, Outcome, ProblemRow, Severity
from kpi_pipeline.db.check_queries.events import troubled_events
from kpi_pipeline.db.check_results import StoredOutcome, read_outcomes, store_outcomes
from kpi_pipeline.db.retry import retry_on_disconnect
from kpi_pipeline.gateway.secrets import secrets_of_instances
from kpi_pipeline.orchestration.asset_checks.specs import ASSET_OF


def done(
    app: AppContext, checks: Collection[str], instance: DagsterInstance
) -> Iterator[dg.AssetCheckResult]:
    """Do the checks that ask the database alone, of those named, and store what they found."""
    names = [check for check in Check if check in checks and check not in ASKING_BISON]
    outcomes = retry_on_disconnect(partial(_ask, app, names, instance))
    yield from stored(app, outcomes)


def stored(app: AppContext, outcomes: Sequence[Outcome]) -> Iterator[dg.AssetCheckResult]:
    """Store what checks found, for whoever reads it without Dagster; then say it to Dagster."""
    now = app.now()
    rows = [
        StoredOutcome(
            name=it.check.value,
            asset=ASSET_OF[it.check].to_user_string(),
            severity=it.severity.value,
            description=it.description,
            offenders=it.problems,
            more=it.more,
            clients=it.clients,
            checked_at=now,
            since=None if it.passed else now,
        )
        for it in outcomes
    ]

    def store() -> None:
        with app.engine.begin() as connection:
            store_outcomes(connection, rows)

    retry_on_disconnect(store)
    yield from map(_result, outcomes)


def totals_now(app: AppContext) -> Iterator[dg.AssetCheckResult]:
    """Ask Email Bison for its own totals, compare, and store what came of it."""
    from kpi_pipeline.sync.totals import ask_for_totals

    first, last = bison.period_to_compare(app.today())
    asked = asyncio.run(ask_for_totals(app, first, last))
    told = {
        workspace: {
            "sent": it.emails_sent,
            "interested": it.interested,
            "bounced": it.bounced,
            "unsubscribed": it.unsubscribed,
        }
        for workspace, it in asked.stats.items()
    }

    def compare() -> Outcome:
        with app.engine.connect() as connection:
            return bison.totals_match_bison(
                connection, told, asked.unasked, asked.unanswered, first, last
            )

    yield from stored(app, [retry_on_disconnect(compare)])


def as_found(app: AppContext, checks: Collection[str]) -> Iterator[dg.AssetCheckResult]:
    """What these checks found last, said again; nothing is asked, and nobody is called."""

    def read() -> list[StoredOutcome]:
        with app.engine.connect() as connection:
            return read_outcomes(connection, checks)

    for it in retry_on_disconnect(read):
        found = Outcome(
            Check(it.name),
            f"{it.description} (As found {it.checked_at:%Y-%m-%d %H:%M} UTC.)",
            Severity(it.severity),
            [_as_offender(row) for row in it.offenders],
            it.more,
            it.clients,
        )
        yield _result(found)


def _ask(app: AppContext, checks: Sequence[Check], instance: DagsterInstance) -> list[Outcome]:
    with app.engine.connect() as connection:
        return [_outcome(check, connection, app, instance) for check in checks]


def _outcome(
    check: Check, connection: Connection, app: AppContext, instance: DagsterInstance
) -> Outcome:
    now, zone, settings = app.now(), app.timezone, app.settings
    deadlines = freshness.Deadlines.of(settings)
    until = deadlines.last_closed_day(now, zone)
    match check:
        case Check.FRESHNESS:
            statuses = freshness.freshness_statuses(connection, now, zone, deadlines)
            return freshness.freshness(statuses, now, zone, deadlines)
        case Check.COMPLETE:
            return coverage.complete(connection, until)
        case Check.NO_MISSING_DAYS:
            return coverage.no_missing_days(connection, until)
        case Check.PLAUSIBLE:
            return plausible.plausible(connection, app.today(), until)
        case Check.WEBHOOKS_DELIVERED:
            names = secrets_of_instances(settings) if settings.webhook_secret else ()
            return webhook_events.webhooks_delivered(
                connection, names, now=now, timezone=zone, until=until
            )
        case Check.EVENTS_APPLIED:
            return webhook_events.events_applied(
                troubled_events(connection, now, webhook_events.MAX_PER_KIND)
            )
        case Check.AUTOMATION_ALIVE:
            return _automation(app, instance)
        case _:
            raise ValueError(f"{check} is not one that asks the database alone")


def _automation(app: AppContext, instance: DagsterInstance) -> Outcome:
    # Imported late: the schedules name the checks that they start.
    from kpi_pipeline.orchestration.automation import build_automation
    from kpi_pipeline.orchestration.automation.alive import read_automation

    everything = build_automation(app.settings)
    return automation.automation_alive(read_automation(instance, everything), app.now())


def _result(found: Outcome) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = dict(found.numbers)
    if found.problems:
        metadata["offenders"] = _table(found.problems)
    if found.more:
        metadata["more_offenders"] = found.more
    return dg.AssetCheckResult(
        passed=found.passed,
        asset_key=ASSET_OF[found.check],
        check_name=found.check.value,
        severity=dg.AssetCheckSeverity[found.severity.value],
        description=found.description,
        metadata=metadata,
    )


def _table(offenders: Sequence[ProblemRow]) -> dg.TableMetadataValue:
    names = list(dict.fromkeys(name for row in offenders for name in row))
    records = [dg.TableRecord({name: _cell(row.get(name)) for name in names}) for row in offenders]
    return dg.MetadataValue.table(
        records, dg.TableSchema(columns=[dg.TableColumn(name) for name in names])
    )


def _cell(value: str | int | float | None) -> str | int | float:
    return "–" if value is None else value


def _as_offender(row: Any) -> ProblemRow:
    return dict(row)
