"""Reads the tables of the old system, in a transaction that can't write.

Of its registry one row is a client, known by `workspace_name`; of its `client_metrics` one row is a
client's day. Both grew by hand: any column but those of the keys may be missing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal

from pydantic import SecretStr
from sqlalchemy import URL, ColumnClause, Connection, column, create_engine, select, table, text
from sqlalchemy.pool import NullPool

from kpi_pipeline.db.moving_in.names import KEPT, METRICS, REGISTRY
from kpi_pipeline.db.server.engine import require_reachable
from kpi_pipeline.db.server.urls import for_people
from kpi_pipeline.domain.columns import METRIC_COLUMNS
from kpi_pipeline.domain.formatting import listed
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import is_api_key

# Columns of the registry that are taken. A registry holds keys and tokens under many names, so
# what is not named here is left.
_CLIENT_COLUMNS = (
    *("workspace_id", "workspace_name", "display_name", "is_active"),
    *("billing_type", "price_per_lead", "retainer_amount", "payout"),
    *("monthly_kpi_target", "monthly_sending_target", "daily_sending_target"),
    *("client_type", "kpi_dashboard_enabled"),
    *("bison_workspace_id", "bison_workspace_name", "bison_instance"),
    *("created_at", "updated_at"),
)
_API_KEY = "bison_api_key"
_KEYS_OF_ROWS = ("workspace_name", "metric_date", "metric_type")
# Numbers of the old rows, among them two that only its daily rows have.
_ROW_COLUMNS = (
    *METRIC_COLUMNS,
    *("emails_sent", "positive_replies", "emails_scheduled_today", "emails_scheduled_tomorrow"),
    *("created_at", "updated_at"),
)
_COLUMNS = text("""
    SELECT c.relname AS name, array_agg(a.attname::text) AS columns
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = :schema AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND c.relname = ANY (CAST(:names AS text[]))
    GROUP BY c.relname
""")
_MTD = "mtd"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class OldClient:
    """A client of the old registry. `row` has the columns that are taken, as JSON has them."""

    name: str
    row: Mapping[str, object]
    api_key: SecretStr | None = None

    @property
    def names(self) -> set[str]:
        """The names by which Email Bison may know it, for comparison."""
        found = (self.name, self.text("bison_workspace_name"))
        return {it.casefold() for it in found if it}

    @property
    def active(self) -> bool:
        """Whether it was active; a registry without the column has active clients alone."""
        return self.row.get("is_active") is not False

    @property
    def bison_workspace_id(self) -> int | None:
        """The id of its workspace in Email Bison, if the registry has one."""
        return self.number("bison_workspace_id")

    def text(self, name: str) -> str | None:
        """A text, trimmed; None if it is blank."""
        value = self.row.get(name)
        return str(value).strip() or None if value is not None else None

    def number(self, name: str) -> int | None:
        """A whole number above 0; None for anything else. The old system's default is 0."""
        try:
            value = Decimal(str(self.row.get(name)))
        except ArithmeticError:
            return None
        return int(value) if value.is_finite() and 0 < value < 2**31 else None


@dataclass(frozen=True)
class OldRow:
    """A row of the old client_metrics; `values` has its numbers, as JSON has them."""

    name: str
    metric_date: date
    metric_type: str
    values: Mapping[str, object]
    updated_at: datetime = field(default=_LONG_AGO, compare=False)


@dataclass(frozen=True)
class OldSystem:
    """What the tables hold, and sentences about what they lack. `where` has no password."""

    where: str
    clients: Sequence[OldClient]
    rows: Sequence[OldRow]
    notes: Sequence[str]


@contextmanager
def reading(url: URL) -> Iterator[Connection]:
    """A connection to the old database that can't write: one snapshot of all of it.

    Raises:
        KpiError: if the database can't be reached.
    """
    engine = create_engine(
        url,
        poolclass=NullPool,
        hide_parameters=True,
        # Through a pooler, the next statement may reach another session.
        connect_args={
            "connect_timeout": 10,
            "application_name": "kpi_pipeline",
            "prepare_threshold": None,
        },
    )
    try:
        require_reachable(engine, "the address of the old system")
        with engine.connect() as connection:
            yield connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
    finally:
        engine.dispose()


def read_old_system(connection: Connection, schema: str) -> OldSystem:
    """Read the old tables in that schema, under their own names or those they are kept under.

    Raises:
        KpiError: if the registry or one of the key columns is not there.
    """
    where = for_people(connection.engine.url)
    names = {name: [f"{name}{KEPT}", name] for name in (REGISTRY, METRICS)}
    chosen = {"schema": schema, "names": [it for pair in names.values() for it in pair]}
    columns = {row.name: row.columns for row in connection.execute(_COLUMNS, chosen)}
    tables = {
        name: next((it for it in pair if it in columns), None) for name, pair in names.items()
    }
    registry, metrics = tables[REGISTRY], tables[METRICS]
    if registry is None:
        raise KpiError(
            f"{where} has no table {REGISTRY} in the schema {schema}. Name the old system's "
            "database, and its schema with --schema."
        )
    notes: list[str] = []
    _require(registry, columns[registry], ["workspace_name"])
    absent = [it for it in _CLIENT_COLUMNS if it not in columns[registry]]
    if absent:
        notes.append(f"{registry} has no column {listed(absent, 20)}.")
    clients = list(_clients(connection, schema, registry, columns[registry], notes))
    if metrics is None:
        notes.append(f"There is no table {METRICS}: clients and targets are taken alone.")
        return OldSystem(where, clients, [], notes)
    _require(metrics, columns[metrics], ["workspace_name", "metric_date"])
    absent = [it for it in METRIC_COLUMNS if it not in columns[metrics]]
    if absent:
        notes.append(f"{metrics} has no column {listed(absent, 30)}.")
    rows = list(_rows(connection, schema, metrics, columns[metrics], notes))
    return OldSystem(where, clients, rows, notes)


def _require(name: str, columns: Collection[str], needed: Sequence[str]) -> None:
    if missing := [it for it in needed if it not in columns]:
        raise KpiError(
            f"{name} has no column {listed(missing)}: it is no table of the old system. Name its "
            "schema with --schema."
        )


def _clients(
    connection: Connection, schema: str, name: str, columns: Collection[str], notes: list[str]
) -> Iterator[OldClient]:
    wanted = [it for it in (*_CLIENT_COLUMNS, _API_KEY) if it in columns]
    blank = keys = 0
    for row in _selected(connection, schema, name, wanted):
        own_name = str(row["workspace_name"] or "").strip()
        if not own_name:
            blank += 1
            continue
        key = str(row.get(_API_KEY) or "").strip()
        keys += bool(key)
        kept = {it: _as_json(value) for it, value in row.items() if it != _API_KEY}
        yield OldClient(own_name, kept, SecretStr(key) if is_api_key(key) else None)
    if blank:
        notes.append(f"{blank} rows of {name} have no name, and are left.")
    if keys:
        notes.append(
            f"{name} holds {keys} API keys in plain text: everybody who could read it has them. "
            "Create new ones (`kpi keys create-missing`), and delete the old ones in Email Bison."
        )


def _rows(
    connection: Connection, schema: str, name: str, columns: Collection[str], notes: list[str]
) -> Iterator[OldRow]:
    wanted = [it for it in (*_KEYS_OF_ROWS, *_ROW_COLUMNS) if it in columns]
    invalid = 0
    for row in _selected(connection, schema, name, wanted):
        day = _day(row["metric_date"])
        own_name = str(row["workspace_name"] or "").strip()
        if day is None or not own_name:
            invalid += 1
            continue
        updated = row.get("updated_at") or row.get("created_at")
        values = {it: _as_json(row[it]) for it in wanted if it not in _KEYS_OF_ROWS}
        metric_type = str(row.get("metric_type") or _MTD).strip().lower()
        yield OldRow(own_name, day, metric_type, values, _instant(updated))
    if invalid:
        notes.append(f"{invalid} rows of {name} have no name or no date, and are left.")


def _selected(
    connection: Connection, schema: str, name: str, columns: Sequence[str]
) -> Iterator[Mapping[str, object]]:
    chosen: list[ColumnClause[object]] = [column(it) for it in columns]
    statement = select(*chosen).select_from(table(name, schema=schema))
    for row in connection.execute(statement).mappings():
        yield {str(key): value for key, value in row.items()}


def _as_json(value: object) -> object:
    """As JSON has it; what it has no number for, such as NaN, as text."""
    match value:
        case None | bool() | int() | str():
            return value
        case datetime() | date():
            return value.isoformat()
        case _:
            return str(value)


def _day(value: object) -> date | None:
    match value:
        case datetime():
            return value.date()
        case date():
            return value
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        return None


def _instant(value: object) -> datetime:
    if not isinstance(value, datetime):
        return _LONG_AGO
    return value if value.tzinfo else value.replace(tzinfo=UTC)
