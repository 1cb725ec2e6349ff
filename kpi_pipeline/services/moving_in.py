"""Moves in from the old system: takes what it has, compares it with ours, and takes its place."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date

from sqlalchemy import URL, Engine

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonError
from kpi_pipeline.db.moving_in.compare import Comparison, compare_old_rows
from kpi_pipeline.db.moving_in.match import Listed, Matches, match_clients
from kpi_pipeline.db.moving_in.replace import (
    Replaced,
    has_our_tables,
    is_same_database,
    keep_old_tables,
    own_schema,
    put_views_in_place,
)
from kpi_pipeline.db.moving_in.source import OldSystem, read_old_system, reading
from kpi_pipeline.db.moving_in.take import Taken, take
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.server.addresses import direct_address
from kpi_pipeline.db.server.engine import open_engine, require_reachable
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.domain.remedies import backfill_command
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings


@dataclass(frozen=True)
class MovedIn:
    """What was taken, what was not and why, and what differs from our own computation."""

    matches: Matches
    taken: Taken
    comparison: Comparison
    targets_from: date


def read_source(url: URL, schema: str, settings: Settings, *, to_replace: bool) -> OldSystem:
    """Read the old system; before taking its place, check that it is in our own database.

    Raises:
        KpiError: if it can't be read, or is in another database and shall be replaced.
    """
    with ExitStack() as stack:
        source = stack.enter_context(reading(url))
        if to_replace:
            ours = stack.enter_context(_our_database(settings)).connect()
            stack.callback(ours.close)
            if not is_same_database(ours, source):
                raise KpiError(
                    "--replace takes the place of tables in our own database, and this address is "
                    "that of another one. Nothing was changed. Without --replace, clients and rows "
                    "are taken from it."
                )
        return read_old_system(source, schema)


def make_room(settings: Settings, schema: str) -> Replaced | None:
    """Keep the old tables under another name where ours are to be made in the same schema.

    None if ours have a schema of their own, or are there already.
    """
    with _our_database(settings) as engine, engine.begin() as connection:
        if own_schema(connection) != schema or has_our_tables(connection):
            return None
        return keep_old_tables(connection, schema)


def move_in(
    app: AppContext,
    old: OldSystem,
    *,
    labels: Mapping[str, str],
    targets_from: date | None,
    with_keys: bool,
    dry_run: bool,
) -> MovedIn:
    """Take the old clients, targets and rows, and compare the rows with ours.

    Without a month from which the targets hold, it is that of the first old row: the old system
    showed today's targets beside every month. With `dry_run`, nothing is written.
    """
    workspaces, notes = _listed_workspaces(app)
    with app.engine.connect() as connection:
        known = all_clients(connection)
    matches = match_clients(old.clients, known, workspaces, labels)
    matches.notes[:0] = [*old.notes, *notes]
    first = min((it.metric_date for it in old.rows if it.metric_type == "mtd"), default=app.today())
    month = first_of_month(targets_from or first)
    with app.engine.connect() as connection, connection.begin() as transaction:
        taken = take(
            connection,
            matches.found,
            old.rows,
            targets_from=month,
            vault=app.vault,
            zone=app.day_zone,
            with_keys=with_keys,
        )
        comparison = compare_old_rows(connection, app.today())
        if dry_run:
            transaction.rollback()
    return MovedIn(matches, taken, comparison, month)


def take_place(app: AppContext, schema: str, moved: MovedIn, *, incomplete: bool) -> Replaced:
    """Put views of our tables under the old names; what was there is kept under another name.

    Where ours are in that schema themselves, they have the names already.

    Raises:
        KpiError: if rows that readers find there were not computed here yet, unless `incomplete`.
    """
    with app.engine.connect() as connection:
        if own_schema(connection) == schema:
            return Replaced([], [])
    missing = moved.comparison.uncomputed
    if missing and not incomplete:
        raise KpiError(
            f"Readers would lose {counted(sum(map(len, missing.values())), 'row')}, which nobody "
            f"computed here yet. Nothing was replaced. Run `{fill_command(moved.comparison)}` and "
            "then this again; or add --incomplete."
        )
    with app.engine.begin() as connection:
        replaced = keep_old_tables(connection, schema)
        put_views_in_place(connection, schema)
        return replaced


def fill_command(comparison: Comparison) -> str:
    """The command that computes the old rows that are not computed here yet."""
    days = [day for of_client in comparison.uncomputed.values() for day in of_client]
    return backfill_command(min(days), max(days), list(comparison.uncomputed))


@contextmanager
def _our_database(settings: Settings) -> Iterator[Engine]:
    if settings.database_url is None:
        raise KpiError(
            "--replace needs KPI_DATABASE_URL: the old system is in no database of the embedded "
            "server."
        )
    engine = open_engine(direct_address(settings))
    try:
        require_reachable(engine, "KPI_DATABASE_URL")
        yield engine
    finally:
        engine.dispose()


def _listed_workspaces(app: AppContext) -> tuple[Listed, list[str]]:
    """The workspaces of each instance by id, and why those of an instance are not known."""
    notes: list[str] = []
    listed: dict[str, Mapping[int, str] | None] = {}

    async def list_all() -> None:
        for name, instance in app.instances().items():
            if instance.master_key is None:
                listed[name] = None
                notes.append(
                    f"{name} has no master key in KPI_BISON_INSTANCES: its workspaces can't be "
                    "listed, and the ids of the old registry are not checked."
                )
                continue
            async with app.bison_client(instance) as bison:
                try:
                    found = await bison.list_workspaces()
                except BisonError as error:
                    listed[name] = None
                    notes.append(f"The ids of the old registry are not checked: {error}")
                else:
                    listed[name] = {it.id: it.name for it in found}

    asyncio.run(list_all())
    return listed, notes
