from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Table, insert, select

from kpi_pipeline.db.facts import store_facts
from kpi_pipeline.db.registry.client_import import ClientRecord, import_clients
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.calendar import days_between

CHICAGO = ZoneInfo("America/Chicago")
MARCH = date(2026, 3, 1)
TODAY = date(2026, 3, 18)
AS_OF = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
DAY_COUNTS = {
    "sent": 100,
    "replied": 10,
    "interested": 3,
    "bounced": 5,
    "unsubscribed": 2,
    "total_opens": 40,
    "unique_opens": 30,
}


def api_key(number: int) -> SecretStr:
    return SecretStr(f"{number}|{'Abcdefgh12' * 4}{number:08d}")


def record(workspace_id: int = 101, name: str = "Harbor Analytics", **changed: Any) -> ClientRecord:
    fields: dict[str, Any] = {
        "instance": "main",
        "bison_workspace_id": workspace_id,
        "name": name,
        "display_name": None,
        "active": True,
        "monthly_kpi_target": 60,
        "monthly_sending_target": None,
        "api_key": None,
    }
    return ClientRecord(**{**fields, **changed})


def imported(
    engine: Engine, vault: Vault, *records: ClientRecord, targets_from: date = MARCH
) -> list[str]:
    with engine.begin() as connection:
        return import_clients(
            connection, records, targets_from=targets_from, vault=vault, zone=CHICAGO
        )


def day(**counts: int) -> Mapping[str, int]:
    return {**DAY_COUNTS, **counts}


def stock_facts(
    connection: Connection,
    workspace: str,
    first: date = date(2026, 2, 1),
    last: date = TODAY,
    *,
    without: Iterable[date] = (),
    as_of: datetime = AS_OF,
    **counts: int,
) -> None:
    days = {it: day(**counts) for it in days_between(first, last) if it not in set(without)}
    store_facts(connection, workspace, days, as_of)


def stock_metrics(engine: Engine, workspace: str, day: date, **numbers: Any) -> None:
    """One row of client_metrics, in which only these numbers are known."""
    row = {
        "workspace": workspace,
        "workspace_name": workspace,
        "display_name": "the label of that day",
        "metric_date": day,
        "as_of": AS_OF,
        "source": "sync",
    }
    with engine.begin() as connection:
        connection.execute(insert(client_metrics).values({**row, **numbers}))


def rows_of(connection: Connection, table: Table) -> Sequence[Mapping[str, Any]]:
    by_key = select(table).order_by(*table.primary_key)
    return [dict(row) for row in connection.execute(by_key).mappings()]
