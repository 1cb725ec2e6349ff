"""Does the checks, stores their results, and reports them to Dagster."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

import dagster as dg
from dagster import DagsterInstance
from sqlalchemy import Connection

from kpi_pipeline.app import AppContext
from kpi_pipeline.checks import (
    automation,
    bison,
    coverage,
    freshness,
    pace,
    plausible,
    webhook_events,
)
from kpi_pipeline.checks.measured import bison_days_measured
from kpi_pipeline.checks.outcome import ASKING_BISON, Check, Outcome, ProblemRow, Severity
from kpi_pipeline.checks.rows_match_inputs import rows_match_inputs
from kpi_pipeline.db.check_queries.events import read_problem_events
from kpi_pipeline.db.check_results import StoredOutcome, read_outcomes, store_outcomes
from kpi_pipeline.db.findings import read_findings
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.domain.formatting import moment
from kpi_pipeline.orchestration.asset_checks.specs import ASSET_OF
from kpi_pipeline.settings.webhooks import secrets_of_instances


def run_checks(
    app: AppContext, checks: Collection[str], dagster_instance: DagsterInstance
) -> Iterator[dg.AssetCheckResult]:
    """Do those of the named checks that read the database alone, and store their results."""
    names = [check for check in Check if check in checks and check not in ASKING_BISON]
    outcomes = retry_on_disconnect(partial(_outcomes, app, names, dagster_instance))
    yield from store_results(app, outcomes)


def store_results(app: AppContext, outcomes: Sequence[Outcome]) -> Iterator[dg.AssetCheckResult]:
    """Store outcomes in the database, for alerts and commands; then report them to Dagster."""
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


def check_totals(app: AppContext, today: date, note: str = "") -> Iterator[dg.AssetCheckResult]:
    """Read Email Bison's own totals, compare ours with them, and store the result.

    `today` is the date of the run's tick; `note` is the description's first sentence, such as that
    a sync has not ended.
    """
    from kpi_pipeline.sync.totals import ask_for_totals

    first, last = bison.period_to_compare(today)
    answers = asyncio.run(ask_for_totals(app, first, last))
    totals = {
        workspace: {
            "sent": it.emails_sent,
            "interested": it.interested,
            "bounced": it.bounced,
            "unsubscribed": it.unsubscribed,
        }
        for workspace, it in answers.stats.items()
    }

    def compare() -> Outcome:
        with app.engine.connect() as connection:
            found = bison.totals_match_bison(
                connection, totals, answers.unasked, answers.unanswered, first, last
            )
        return replace(found, description=f"{note} {found.description}".lstrip())

    yield from store_results(app, [retry_on_disconnect(compare)])


def last_results(app: AppContext, checks: Collection[str]) -> Iterator[dg.AssetCheckResult]:
    """The stored results of these checks, reported to Dagster again; nothing is checked."""

    def read() -> list[StoredOutcome]:
        with app.engine.connect() as connection:
            return read_outcomes(connection, checks)

    for it in retry_on_disconnect(read):
        outcome = Outcome(
            Check(it.name),
            f"{it.description} (As of {moment(it.checked_at, app.timezone)}.)",
            Severity(it.severity),
            [_problem_row(row) for row in it.offenders],
            it.more,
            it.clients,
        )
        yield _result(outcome)


def _outcomes(
    app: AppContext, checks: Sequence[Check], dagster_instance: DagsterInstance
) -> list[Outcome]:
    with app.engine.connect() as connection:
        return [_outcome(check, connection, app, dagster_instance) for check in checks]


def _outcome(
    check: Check, connection: Connection, app: AppContext, dagster_instance: DagsterInstance
) -> Outcome:
    now, settings = app.now(), app.settings
    deadlines = freshness.Deadlines.of(settings)
    until = deadlines.last_closed_day(now, app.day_zone)
    match check:
        case Check.FRESHNESS:
            statuses = freshness.freshness_statuses(connection, now, app.day_zone, deadlines)
            return freshness.freshness(statuses, now, app.timezone, deadlines)
        case Check.COMPLETE:
            return coverage.complete(connection, until)
        case Check.NO_MISSING_DAYS:
            return coverage.no_missing_days(connection, until)
        case Check.PLAUSIBLE:
            return plausible.plausible(connection, app.today(), until)
        case Check.SENDING_PACE:
            return pace.sending_pace(connection, until)
        case Check.REPLY_RATE:
            return pace.reply_rate(connection, until)
        case Check.ROWS_MATCH_INPUTS:
            return rows_match_inputs(connection, app.today(), app.day_zone)
        case Check.WEBHOOKS_DELIVERED:
            names = secrets_of_instances(settings) if settings.webhook_secret else ()
            return webhook_events.webhooks_delivered(
                connection, names, now=now, timezone=app.day_zone, until=until
            )
        case Check.BISON_DAYS_MEASURED:
            return bison_days_measured(read_findings(connection), app.day_zone, now)
        case Check.EVENTS_APPLIED:
            return webhook_events.events_applied(
                read_problem_events(connection, now, webhook_events.MAX_PER_KIND)
            )
        case Check.AUTOMATION_ALIVE:
            return _automation(app, dagster_instance)
        case _:
            raise ValueError(f"{check} does not read the database alone")


def _automation(app: AppContext, dagster_instance: DagsterInstance) -> Outcome:
    # Imported late: the schedules name the checks that they start.
    from kpi_pipeline.orchestration.automation import build_automation
    from kpi_pipeline.orchestration.automation.state import read_automation

    state = read_automation(dagster_instance, build_automation(app.settings))
    return automation.automation_alive(state, app.now())


def _result(outcome: Outcome) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = dict(outcome.numbers)
    if outcome.problems:
        metadata["problems"] = _table(outcome.problems)
    if outcome.more:
        metadata["more_problems"] = outcome.more
    return dg.AssetCheckResult(
        passed=outcome.passed,
        asset_key=ASSET_OF[outcome.check],
        check_name=outcome.check.value,
        severity=dg.AssetCheckSeverity[outcome.severity.value],
        description=outcome.description,
        metadata=metadata,
    )


def _table(problems: Sequence[ProblemRow]) -> dg.TableMetadataValue:
    names = list(dict.fromkeys(name for row in problems for name in row))
    records = [dg.TableRecord({name: _cell(row.get(name)) for name in names}) for row in problems]
    return dg.MetadataValue.table(
        records, dg.TableSchema(columns=[dg.TableColumn(name) for name in names])
    )


def _cell(value: str | int | float | None) -> str | int | float:
    return "–" if value is None else value


def _problem_row(row: Any) -> ProblemRow:
    return dict(row)
