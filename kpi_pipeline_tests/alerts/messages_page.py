"""The page of all messages, docs/messages.md: each is made by the code that sends it."""

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psutil
from sqlalchemy import Connection, Engine, text

from kpi_pipeline.alerts.given_up import given_up_problems
from kpi_pipeline.alerts.message import TEST_MESSAGE, Message, compose
from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.alerts.receivers import receiver_problems
from kpi_pipeline.alerts.rules import Notice, NoticeKind
from kpi_pipeline.alerts.sources import (
    FailedRun,
    FailedTick,
    dagster_problems,
    problem_of_check,
    problem_of_syncs,
)
from kpi_pipeline.alerts.summary import SummaryOfDay, summary_text
from kpi_pipeline.alerts.wording import what_is_wrong
from kpi_pipeline.bison import BisonError, KeyUse, RejectedKey, Unavailable, errors
from kpi_pipeline.checks import bison, coverage, freshness, pace, plausible, webhook_events
from kpi_pipeline.checks.alerting import AlertingKind, AlertingProblem
from kpi_pipeline.checks.automation import AutomationState, DaemonState, TickState, automation_alive
from kpi_pipeline.checks.measured import bison_days_measured
from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline.checks.rows_match_inputs import rows_match_inputs
from kpi_pipeline.db.alerts import AlertState
from kpi_pipeline.db.check_queries.events import read_problem_events
from kpi_pipeline.db.check_queries.totals import read_sums
from kpi_pipeline.db.check_results import StoredOutcome
from kpi_pipeline.db.findings import Finding
from kpi_pipeline.db.metrics import MetricRow
from kpi_pipeline.db.sync_log import SyncFailure
from kpi_pipeline.domain.calendar import day_start
from kpi_pipeline.domain.measure import Subject
from kpi_pipeline.orchestration.asset_checks.specs import ASSET_OF
from kpi_pipeline.parts import Parts, PartState, PartStatus
from kpi_pipeline_tests.alerts.support import PAGE
from kpi_pipeline_tests.checks import rows
from kpi_pipeline_tests.checks.rows import CHICAGO, NOW, TODAY

YESTERDAY = TODAY - timedelta(days=1)
SINCE = NOW - timedelta(hours=2, minutes=5)

_HEAD = """\
# Messages

Every message that kpi_pipeline sends to the receivers of `KPI_ALERT_URLS`, with invented clients
and numbers. A test makes this page from the code that sends them: run `pytest
kpi_pipeline_tests/alerts/test_messages_page.py` after a change of a text, and copy the file that
it names.

A message leads with what happened to whom, and since when; then come the numbers, what to do, and
the page to see. It ends with the narrowest mute: for the one client in the one check, or else for
the check. Several notices of one moment are one message, whose title counts them. Receivers that
tell kinds of messages apart get apprise's type: `failure` for an ERROR, `warning` for a WARN,
`success` for an end, `info` for the summary.
"""


def page(engine: Engine) -> str:
    """The page as Markdown."""
    problems = [
        *(_problem(it) for it in _outcomes(engine)),
        _syncs_fail(_rejected("acme")),
        _syncs_fail(*map(_unavailable, ("acme", "birch", "cedar", "dale", "elder"))),
        *_other_problems(),
    ]
    parts = [_HEAD, "## What begins\n"]
    for it in problems:
        parts.append(_section(f"`{it.name}`, {it.severity}", _message(_notice(it))))
    parts.append("## What changes, and what ends\n")
    parts += [_section(title, _message(*notices)) for title, notices in _changes()]
    parts.append("## The daily summary, and the test\n")
    parts.append(_section("`daily_summary`", summary_text(_summary(), CHICAGO, CHICAGO)))
    parts.append(_section("`kpi alerts test`", TEST_MESSAGE))
    return "\n".join(parts)


def _section(title: str, message: Message) -> str:
    body = message.body
    if not body.startswith(message.title):
        body = f"{message.title}\n\n{body}"
    return f"### {title}\n\nType `{message.type}`:\n\n```text\n{body}\n```\n"


def _message(*notices: Notice) -> Message:
    return compose(notices, timezone=CHICAGO, page=PAGE, now=NOW)


def _notice(
    problem: Problem, kind: NoticeKind = NoticeKind.NEW, since: datetime = SINCE, **changed: Any
) -> Notice:
    state = AlertState(
        cause=problem.cause,
        title=problem.title,
        severity=problem.severity.value,
        names=problem.names,
        clients=problem.clients,
        since=since,
        tell_from=since,
    )
    return Notice(kind, state, None if kind is NoticeKind.RESOLVED else problem, **changed)


def _problem(found: Outcome) -> Problem:
    assert not found.passed, found
    stored = StoredOutcome(
        name=found.check.value,
        asset=ASSET_OF[found.check].to_user_string(),
        severity=found.severity.value,
        description=found.description,
        offenders=found.problems,
        more=found.more,
        clients=found.clients,
        checked_at=NOW,
        since=SINCE,
    )
    return problem_of_check(stored, syncs_stopped=False)


def _outcomes(engine: Engine) -> Iterator[Outcome]:
    """Each check of an agency that is damaged further from check to check."""
    with engine.begin() as connection:
        rows.agency(connection)

        def damage(statement: str) -> None:
            connection.execute(text(statement))

        later = NOW + timedelta(hours=4)
        deadlines = freshness.Deadlines()
        statuses = freshness.freshness_statuses(connection, later, CHICAGO, deadlines)
        yield freshness.freshness(statuses, later, CHICAGO, deadlines)
        yield pace.sending_pace(connection, YESTERDAY)

        one_row = "WHERE workspace = 'birch' AND metric_date = '2026-03-12'"
        change = "UPDATE client_metrics SET emails_sent_mtd = emails_sent_mtd"
        damage(f"{change} + 100 {one_row}")
        yield rows_match_inputs(connection, TODAY, CHICAGO)
        damage(f"{change} - 100 {one_row}")

        damage("UPDATE raw_bison_stats SET bounced = 9, replied = 0 WHERE workspace = 'acme'")
        yield pace.reply_rate(connection, YESTERDAY)
        yield plausible.plausible(connection, TODAY, YESTERDAY)
        damage(f"UPDATE client_metrics SET emails_sent_mtd = 20 {one_row}")
        yield plausible.plausible(connection, TODAY, YESTERDAY)
        damage(f"DELETE FROM client_metrics {one_row}")
        yield coverage.complete(connection, YESTERDAY)
        yield _totals(connection)
        damage(
            "DELETE FROM raw_bison_stats WHERE workspace = 'acme' "
            "AND date BETWEEN '2026-02-09' AND '2026-02-10'"
        )
        yield coverage.no_missing_days(connection, YESTERDAY)

        first = day_start(date(2026, 3, 1), CHICAGO)
        rows.add_event(connection, "acme", date(2026, 3, 1), first, arrived_at=first)
        yield _webhooks(connection)
        damage("DELETE FROM webhook_events WHERE business_date > '2026-03-10'")
        yield _webhooks(connection)
        an_hour_ago = NOW - timedelta(hours=1)
        rows.add_event(connection, "acme", TODAY, NOW, status="received", arrived_at=an_hour_ago)
        damage("UPDATE webhook_events SET status = 'set_aside', reason = 'ValueError' WHERE id = 3")
        yield webhook_events.events_applied(read_problem_events(connection, NOW, 10))
    yield bison.registry_matches_bison(
        {
            "bad_keys": ["acme: its own key was rejected"],
            "unknown": ["main 107: Willow Labs"],
        },
        ("acme", "birch"),
        3,
    )
    yield bison_days_measured(
        [Finding("main", Subject.DAY_ZONE, "acme", NOW, ["UTC"], "9 of 9 days agree", "UTC")],
        CHICAGO,
        NOW,
    )
    yield automation_alive(
        AutomationState(
            ticks=[
                TickState("daily_kpi_sync", "schedule", on=False, due_since=None),
                TickState("intraday_refresh", "schedule", on=True, due_since=SINCE),
            ],
            daemons=[DaemonState("SENSOR", SINCE)],
            runs=[],
        ),
        NOW,
    )


def _totals(connection: Connection) -> Outcome:
    first = date(2026, 3, 1)
    sums = {it.workspace: dict(it.sums) for it in read_sums(connection, first, YESTERDAY)}
    sums["acme"]["interested"] += 1
    del sums["birch"]
    unasked = {"birch": "GET /api/workspaces/v1.1/stats was rejected with 401"}
    return bison.totals_match_bison(connection, sums, unasked, {}, first, YESTERDAY)


def _webhooks(connection: Connection) -> Outcome:
    return webhook_events.webhooks_delivered(
        connection, ["main"], now=NOW, timezone=CHICAGO, until=YESTERDAY
    )


def _failure(workspace: str, error: BisonError) -> SyncFailure:
    return SyncFailure(workspace, "1b671a64", f"{error}", SINCE, NOW - timedelta(minutes=5))


_CALL = "GET /api/workspaces/v1.1/line-area-chart-stats"


def _rejected(client: str) -> SyncFailure:
    what, remedy = "was rejected: 401", errors.for_key(KeyUse.WORKSPACE)
    return _failure(client, RejectedKey(client, _CALL, what, remedy, 401))


def _unavailable(client: str) -> SyncFailure:
    what = "was answered 503, three times"
    return _failure(client, Unavailable(client, _CALL, what, errors.UNAVAILABLE, 503))


def _syncs_fail(*failures: SyncFailure) -> Problem:
    return problem_of_syncs(failures)


def _other_problems() -> list[Problem]:
    silent = AlertingProblem(
        AlertingKind.NOT_ACCEPTED,
        "The receiver json://chat.example has accepted no alert for 2 h 5 min, in 26 tries. "
        "`kpi alerts test` tries it now; its address is in KPI_ALERT_URLS.",
        SINCE,
        "json://chat.example",
    )
    return [
        *dagster_problems(
            [FailedRun("2c782b75", "clean_up_runs", SINCE)],
            [FailedTick("daily_kpi_sync", "schedule", SINCE)],
        ),
        *receiver_problems([silent], {"json://chat.example", "mailto://mail.example"}),
        *given_up_problems(_given_up()),
    ]


def _given_up() -> Parts:
    """The parts of a `kpi up` that runs: this process stands for it."""
    process = psutil.Process()
    part = PartState(
        "dashboard",
        "The dashboard",
        PartStatus.GIVEN_UP,
        SINCE,
        restarts=5,
        reason="ended with code 1, after 5 restarts within ten minutes",
    )
    return Parts("kpi up", process.pid, process.create_time(), [part])


def _changes() -> Iterator[tuple[str, list[Notice]]]:
    """Notices of a problem that was notified before."""
    many = [f"client-{number:02}" for number in range(1, 20)]
    joined = _syncs_fail(*map(_unavailable, many), _rejected("acme"))
    yield (
        "A client joins: it is named first",
        [_notice(joined, NoticeKind.WORSE, joined=("acme",))],
    )
    one = _syncs_fail(_rejected("acme"))
    yield "It goes on", [_notice(one, NoticeKind.REMINDER, NOW - timedelta(days=1))]
    warned = Problem(
        cause="plausible",
        name="plausible",
        title=what_is_wrong("plausible", Severity.ERROR),
        severity=Severity.ERROR,
        since=SINCE,
        what="0 warnings, 1 error: acme. Compare with Email Bison's own page.",
        clients=("acme",),
        lines=(Line("the month's emails sent fell from 1,178 to 20", ("acme",)),),
        path="/assets/client_metrics?view=checks&checkDetail=plausible",
    )
    yield "A WARN becomes an ERROR", [_notice(warned, NoticeKind.WORSE, joined=("acme",))]
    yield "It comes and goes", [_notice(warned, flaps=4)]
    yield "It ends", [_notice(one, NoticeKind.RESOLVED)]
    yield "It ends, after it came and went", [_notice(warned, NoticeKind.RESOLVED, flaps=4)]
    run, tick, *_ = _other_problems()
    yield "Several notices of one moment", [_notice(one), _notice(tick, NoticeKind.RESOLVED)]
    yield "A schedule works again", [_notice(tick, NoticeKind.RESOLVED)]
    yield "A run succeeds again", [_notice(run, NoticeKind.RESOLVED)]


def _summary() -> SummaryOfDay:
    nothing: dict[str, Any] = {it.name: None for it in fields(MetricRow)}
    birch = MetricRow(
        **{
            **nothing,
            "workspace": "birch",
            "display_name": "Birch",
            "positive_replies_today": 1,
            "positive_replies_mtd": 36,
            "projection_positive_replies_eom": 66,
            "projection_replies_progress": Decimal("82.50"),
            "monthly_kpi_target": 80,
            "emails_sent_today": 117,
            "emails_sent_mtd": 1853,
            "monthly_sending_target": 4000,
            "projection_sending_progress": Decimal("84.48"),
            "all_replies_mtd": 130,
            "reply_rate_mtd": Decimal("7.02"),
            "positive_rate_mtd": Decimal("1.94"),
            "bounce_rate_mtd": Decimal("0.92"),
            "as_of": NOW,
        }
    )
    acme = replace(
        birch,
        workspace="acme",
        display_name="Acme",
        positive_replies_today=4,
        positive_replies_mtd=48,
        projection_positive_replies_eom=88,
        projection_replies_progress=Decimal("110.00"),
        all_replies_mtd=142,
    )
    cedar = MetricRow(**{**nothing, "workspace": "cedar", "display_name": "Cedar"})
    before = {
        it.workspace: replace(it, all_replies_mtd=it.all_replies_mtd - 8)
        for it in (acme, birch)
        if it.all_replies_mtd is not None
    }
    return SummaryOfDay(YESTERDAY, [acme, birch, cedar], before)
