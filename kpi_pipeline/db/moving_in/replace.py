"""Ours take the place of the old tables, which are kept under another name."""

from collections.abc import Sequence
from dataclasses import dataclass
from secrets import randbelow

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from kpi_pipeline.db.moving_in.names import COUNTER, KEPT, OLD_NAMES
from kpi_pipeline.db.readers import VIEW_COMMENT, close_to_others, our_objects
from kpi_pipeline.domain.formatting import joined
from kpi_pipeline.errors import KpiError

# The old ones: not the tables and views of ours that have these names.
_OLD = text("""
    SELECT c.relname AS name, quote_ident(c.relname) AS quoted,
        pg_get_userbyid(c.relowner) AS owner,
        pg_has_role(c.relowner, 'USAGE') AS is_own,
        CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END
            AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = ANY (CAST(:names AS text[]))
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND coalesce(obj_description(c.oid, 'pg_class'), '') <> :comment
    ORDER BY c.relname
""")
_OLD_FUNCTIONS = text("""
    SELECT p.oid::regprocedure::text AS quoted, pg_get_userbyid(p.proowner) AS owner,
        pg_has_role(p.proowner, 'USAGE') AS is_own
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = :schema AND p.proname = :name
        AND coalesce(obj_description(p.oid, 'pg_proc'), '') <> :comment
""")
# Who could read the old table, for those who grant it again.
_READERS = text("""
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS role
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN aclexplode(c.relacl) a
    WHERE n.nspname = :schema AND c.relname = ANY (CAST(:names AS text[]))
        AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
    ORDER BY role
""")
_IS_TAKEN = text("SELECT to_regclass(:name) IS NOT NULL")
_FUNCTION = """
CREATE FUNCTION {schema}.increment_metric(
    p_workspace_name text,
    p_metric_name text,
    p_increment_by integer DEFAULT 1,
    p_idempotency_key text DEFAULT NULL
)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT {ours}.increment_metric($1, $2, $3, $4) $$
"""
_SIGNATURE = "increment_metric(text, text, integer, text)"


@dataclass(frozen=True)
class Replaced:
    """What was kept under another name, as sentences; and who could read the old tables."""

    kept: Sequence[str]
    readers: Sequence[str]


def is_same_database(ours: Connection, source: Connection) -> bool:
    """Whether both connections reach one database, whatever their addresses."""
    number = randbelow(2**31)
    ours.execute(text("SELECT pg_advisory_xact_lock(19, :number)"), {"number": number})
    # The locks of this database alone: others can hold the same number.
    found = text(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted "
        "AND classid = 19 AND objid = :number AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    return bool(source.scalar(found, {"number": number}))


def own_schema(connection: Connection) -> str:
    """The schema of our tables."""
    return str(connection.scalar(text("SELECT current_schema()")))


def has_our_tables(connection: Connection) -> bool:
    """Whether migrations ran in our schema."""
    return bool(connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")))


def keep_old_tables(connection: Connection, schema: str) -> Replaced:
    """Rename what the old system has under the names that its readers use: name → name_replaced.

    Foreign keys and views of other tables follow it. Nothing is dropped.

    Raises:
        KpiError: if it belongs to a role that this one may not act as, or if a name is taken.
    """
    chosen = {"schema": schema, "names": list(OLD_NAMES), "comment": VIEW_COMMENT, "name": COUNTER}
    relations = connection.execute(_OLD, chosen).all()
    functions = connection.execute(_OLD_FUNCTIONS, chosen).all()
    if foreign := [it.owner for it in (*relations, *functions) if not it.is_own]:
        raise KpiError(
            f"The old tables belong to the role {joined(sorted(set(foreign)))}, and only it may "
            "rename them. Run this with an address of that role, once."
        )
    readers = list(connection.scalars(_READERS, chosen))
    quoted = _quoted(connection, schema)
    kept = []
    try:
        with connection.begin_nested():
            for it in relations:
                new = f"{it.name}{KEPT}"
                connection.execute(text(f"ALTER {it.kind} {quoted}.{it.quoted} RENAME TO {new}"))
                kept.append(f"{schema}.{it.name} is kept as {schema}.{new}")
            for it in functions:
                connection.execute(text(f"ALTER FUNCTION {it.quoted} RENAME TO {COUNTER}{KEPT}"))
                kept.append(f"{schema}.{COUNTER} is kept as {schema}.{COUNTER}{KEPT}")
    except ProgrammingError as error:
        raise KpiError(
            f"An old table can't be renamed: {str(error.orig).splitlines()[0]}. Nothing was "
            "changed."
        ) from None
    return Replaced(kept, readers)


def put_views_in_place(connection: Connection, schema: str) -> None:
    """Make views of our tables under the old names, in the schema where readers expect them.

    What stands there already stays. Nobody has a right on them but the readers of ours.
    """
    ours, there = (_quoted(connection, it) for it in (own_schema(connection), schema))
    before = our_objects(connection)
    for name in OLD_NAMES:
        if connection.scalar(_IS_TAKEN, {"name": f"{there}.{name}"}):
            continue
        view = f"CREATE VIEW {there}.{name} AS SELECT * FROM {ours}.{name}"  # noqa: S608 - names
        connection.exec_driver_sql(view)
        connection.exec_driver_sql(f"COMMENT ON VIEW {there}.{name} IS '{VIEW_COMMENT}'")
    found = text("SELECT to_regprocedure(:signature) IS NOT NULL")
    if not connection.scalar(found, {"signature": f"{there}.{_SIGNATURE}"}):
        connection.exec_driver_sql(_FUNCTION.format(schema=there, ours=ours))
        connection.exec_driver_sql(f"COMMENT ON FUNCTION {there}.{_SIGNATURE} IS '{VIEW_COMMENT}'")
    close_to_others(connection, before)


def _quoted(connection: Connection, name: str) -> str:
    return str(connection.scalar(text("SELECT quote_ident(:name)"), {"name": name}))
