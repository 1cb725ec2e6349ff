"""Checks of the work itself: Dagster, its daemon, partitions, alerts, backups, and the numbers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.checks.alerting import AlertingKind, alerting_problems
from kpi_pipeline.db.backup.record import last_dump
from kpi_pipeline.db.server.addresses import dagster_address
from kpi_pipeline.db.server.engine import open_engine, require_reachable
from kpi_pipeline.db.server.urls import for_people
from kpi_pipeline.domain.formatting import counted, duration, listed
from kpi_pipeline.parts import PartStatus
from kpi_pipeline.services.dagster_home import dagster_instance, update_grid
from kpi_pipeline.services.doctor.examination import Examination
from kpi_pipeline.services.doctor.finding import (
    Finding,
    Verdict,
    good,
    not_checked,
    problem,
    warning,
)
from kpi_pipeline.services.status import Area, Level, StatusProblem, read_facts

_DUMPED_WITHIN = timedelta(days=2)
_MUST_HAVE_DUMPS = timedelta(days=7)
# What makes rows old, syncs fail and checks fail: those are judged when this is well.
_CAUSES = (
    *("disk", "database", "tables", "rights", "dates", "dagster", "daemon", "parts", "automation"),
    *("bison", "clients", "workspaces", "stored-keys", "keys", "partitions", "endpoint", "feed"),
    "webhooks",
)


def dagster(examination: Examination) -> Iterator[Finding]:
    """Dagster's database answers, with the tables of this version of Dagster."""
    # Imported late, as it imports Dagster.
    from kpi_pipeline.orchestration.partitions import WORKSPACE

    url = dagster_address(examination.settings)
    engine = open_engine(url, pool_size=1)
    try:
        require_reachable(engine, "KPI_DAGSTER_DATABASE_URL")
    finally:
        engine.dispose()
    opened = examination.stack.enter_context(dagster_instance(examination.settings))
    examination.partitions = [*opened.get_dynamic_partitions(WORKSPACE)]
    revisions = opened.run_storage.alembic_version()
    if revisions is not None and revisions[0] != revisions[1]:
        yield problem(
            "Dagster's tables are not those of this version of Dagster.",
            "Stop `kpi up`, and run `kpi db upgrade`.",
        )
        return
    examination.facts = read_facts(examination.app, opened)
    yield good(f"Dagster's database is {for_people(url)}, with the tables of this version.")


def daemon(examination: Examination) -> Iterator[Finding]:
    """Dagster's daemon runs."""
    found = examination.status(Area.DAEMON)
    yield from _errors(found)
    if not found:
        claim = examination.facts.dagster.claim
        yield good(f"Dagster's daemon runs{f' ({claim.process})' if claim else ''}.")


def parts(examination: Examination) -> Iterator[Finding]:
    """Every part of the `kpi up` of this machine runs."""
    known = examination.facts.parts
    if known is None or not known.is_supervised:
        yield not_checked("No `kpi up` runs on this machine.")
        return
    yield from _errors(examination.status(Area.PART))
    running = [it for it in known.parts if it.status in (PartStatus.RUNNING, PartStatus.STARTING)]
    if len(running) == len(known.parts):
        yield good(f"All {counted(len(running), 'part')} of `{known.command}` run.")


def automation(examination: Examination) -> Iterator[Finding]:
    """Every schedule and sensor is on and ticks, and no run exceeds its time."""
    found = examination.status(Area.AUTOMATION)
    page = examination.settings.page_url
    for it in found:
        off = it.text.endswith("is switched off")
        yield problem(
            f"{it.text[:1].upper()}{it.text[1:]}.",
            f"Switch it on on the page Automation, {page}/automation."
            if off
            else f"The page Automation, {page}/automation, says why; the log of the daemon is "
            "logs/daemon.log in the state folder.",
        )
    if not found:
        number = len(examination.facts.dagster.automation.ticks)
        yield good(f"All {number} schedules and sensors are on, on time, and succeed.")


def partitions(examination: Examination) -> Iterator[Finding]:
    """Dagster's partitions are the active clients, and show every stored row."""
    active = [it.workspace for it in examination.clients]
    missing = [it for it in active if it not in examination.partitions]
    surplus = [it for it in examination.partitions if it not in active]
    if missing:
        yield problem(
            f"Dagster has no partition of {listed(missing)}.",
            "`kpi doctor partitions --fix` adds it, as each `kpi up` and import does.",
            missing,
            partial(_add_partitions, examination),
        )
    if surplus:
        yield warning(
            f"Dagster has partitions of {listed(surplus)}, which are no active clients.",
            "Materialize client_registry, which removes them once no run needs them.",
        )
    gaps = examination.status(Area.GRID)
    for it in gaps:
        yield warning(it.text, fix=partial(_rebuild, examination))
    if not (missing or surplus or gaps):
        yield good(f"{counted(len(active), 'partition')}, one for each active client.")


def _add_partitions(examination: Examination) -> str:
    grid = update_grid(examination.app, examination.settings)
    return f"Dagster has {counted(len(grid), 'partition')} of active clients now."


def _rebuild(examination: Examination) -> str:
    # Imported late, as it imports Dagster.
    from kpi_pipeline.orchestration.rebuild import rebuild

    with dagster_instance(examination.settings) as opened:
        done = rebuild(examination.app, opened, dry_run=False)
    return f"{counted(done.total, 'partition')} reported from stored rows."


def alerts(examination: Examination) -> Iterator[Finding]:
    """Alerts are evaluated, and each receiver accepts them."""
    # Imported late: it brings in some hundred services.
    from kpi_pipeline.alerts.delivery import receivers_of
    from kpi_pipeline.alerts.message import TEST_MESSAGE

    receivers = receivers_of(examination.settings.alert_urls)
    if not receivers:
        yield warning(
            "Nobody is alerted: KPI_ALERT_URLS has no receiver.",
            "Set it to addresses in apprise's form, and try them with `kpi alerts test`.",
        )
    app = examination.app
    with app.engine.connect() as connection:
        found = alerting_problems(connection, app.now())
    refused = {it.receiver: it.text for it in found if it.kind is AlertingKind.NOT_ACCEPTED}
    bad = 0
    for it in receivers:
        if it.service is None:
            text = f"KPI_ALERT_URLS, {it.name}: that is no address that apprise knows."
            yield problem(text, "Correct it, and try it with `kpi alerts test`.")
        elif examination.send_alert and not it.send(TEST_MESSAGE):
            yield problem(
                f"The receiver {it.name} did not accept a test message.",
                "Check its address in KPI_ALERT_URLS, and that it is reachable from here.",
            )
        elif it.name in refused and not examination.send_alert:
            yield problem(refused[it.name])
        else:
            continue
        bad += 1
    # What follows from a daemon that is gone, or a sensor that is off, those checks say.
    late = [it for it in found if it.kind is AlertingKind.NOT_EVALUATED]
    if late and not examination.has_problem("daemon", "automation"):
        yield problem(late[0].text)
        bad += 1
    if receivers and not bad:
        number = counted(len(receivers), "receiver")
        yield good(
            f"{number}: a test message was accepted."
            if examination.send_alert
            else f"{number}, and none failed; `kpi doctor --send-alert` sends a test message."
        )


def backups(examination: Examination) -> Iterator[Finding]:
    """The last verified dump is younger than two days."""
    engine = open_engine(dagster_address(examination.settings), pool_size=1)
    try:
        with closing(engine.connect()) as connection:
            found = last_dump(connection)
    except SQLAlchemyError:
        found = None
    finally:
        engine.dispose()
    remedy = "Run `kpi db dump FILE` every night, and keep the file on another machine."
    if found is None:
        yield warning("No dump was ever made.", remedy)
        return
    age = examination.app.now() - found.made_at
    text = f"The last dump is {duration(age)} old: {found.file} on {found.host}."
    if age > _DUMPED_WITHIN:
        say = problem if age > _MUST_HAVE_DUMPS else warning
        yield say(text, remedy)
    else:
        yield good(text)


def freshness(examination: Examination) -> Iterator[Finding]:
    """The rows of each client are fresh."""
    number = len(examination.facts.freshness)
    yield from _symptoms(
        examination,
        examination.status(Area.CLIENT),
        lambda: f"The rows of {counted(number, 'client')} are fresh.",
        "`kpi sync` fetches it now.",
    )


def syncs(examination: Examination) -> Iterator[Finding]:
    """The last sync of each client succeeded."""
    number = len(examination.facts.last_syncs)
    yield from _symptoms(
        examination,
        examination.status(Area.SYNC),
        lambda: f"The last sync of {counted(number, 'client')} succeeded.",
        "`kpi sync` tries it again.",
    )


def checks(examination: Examination) -> Iterator[Finding]:
    """Every check of the assets passes."""
    number = len(examination.facts.checks)
    yield from _symptoms(
        examination,
        examination.status(Area.CHECK),
        lambda: f"All {counted(number, 'check')} of the assets pass.",
    )


def _symptoms(
    examination: Examination,
    found: Sequence[StatusProblem],
    if_none: Callable[[], str],
    remedy: str = "",
) -> Iterator[Finding]:
    """What `kpi status` found, without what follows from a problem that was named before."""
    wide = [
        it.check
        for it in examination.of(*_CAUSES)
        if it.verdict is Verdict.PROBLEM and not it.clients
    ]
    named = examination.named(_CAUSES)
    left = [it for it in found if not (it.clients and named.issuperset(it.clients))]
    if found and (wide or not left):
        causes = wide or [it.check for it in examination.of(*_CAUSES) if it.is_bad and it.clients]
        yield not_checked(f"Checked when this is well: {', '.join(dict.fromkeys(causes))}.")
        return
    yield from _errors(left, remedy)
    if not found:
        yield good(if_none())


def _errors(found: Sequence[StatusProblem], remedy: str = "") -> Iterator[Finding]:
    for it in found:
        text = it.text if it.text.endswith((".", "!", "?")) else f"{it.text}."
        say = problem if it.level is Level.ERROR else warning
        yield say(text, remedy, it.clients)
