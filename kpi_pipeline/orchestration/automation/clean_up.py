"""Every night: deletes old runs, except those that Dagster's page still needs.

Dagster keeps runs and their events forever. Deleting a run deletes its events, and a partition
whose latest events are gone turns grey, whatever its rows hold. So a run is deleted only when later
ones have superseded its events of every partition. Clients' rows and `sync_log` are never touched.

Refreshes and rounds of checks are most of the runs, some hundred a day, and say nothing that is
looked up later: they stay for two days. The others stay for KPI_RUN_RETENTION_DAYS.

The materializations that a sensor reports belong to no run, and would stay forever as well. Those
of partitions are by far the most: up to 338 a day for each client. A day after, only the latest
materialization of a partition is needed, whether a run or a sensor wrote it.
"""

import uuid
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    and_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)

from kpi_pipeline.domain.formatting import counted, moment
from kpi_pipeline.orchestration.dagster_private import (
    BULK_ACTION_TERMINAL_STATUSES,
    RUNLESS_RUN_ID,
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    BulkActionsTable,
    RunsTable,
    RunTagsTable,
    SqlEventLogStorageTable,
)
from kpi_pipeline.orchestration.failures import failure
from kpi_pipeline.orchestration.runs import (
    BACKFILL,
    FINISHED,
    INTRADAY_REFRESH,
    PARENT_RUN,
    ROOT_RUN,
    SCHEDULE,
    SENSOR,
)
from kpi_pipeline.orchestration.runtime.storage import PooledEventLogStorage
from kpi_pipeline.settings import Settings

_BATCH_SIZE = 1000
# How long the superseded reports of a partition stay: a day of them can be read on its page.
_REPORTS_KEPT = timedelta(days=1)
# How long the runs stay that these schedules and sensors request, if they succeed.
_FREQUENT_KEPT = timedelta(days=2)
_FREQUENT = (INTRADAY_REFRESH, "data_checks", "check_after_sync", "webhook_event_sensor")

_events, _runs, _tags = SqlEventLogStorageTable.c, RunsTable.c, RunTagsTable.c
_RUNLESS = (
    _events.run_id == RUNLESS_RUN_ID,
    _events.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value,
)


def build_clean_up_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """The nightly schedule `clean_up_runs`, with its job."""

    @dg.op(description="Deletes old runs whose events later runs have superseded.")
    def delete_superseded_runs(context: dg.OpExecutionContext) -> None:
        older_than = timedelta(days=settings.run_retention_days)
        context.log.info(delete_runs(context.instance, older_than, settings.timezone))

    # A named job without assets: a backfill from its page has nothing to fill.
    @dg.job(description="Deletes runs that ended long ago, except those that the page needs.")
    def clean_up_runs() -> None:
        delete_superseded_runs()

    return dg.ScheduleDefinition(
        name="clean_up_runs",
        job=clean_up_runs,
        cron_schedule="30 3 * * *",
        execution_timezone=settings.timezone.key,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every night: deletes runs that ended more than "
        f"{settings.run_retention_days} days ago, unless they hold a partition's latest event, and "
        "reports of changed rows that later ones have superseded.",
    )


def delete_runs(
    dagster_instance: DagsterInstance, older_than: timedelta, timezone: ZoneInfo
) -> str:
    """Delete the superseded runs that ended that long ago, by the database's clock.

    Returns a sentence: how many were deleted, and how many were kept, and why.

    Raises:
        dg.Failure: if Dagster's tables are not in PostgreSQL.
    """
    storage = dagster_instance.event_log_storage
    if not isinstance(storage, PooledEventLogStorage):
        raise failure(
            "Old runs are deleted only where Dagster's tables are in PostgreSQL, as the project's "
            "dagster.yaml has it. Start Dagster with `kpi up`, or with `dagster dev` in the folder "
            "of that file."
        )
    with storage.index_connection() as connection:
        now = connection.execute(select(func.now())).scalar_one()
    ended_before, frequent_before = now - older_than, now - min(older_than, _FREQUENT_KEPT)
    deleted = 0
    while True:
        # Read again for each batch: events arrive, and a run that was retried may go once the runs
        # that name it are gone.
        with storage.index_connection() as connection:
            batch = superseded_runs(connection, ended_before, frequent_before, _BATCH_SIZE)
        if not batch:
            break
        for run_id in batch:
            # What a run printed is in a folder of its name. Somebody may have chosen the run's id,
            # and an id with a path in it must not delete another folder.
            if _is_uuid(run_id):
                dagster_instance.compute_log_manager.delete_logs(prefix=[run_id])
            dagster_instance.delete_run(run_id)
        deleted += len(batch)
    with storage.index_connection() as connection:
        kept = kept_runs(connection, ended_before)
        reports = delete_reports(connection, ended_before)
        reports += delete_superseded_reports(connection, now - _REPORTS_KEPT)
        evaluations = delete_evaluations(connection, ended_before)
    why = "".join(f"; {count} {reason}" for reason, count in kept.items())
    day = moment(ended_before, timezone)
    summary = (
        f"{counted(deleted, 'run')} deleted, {sum(kept.values())} from before {day} kept{why}."
    )
    more = {"reports of sensors": reports, "results of checks": evaluations}
    return " ".join(
        [summary, *(f"Older {what}: {count} deleted." for what, count in more.items() if count)]
    )


def superseded_runs(
    connection: Connection, ended_before: datetime, frequent_before: datetime, limit: int
) -> list[str]:
    """The ids of runs that ended before the first instant and that nothing needs, oldest first.

    Of the frequent ones, those that succeeded before the second.
    """
    frequent = exists().where(
        _tags.run_id == _runs.run_id,
        _tags.key.in_([SCHEDULE, SENSOR]),
        _tags.value.in_(_FREQUENT),
    )
    old = _old_runs(
        or_(
            _ended_before(ended_before),
            and_(
                _ended_before(frequent_before),
                _runs.status == DagsterRunStatus.SUCCESS.value,
                frequent,
            ),
        )
    )
    free = select(old.c.run_id).where(old.c.reason.is_(None))
    return list(connection.scalars(free.order_by(old.c.id).limit(limit)))


def kept_runs(connection: Connection, ended_before: datetime) -> dict[str, int]:
    """How many runs that ended before this instant are needed, by the first reason that applies."""
    old = _old_runs(_ended_before(ended_before))
    counts = select(old.c.reason, func.count()).where(old.c.reason.is_not(None))
    rows = connection.execute(counts.group_by(old.c.reason).order_by(old.c.reason))
    reasons = list(_needed())
    return {reasons[number]: count for number, count in rows}


def delete_reports(connection: Connection, before: datetime) -> int:
    """Delete the materializations before this instant that belong to no run and no partition.

    The latest of each asset stays. Returns the number deleted.
    """
    runless = (*_RUNLESS, _events.partition.is_(None))
    latest = select(func.max(_events.id)).where(*runless).group_by(_events.asset_key)
    old = select(_events.id).where(*runless, _before(before), _events.id.not_in(latest))
    return _delete_events(connection, old)


def delete_superseded_reports(connection: Connection, before: datetime) -> int:
    """Delete the materializations of partitions before this instant that belong to no run.

    Each partition's latest materialization stays, or it would turn grey. Returns the number
    deleted.
    """
    later = SqlEventLogStorageTable.alias("later").c
    superseded = exists().where(
        later.asset_key == _events.asset_key,
        later.dagster_event_type == _events.dagster_event_type,
        later.partition == _events.partition,
        later.id > _events.id,
    )
    old = (*_RUNLESS, _events.partition.is_not(None), _before(before), superseded)
    return _delete_events(connection, select(_events.id).where(*old))


def _before(instant: datetime) -> ColumnElement[bool]:
    # The column is in UTC, without a time zone.
    return _events.timestamp < instant.astimezone(UTC).replace(tzinfo=None)


def _delete_events(connection: Connection, chosen: Select[int]) -> int:
    """Delete these events, with their tags; return their number."""
    ids = connection.scalars(chosen).all()
    for start in range(0, len(ids), _BATCH_SIZE):
        batch = ids[start : start + _BATCH_SIZE]
        tags = AssetEventTagsTable.c.event_id.in_(batch)
        connection.execute(delete(AssetEventTagsTable).where(tags))
        connection.execute(delete(SqlEventLogStorageTable).where(_events.id.in_(batch)))
    return len(ids)


def delete_evaluations(connection: Connection, before: datetime) -> int:
    """Delete the results of checks before this instant, except each check's latest.

    Dagster keeps them when it deletes the run of the check. There are some hundred a day. Returns
    the number deleted.
    """
    table = AssetCheckExecutionsTable.c
    latest = select(func.max(table.id)).group_by(table.asset_key, table.check_name)
    passed = table.create_timestamp < before.astimezone(UTC).replace(tzinfo=None)
    old = delete(AssetCheckExecutionsTable).where(passed, table.id.not_in(latest))
    return connection.execute(old).rowcount


def _ended_before(instant: datetime) -> ColumnElement[bool]:
    return _runs.end_time < instant.timestamp()


def _old_runs(old: ColumnElement[bool]) -> Subquery:
    """Each finished run of which `old` holds, with the number of the first reason to keep it."""
    needed = union_all(
        *(
            runs.add_columns(literal(number).label("reason"))
            for number, runs in enumerate(_needed().values())
        )
    ).subquery()
    first = (
        select(needed.c.run_id, func.min(needed.c.reason).label("reason"))
        .group_by(needed.c.run_id)
        .subquery()
    )
    finished = [status.value for status in FINISHED]
    return (
        select(_runs.id, _runs.run_id, first.c.reason)
        .outerjoin_from(RunsTable, first, _runs.run_id == first.c.run_id)
        .where(_runs.status.in_(finished), old)
        .subquery()
    )


def _needed() -> dict[str, Select[str]]:
    """The runs that must stay, however old, by reason."""
    return {
        "hold the latest event of a partition or an asset": _holding_a_latest_event(),
        "are the catalogue's last run of an asset": _last_of_each_asset(),
        "belong to an unfinished backfill": _of_unfinished_backfills(),
        "are the last of a schedule or sensor": _last_of_each_automation(),
        "were retried by a run that is kept": _retried(),
    }


def _holding_a_latest_event() -> Select[str]:
    # A partition is materialized if it has a materialization. It is failed if its latest "planned"
    # event is of a failed run, without a materialization after it. So the latest of both stay.
    # Ids first, as in Dagster's own queries: an index alone answers each grouping.
    asset = (_events.asset_key, _events.dagster_event_type)
    kinds = _events.dagster_event_type.in_(
        [
            DagsterEventType.ASSET_MATERIALIZATION.value,
            DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        ]
    )
    latest = select(func.max(_events.id)).where(_events.asset_key.is_not(None), kinds)
    ids = union_all(
        latest.group_by(*asset),
        latest.where(_events.partition.is_not(None)).group_by(*asset, _events.partition),
    )
    return select(_events.run_id).where(_events.id.in_(ids))


def _last_of_each_asset() -> Select[str]:
    # Of runs that overlapped, it may be another than that of the latest event.
    return select(AssetKeyTable.c.last_run_id.label("run_id"))


def _of_unfinished_backfills() -> Select[str]:
    finished = [status.value for status in BULK_ACTION_TERMINAL_STATUSES]
    unfinished = select(BulkActionsTable.c.key).where(BulkActionsTable.c.status.not_in(finished))
    return select(_tags.run_id).where(_tags.key == BACKFILL, _tags.value.in_(unfinished))


def _last_of_each_automation() -> Select[str]:
    # The page shows them. Dagster forgets the run keys of deleted runs, which does no harm: a run
    # key is used again only if its own tick is evaluated again, and Dagster makes up the last five
    # ticks of a schedule at most, not those of months ago. Even then, a run over the same dates
    # would only fetch them once more.
    last = (
        select(func.max(_runs.id))
        .join_from(RunTagsTable, RunsTable, _tags.run_id == _runs.run_id)
        .where(_tags.key.in_([SCHEDULE, SENSOR]))
        .group_by(_tags.key, _tags.value)
    )
    return select(_runs.run_id).where(_runs.id.in_(last))


def _retried() -> Select[str]:
    # The page shows no run whose first attempt is gone.
    return select(_tags.value.label("run_id")).where(_tags.key.in_([ROOT_RUN, PARENT_RUN]))


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
