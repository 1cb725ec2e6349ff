"""The routes of the data API."""

import hashlib
from collections.abc import Collection
from datetime import date
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kpi_pipeline.checks.freshness import Deadlines, freshness_statuses
from kpi_pipeline.dashboard.api.answers import (
    csv_answer,
    json_answer,
    matches,
    parquet_answer,
    unchanged,
)
from kpi_pipeline.dashboard.api.openapi import description
from kpi_pipeline.dashboard.api.query import (
    Active,
    ClientsQuery,
    Format,
    RowsQuery,
    StatusQuery,
    parsed,
)
from kpi_pipeline.dashboard.site import site
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.db.exports import RowFilter, read_page, rows_version
from kpi_pipeline.db.facts import read_targets
from kpi_pipeline.db.metrics import MetricRow, read_metrics
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.domain.metrics import targets_of_month
from kpi_pipeline.domain.standing import Standing, standing


def rows(request: Request) -> Response:
    """GET /api/client-metrics: rows of the table, as JSON in pages, or all as CSV or Parquet."""
    query = parsed(RowsQuery, request.query_params)
    first, last = query.period()
    columns = query.column_names()
    cursor = query.cursor() if query.format is Format.JSON else None
    it = site(request)
    with it.engine.connect() as connection:
        workspaces = _known(connection, query.workspace)
        chosen = RowFilter(workspaces, first, last, columns, cursor)
        # Before the rows: if one changes meanwhile, the older tag has the caller ask again.
        tag = _tag(rows_version(connection, chosen), request)
        if matches(request, tag):
            return unchanged(tag)
        if query.format is Format.JSON:
            # The place of a row is needed for the next page, also where it is not asked for.
            placed = RowFilter(
                workspaces, first, last, ("workspace", "metric_date", *columns), cursor
            )
            found, more = read_page(connection, placed, query.limit)
            content: dict[str, object] = {
                "rows": [dict(zip(columns, row[2:], strict=True)) for row in found],
                "next": _next(request, *found[-1][:2]) if more else None,
            }
            return json_answer(content, headers={"ETag": tag})
    name = f"client_metrics_{first or 'all'}_{last or it.today()}"
    answer = csv_answer if query.format is Format.CSV else parquet_answer
    return answer(it.downloads, chosen, tag, name)


def clients(request: Request) -> Response:
    """GET /api/clients: who they are, and this month's targets. Without keys."""
    query = parsed(ClientsQuery, request.query_params)
    it = site(request)
    today = it.today()
    with it.engine.connect() as connection:
        found = [
            client
            for client in all_clients(connection)
            if query.active is Active.ALL or client.active == (query.active is Active.YES)
        ]
        targets = targets_of_month(
            read_targets(connection, [client.workspace for client in found]), today
        )
    content = []
    for client in found:
        target = targets.get(client.workspace)
        content.append(
            {
                "workspace": client.workspace,
                "display_name": client.label,
                "workspace_name": client.name,
                "instance": client.instance,
                "bison_workspace_id": client.bison_workspace_id,
                "active": client.active,
                "monthly_kpi_target": target and target.monthly_kpi_target,
                "monthly_sending_target": target and target.monthly_sending_target,
            }
        )
    return json_answer({"clients": content})


def status(request: Request) -> Response:
    """GET /api/status: how fresh each active client is, where its month stands, and all checks."""
    parsed(StatusQuery, request.query_params)
    it = site(request)
    now, today = it.now(), it.today()
    with it.engine.connect() as connection:
        fresh = freshness_statuses(connection, now, it.day_zone, Deadlines.of(it.settings))
        rows_of_today = {row.workspace: row for row in read_metrics(connection, today)}
        checks = read_outcomes(connection)
    return json_answer(
        {
            "date": today,
            "day_zone": it.day_zone.key,
            "now": now,
            "fresh": all(client.severity is None for client in fresh),
            "clients": [
                {
                    "workspace": client.workspace,
                    "data_from": client.as_of,
                    "severity": client.severity,
                    "problems": client.problems,
                    "standing": _standing(rows_of_today.get(client.workspace)),
                }
                for client in fresh
            ],
            "checks": [
                {
                    "name": check.name,
                    "asset": check.asset,
                    "passed": check.since is None,
                    "severity": check.severity,
                    "description": check.description,
                    "clients": check.clients,
                    "checked_at": check.checked_at,
                    "failing_since": check.since,
                }
                for check in checks
            ],
        }
    )


def openapi(_: Request) -> Response:
    """GET /api/openapi.json: the description of all this."""
    return json_answer(description())


ROUTES = [
    Route("/api/client-metrics", rows),
    Route("/api/clients", clients),
    Route("/api/status", status),
    Route("/api/openapi.json", openapi),
]


def _known(connection: Connection, names: Collection[str]) -> list[str] | None:
    """The workspaces that are asked for; None for all.

    Raises:
        HTTPException: 404 for one that no client has.
    """
    if not names:
        return None
    known = {client.workspace for client in all_clients(connection)}
    if unknown := sorted(set(names) - known):
        raise HTTPException(404, f"There is no client {unknown[0][:60]!r}.")
    return sorted(set(names))


def _tag(version: str, request: Request) -> str:
    """The entity tag of an answer: of its rows, and of what was asked for."""
    query = hashlib.sha256(str(request.url.query).encode()).hexdigest()[:8]
    # Weak, as the same answer may be sent compressed.
    return f'W/"{version}-{query}"'


def _next(request: Request, workspace: str, day: date) -> str:
    """The path of the next page: the same request, after this row, the last of its page."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "after"]
    query = urlencode([*kept, ("after", f"{workspace}/{day}")])
    return f"{site(request).path('/api/client-metrics')}?{query}"


def _standing(row: MetricRow | None) -> str:
    if row is None:
        return Standing.NO_DATA
    return standing(
        row.positive_replies_mtd, row.projection_positive_replies_eom, row.monthly_kpi_target
    )
