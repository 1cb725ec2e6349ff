"""`kpi migrate-from`: move in from the system that this one replaces."""

import csv
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kpi_pipeline.app import open_app
from kpi_pipeline.cli.common import cell, exit_unless, out, print_warning, print_whole
from kpi_pipeline.db.moving_in.compare import Comparison, Kind, as_lines
from kpi_pipeline.db.moving_in.replace import Replaced
from kpi_pipeline.db.moving_in.source import OldSystem
from kpi_pipeline.db.server.urls import parse_url
from kpi_pipeline.domain.formatting import counted, joined, listed
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.services.dagster_home import update_grid
from kpi_pipeline.services.database import databases_to_upgrade, ready_databases
from kpi_pipeline.services.moving_in import (
    MovedIn,
    fill_command,
    make_room,
    move_in,
    read_source,
    take_place,
)
from kpi_pipeline.settings import load_settings


def run(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="The old system's database, as postgresql://…; - reads it from standard input.",
        ),
    ],
    schema: Annotated[
        str, typer.Option(metavar="SCHEMA", help="The schema of its tables.")
    ] = "public",
    instance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NAME", help="Which of our instances an old one is; may be repeated."
        ),
    ] = None,
    targets_from: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m"],
            metavar="YYYY-MM",
            help="Month from which its targets hold; unset: that of its first row.",
        ),
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also take its API keys, for clients without one.")
    ] = False,
    differences: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write every number that differs into a CSV."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and compare, and write nothing.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Then keep its tables under another name, and put ours in their place.",
        ),
    ] = False,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Replace it though rows of it are not computed yet."),
    ] = False,
) -> None:
    """Take clients, targets and rows from the old system (client_registry, client_metrics).

    Its database is only read. Clients that are known stay as they are; a second run takes what is
    new. Its rows are kept as they are, for comparison: our numbers are computed from Email Bison's
    daily counts by `kpi backfill`, and what differs is listed here afterwards.
    """
    if replace and dry_run:
        raise KpiError("--replace changes the old tables' names: run --dry-run without it.")
    text = sys.stdin.readline().strip() if url == "-" else url
    settings = load_settings()
    if not settings.bison_instances:
        raise KpiError(NO_INSTANCE)
    labels = _labels(instance or [])
    source = parse_url(text, "The address of the old system")
    old = read_source(source, schema, settings, to_replace=replace)
    replaced = make_room(settings, schema) if replace else None
    with ExitStack() as stack:
        opened = databases_to_upgrade if replaced else ready_databases
        ready = stack.enter_context(opened(settings))
        app = stack.enter_context(open_app(ready))
        moved = move_in(
            app,
            old,
            labels=labels,
            targets_from=targets_from.date() if targets_from else None,
            with_keys=keys,
            dry_run=dry_run,
        )
        if moved.taken.new and not dry_run:
            update_grid(app, ready)
        _print(old, moved, dry_run=dry_run)
        if differences is not None:
            with differences.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(as_lines(moved.comparison.differences))
        if replace:
            replaced = replaced or take_place(app, schema, moved, incomplete=incomplete)
    if replaced is not None:
        _print_replaced(replaced)
    exit_unless(not (moved.matches.problems or moved.taken.unmatched))


def _labels(given: Sequence[str]) -> dict[str, str]:
    labels = {}
    for it in given:
        old, separator, ours = it.rpartition("=")
        if not separator or not ours.strip():
            raise KpiError(f"--instance {it!r} is not of the form OLD=NAME.")
        labels[old.strip()] = ours.strip()
    return labels


def _say(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)


def _print(old: OldSystem, moved: MovedIn, *, dry_run: bool) -> None:
    taken, matches = moved.taken, moved.matches
    days = [it.metric_date for it in old.rows]
    period = f", {min(days)} to {max(days)}" if days else ""
    _say(
        f"{old.where}: {counted(len(old.clients), 'client')}, {counted(len(old.rows), 'row')}"
        f"{period}."
    )
    done = "Would be taken" if dry_run else "Taken"
    if taken.changes_nothing:
        _say(
            f"Nothing is new: {counted(taken.clients, 'client')} and {counted(taken.rows, 'row')} "
            "were here already."
        )
    else:
        _say(
            f"{done}: {counted(taken.clients, 'client')} ({len(taken.new)} new), targets of "
            f"{len(taken.with_targets)} from {moved.targets_from:%Y-%m} on, API keys of "
            f"{len(taken.with_keys)}, {counted(taken.rows, 'row')} ({taken.new_rows:,} new, "
            f"{taken.changed_rows:,} changed)."
        )
    for note in (*matches.notes, *_about_rows(moved)):
        _say(f"  {note}")
    for problem in matches.problems:
        print_warning(f"Not taken: {problem}")
    for name, number in taken.unmatched.items():
        print_warning(f"Not taken: {counted(number, 'row')} of {name!r}, which is no taken client.")
    _print_comparison(moved.comparison)


def _about_rows(moved: MovedIn) -> list[str]:
    comparison, notes = moved.comparison, []
    if moved.taken.repeated:
        notes.append(
            f"{counted(moved.taken.repeated, 'row')} of a client and date that has a later one: "
            "the last is taken."
        )
    if comparison.gaps:
        worst = sorted(comparison.gaps, key=lambda it: -comparison.gaps[it])
        named = [f"{it} ({comparison.gaps[it]})" for it in worst]
        notes.append(f"Days without a row, which a backfill computes: {listed(named, 5)}.")
    if comparison.in_future:
        notes.append(f"{counted(comparison.in_future, 'row')} dated after today.")
    return notes


def _print_comparison(comparison: Comparison) -> None:
    if comparison.compared:
        _say(
            f"Compared with the rows computed here: {comparison.equal:,} of "
            f"{counted(comparison.compared, 'row')} are equal in every number."
        )
    if comparison.differences:
        kinds = [kind for kind in Kind if any(it.kind is kind for it in comparison.differences)]
        table = Table("Column", *kinds, "Largest difference")
        for column, counts in comparison.by_column().items():
            largest = comparison.largest(column)
            table.add_row(
                column,
                *(f"{counts[kind]:,}" for kind in kinds),
                f"{largest.workspace} {largest.metric_date}: {largest.old or '–'} there, "
                f"{cell(largest.here)} here",
            )
        print_whole(table, out)
    if comparison.of_inactive:
        _say(
            f"Of inactive clients, {counted(comparison.of_inactive, 'row')} can't be compared: "
            "they are not synced."
        )
    if comparison.uncomputed:
        rows = sum(map(len, comparison.uncomputed.values()))
        _say(
            f"Not computed here yet: {counted(rows, 'row')} of "
            f"{counted(len(comparison.uncomputed), 'client')}. Run `{fill_command(comparison)}`, "
            "and then this again: it lists what differs."
        )


def _print_replaced(replaced: Replaced) -> None:
    for line in replaced.kept:
        _say(f"{line}.")
    if replaced.kept:
        _say(
            "They keep their rights, and may hold API keys in plain text: drop them once nobody "
            "needs them."
        )
    _say(
        "Readers find our numbers under the old names. Stop the old jobs: what they would write is "
        "refused."
    )
    if replaced.readers:
        _say(
            f"The old tables could be read by {joined(replaced.readers)}; ours can't be. "
            "`kpi db grant-reader ROLE` lets a role read them."
        )
