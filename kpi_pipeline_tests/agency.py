"""An agency: the clients of a sandbox, imported into an installation, and what tests do with them.

In the test's own process, or with Dagster's real processes (`end_to_end.running`).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Table, select, text, update
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.db.registry.client_import import ClientRecord, import_clients
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.db.registry.vault import new_secret_key
from kpi_pipeline.db.tables import (
    client_api_keys,
    client_metrics,
    kpi_projections,
    raw_bison_stats,
)
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.instances import format_instances
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.run import ClientOutcome, run_sync
from kpi_pipeline.sync.scope import PartitionBlock
from kpi_pipeline_tests.bison_sandbox.running import Bison, Shortcut
from kpi_pipeline_tests.cli.running import address, calm_zone
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.expected import Row, expected_rows

SERIES = "/api/workspaces/v1.1/line-area-chart-stats"
SWITCH = "/api/workspaces/v1.1/switch-workspace"
PLANS = "/api/campaigns/sending-schedules"
WHO_AM_I = "/api/users"

ROW_TABLES = (raw_bison_stats, kpi_projections, client_metrics)
ASSETS = [table.name for table in ROW_TABLES]
Rows = dict[tuple[str, date], Row]


def ten_o_clock() -> ZoneInfo:
    """A time zone in which it is between ten and eleven: neither midnight nor six is near."""
    ahead = (10 - datetime.now(UTC).hour + 12) % 24 - 12
    # The names of these zones count the other way round.
    return ZoneInfo(f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT")


def variables_of(bison: Bison, zone: ZoneInfo) -> dict[str, str]:
    """The settings under which every process finds this sandbox, without a limit of calls."""
    return {
        "KPI_BISON_INSTANCES": format_instances([instance_of(bison)]),
        "KPI_BISON_CALLS_PER_SECOND": "0",
        "KPI_BISON_TIMEZONE": zone.key,
        # Tests of the event feed switch it on.
        "KPI_EVENT_FEED_MINUTES": "off",
        "KPI_TIMEZONE": zone.key,
    }


class Agency:
    """The clients of one instance of Email Bison, as an app has them, and their rows."""

    def __init__(self, app: AppContext, bison: Bison, instance: str = "main") -> None:
        self.app = app
        self.bison = bison
        self._instance = instance
        self.refresh()

    def refresh(self) -> None:
        """Read who the clients are, after an import."""
        with self.app.engine.connect() as connection:
            clients = [it for it in all_clients(connection) if it.instance == self._instance]
        self.ids = {client.workspace: client.bison_workspace_id for client in clients}
        own = {int(row["bison_workspace_id"]): row for row in self.bison.clients()}
        self._table = {slug: own[number] for slug, number in self.ids.items() if number in own}
        self.workspaces = list(self.ids)
        self.keyed = [slug for slug in self.workspaces if self.key(slug)]
        self.keyless = [slug for slug in self.workspaces if not self.key(slug)]
        # Where a promise is not about all 26, a few of both kinds show it sooner.
        self.some = [*self.keyed[:5], *self.keyless[:1]]

    @property
    def today(self) -> date:
        """The business date."""
        return self.app.today()

    def key(self, workspace: str) -> str | None:
        return self._table[workspace]["api_key"] or None

    def target(self, workspace: str) -> int | None:
        target = self._table[workspace]["monthly_kpi_target"]
        return int(target) if target else None

    def moved_to(self, instant: datetime) -> "Agency":
        self.bison.freeze(instant.isoformat())
        return self.with_app(now=lambda: instant)

    def with_settings(self, **changed: object) -> "Agency":
        settings = self.app.settings.model_copy(update=changed)
        return self.with_app(settings=settings)

    def with_app(self, **changed: Any) -> "Agency":
        other = copy(self)
        other.app = replace(self.app, **changed)
        return other

    def sync(
        self,
        dates: Sequence[date],
        workspaces: Sequence[str] | None = None,
        *,
        fetch: bool = True,
        run_id: str = "a run",
    ) -> dict[str, ClientOutcome]:
        block = PartitionBlock(self.workspaces if workspaces is None else workspaces, dates)
        outcomes = run_sync(self.app, block, fetch=fetch, run_id=run_id)
        assert [outcome.workspace for outcome in outcomes] == list(block.workspaces)
        return {outcome.workspace: outcome for outcome in outcomes}

    def synced(self, dates: Sequence[date], workspaces: Sequence[str] | None = None) -> None:
        assert errors(self.sync(dates, workspaces)) == {}

    def rows(self, table: Table = client_metrics) -> Rows:
        day = "date" if "date" in table.c else "metric_date"
        with self.app.engine.connect() as connection:
            found = connection.execute(select(table)).mappings()
            return {(row["workspace"], row[day]): dict(row) for row in found}

    def all_rows(self) -> dict[str, Rows]:
        return {table.name: self.rows(table) for table in ROW_TABLES}

    def table(self, table: Table) -> list[Row]:
        with self.app.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def sql(self, statement: str, **values: object) -> Sequence[Any]:
        """Execute a statement; return its rows."""
        with self.app.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    def expected(
        self,
        dates: Sequence[date],
        workspaces: Sequence[str] | None = None,
        as_of: Mapping[str, datetime] | None = None,
    ) -> Rows:
        """The numbers of `client_metrics`, from Email Bison's own totals for each window."""
        chosen = self.workspaces if workspaces is None else workspaces
        return expected_rows(
            str(self.bison.http.base_url),
            self.bison.master_key,
            {slug: (self.ids[slug], self.key(slug), self.target(slug)) for slug in chosen},
            dates,
            self.app.timezone,
            self.app.now(),
            as_of=as_of,
            transport=Shortcut(),
        )

    def forget_calls(self) -> None:
        self.bison.http.delete("/sandbox/calls").raise_for_status()

    def calls(self) -> dict[str, list[Mapping[str, Any]]]:
        """Bison's own log by client, in order of arrival.

        A rejected key is still its client's; a failed switch belongs to no client: its key is "".
        """
        slug_of_key = {
            int(key.split("|")[0]): slug for slug in self.keyed if (key := self.key(slug))
        }
        slug_of_id = {number: slug for slug, number in self.ids.items()}
        by_client: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for call in self.bison.calls():
            slug = slug_of_key.get(call["key_id"]) or slug_of_id.get(call["workspace_id"], "")
            by_client[slug].append(call)
        return by_client

    def verified_at(self, workspaces: Iterable[str]) -> dict[str, datetime | None]:
        keys = {row["workspace"]: row["verified_at"] for row in self.table(client_api_keys)}
        return {slug: keys[slug] for slug in workspaces}

    def give_key(self, workspace: str, key: str, verified_at: datetime | None = None) -> None:
        token = self.app.vault.encrypt(SecretStr(key))
        with self.app.engine.begin() as connection:
            connection.execute(
                update(client_api_keys)
                .where(client_api_keys.c.workspace == workspace)
                .values(encrypted_key=token, verified_at=verified_at)
            )

    def control(self, method: str, path: str, **body: object) -> httpx.Response:
        """Call one of the sandbox's control endpoints."""
        answer = self.bison.http.request(method, f"/sandbox/{path}", json=body or None)
        return answer.raise_for_status()

    def revoke(self, workspace: str) -> None:
        self.control("POST", "keys/revoke", workspace_id=self.ids[workspace])

    def restore(self, workspace: str) -> None:
        """Make the client's revoked key valid again."""
        self.control("POST", "keys/restore", workspace_id=self.ids[workspace])

    def delete(self, workspace: str) -> None:
        self.control("DELETE", f"workspaces/{self.ids[workspace]}")

    def rename(self, workspace: str, name: str) -> None:
        self.control("POST", f"workspaces/{self.ids[workspace]}/rename", name=name)


def open_agency(
    app: AppContext,
    bison: Bison,
    targets_from: date = date(2020, 1, 1),
    instance: str = "main",
) -> Agency:
    """Import the sandbox's own list of clients, as a user of the pipeline would."""
    params = {"instance": instance}
    text = bison.http.get("/sandbox/clients.csv", params=params).raise_for_status().text
    write(app, parse(text, app.instances(), "clients.csv"), targets_from)
    return Agency(app, bison, instance)


@contextmanager
def agency_on(
    database: URL,
    bison: Bison,
    monkeypatch: pytest.MonkeyPatch,
    zone: ZoneInfo | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Iterator[Agency]:
    """The sandbox's clients, in an installation that every process finds in its environment."""
    secrets = {"KPI_DATABASE_URL": address(database), "KPI_SECRET_KEY": new_secret_key()}
    for name, value in (variables_of(bison, zone or calm_zone()) | secrets).items():
        monkeypatch.setenv(name, value)
    with open_app(load_settings(), now) as app:
        yield open_agency(app, bison)


def write(
    app: AppContext, records: Sequence[ClientRecord], targets_from: date = date(2020, 1, 1)
) -> list[str]:
    with app.engine.begin() as connection:
        return import_clients(
            connection, records, targets_from=targets_from, vault=app.vault, zone=app.day_zone
        )


def errors(outcomes: Mapping[str, ClientOutcome]) -> dict[str, str]:
    return {slug: outcome.error for slug, outcome in outcomes.items() if outcome.error is not None}


def differences(rows: Rows, expected: Rows) -> list[str]:
    """Where the stored rows are not as expected, missing and surplus rows included."""
    return [f"{key} is not expected" for key in rows.keys() - expected.keys()] + [
        f"{key} {column}: {rows.get(key, {}).get(column, 'no row')!r} is not {value!r}"
        for key, row in expected.items()
        for column, value in row.items()
        if rows.get(key, {}).get(column, "no row") != value
    ]


def without(rows: Mapping[str, Rows] | Rows, *columns: str) -> Any:
    """The rows, at any depth, without some columns."""
    if not isinstance(rows, dict):
        return rows
    return {name: without(value, *columns) for name, value in rows.items() if name not in columns}


def of_clients(tables: Mapping[str, Rows], workspaces: Collection[str]) -> dict[str, Rows]:
    return {
        name: {key: row for key, row in rows.items() if key[0] in workspaces}
        for name, rows in tables.items()
    }


class Bystander:
    """Answers a key's calls of one path in place of the sandbox."""

    def __init__(self, app: ASGIApp, key: str, path: str, status: int, body: bytes) -> None:
        self.calls = 0
        self._app = app
        self._call = path, f"Bearer {key}".encode()
        self._answer = Response(body, status, media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authorization = dict(scope.get("headers", ())).get(b"authorization")
        if (scope.get("path"), authorization) == self._call:
            self.calls += 1
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)
