"""Who may read our tables: roles that were granted it, and nobody else.

Some hosts grant all rights on each new table to the roles of their web API, the anonymous one
included (PostgreSQL's default privileges). An upgrade revokes them on all that it made.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from kpi_pipeline.db.tables import metadata
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError

# What a reader may read: numbers, targets and labels. No API key, no event, no user.
READABLE = (
    *("client_metrics", "kpi_projections", "raw_bison_stats", "sending_plans", "client_targets"),
    *("clients", "day_zone", "old_metrics", "daily_kpi_sync_history", "client_registry"),
    *("client_leads", "client_latest_metrics", "cron_daily_kpi_sync_history"),
)
_VIEWS = READABLE[8:]
FUNCTIONS = ("increment_metric", "note_changed_row", "notify_subject", "notify_workspaces")
# The comment of the views that `moving_in.replace` creates, in another schema than ours.
VIEW_COMMENT = "kpi_pipeline: the view of the same name in its own schema"
# Roles of web APIs, should a host not use default privileges.
_API_ROLES = ("anon", "authenticated", "service_role", "web_anon")

_OURS = """
    SELECT c.oid, c.relname AS name, format('%I.%I', n.nspname, c.relname) AS quoted,
        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.relacl AS acl,
        c.relowner AS owner, c.relnamespace AS namespace
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE pg_has_role(c.relowner, 'USAGE') AND (
        (n.nspname = current_schema() AND c.relkind IN ('r', 'v')
            AND c.relname = ANY (CAST(:names AS text[])))
        OR (n.nspname = current_schema() AND c.relkind = 'S' AND EXISTS (
            SELECT FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
            WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')
                AND t.relname = ANY (CAST(:names AS text[]))
        ))
        OR (c.relkind = 'v' AND obj_description(c.oid, 'pg_class') = :comment)
    )
    UNION ALL
    SELECT p.oid, p.proname, p.oid::regprocedure::text, 'FUNCTION',
        coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner, p.pronamespace
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE pg_has_role(p.proowner, 'USAGE') AND p.proname = ANY (CAST(:functions AS text[]))
        AND (n.nspname = current_schema() OR obj_description(p.oid, 'pg_proc') = :comment)
"""
_OBJECTS = text(f"SELECT oid FROM ({_OURS}) o")  # noqa: S608 - no part of it comes from outside
# Roles to which a host grants what is made, in all schemas or in one.
_DEFAULTS = """
    SELECT a.grantee AS role, d.defaclnamespace AS namespace
    FROM pg_default_acl d CROSS JOIN aclexplode(d.defaclacl) a
    WHERE a.grantee <> d.defaclrole
"""
_OPEN = text(f"""
    SELECT DISTINCT o.oid, o.name, o.kind, o.quoted, a.grantee,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS role
    FROM ({_OURS}) o CROSS JOIN aclexplode(o.acl) a
    LEFT JOIN pg_roles g ON g.oid = a.grantee
    WHERE a.grantee <> o.owner
        AND (a.grantee = 0 OR g.rolname = ANY (CAST(:api_roles AS text[])) OR EXISTS (
            SELECT FROM ({_DEFAULTS}) d
            WHERE d.role = a.grantee AND d.namespace IN (0, o.namespace)
        ))
        AND NOT (
            a.privilege_type = 'SELECT' AND o.name = ANY (CAST(:readable AS text[]))
            AND EXISTS (SELECT FROM readers WHERE role = pg_get_userbyid(a.grantee))
        )
    ORDER BY role, o.name
""")  # noqa: S608 - no part of it comes from outside
_ROLE = text(f"""
    SELECT rolname AS name, rolsuper AS is_superuser,
        pg_has_role(oid, current_user, 'USAGE') AS is_ours,
        has_database_privilege(oid, current_database(), 'CONNECT') AS may_connect,
        rolname = ANY (CAST(:api_roles AS text[]))
            OR oid IN (SELECT role FROM ({_DEFAULTS}) d) AS of_a_web_api,
        format('%I', current_database()) AS database, current_schema() AS schema
    FROM pg_roles WHERE rolname = :role
""")  # noqa: S608 - no part of it comes from outside
_READABLE_HERE = text(f"""
    SELECT quoted FROM ({_OURS}) o WHERE name = ANY (CAST(:readable AS text[]))
""")  # noqa: S608 - no part of it comes from outside
# Those of our tables and views that the role may not use yet.
_SCHEMAS = text("""
    SELECT quote_ident(n.nspname) FROM pg_namespace n
    WHERE NOT has_schema_privilege(:role, n.oid, 'USAGE') AND (
        n.nspname = current_schema()
        OR has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION') AND EXISTS (
            SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind = 'v'
                AND obj_description(c.oid, 'pg_class') = :comment
        )
    )
""")
_READERS = text("SELECT role FROM readers ORDER BY role")
_NOTE = text("INSERT INTO readers VALUES (:role, now()) ON CONFLICT (role) DO NOTHING")


_VALUES = {
    "names": [*metadata.tables, "alembic_version", *_VIEWS],
    "functions": list(FUNCTIONS),
    "readable": list(READABLE),
    "api_roles": list(_API_ROLES),
    "comment": VIEW_COMMENT,
}


@dataclass(frozen=True)
class OpenTo:
    """A role that has rights on our tables without having been granted them by us, and on what."""

    role: str
    names: Sequence[str]

    def __str__(self) -> str:
        return f"{self.role}: {counted(len(self.names), 'table')} and functions"


@dataclass(frozen=True)
class Reader:
    """A role that may read now. `schema` is that of the tables; a host may let nobody connect."""

    role: str
    schema: str
    database: str
    may_connect: bool


def our_objects(connection: Connection) -> set[int]:
    """The ids of our tables, views, sequences and functions that exist now."""
    return set(connection.scalars(_OBJECTS, _VALUES))


def open_to_others(connection: Connection) -> list[OpenTo]:
    """What `close_to_others` would revoke now."""
    found: dict[str, list[str]] = {}
    for row in connection.execute(_OPEN, _VALUES):
        found.setdefault(row.role, []).append(row.name)
    return [OpenTo(role, names) for role, names in found.items()]


def close_to_others(connection: Connection, except_for: Collection[int] = ()) -> list[OpenTo]:
    """Revoke all rights of PUBLIC and of a host's web API on our tables, but those of readers.

    The objects `except_for` stay as they are, and so do rights of roles of other kinds: an operator
    granted them on purpose. Readers may then read what is new. Returns what was revoked.
    """
    closed: dict[str, list[str]] = {}
    for row in connection.execute(_OPEN, _VALUES).all():
        if row.oid in except_for:
            continue
        role = "PUBLIC" if row.role == "PUBLIC" else _quoted(connection, row.role)
        connection.execute(text(f"REVOKE ALL ON {row.kind} {row.quoted} FROM {role}"))
        closed.setdefault(row.role, []).append(row.name)
    for role in readers(connection):
        if _found(connection, role) is not None:
            _let_read(connection, role)
    return [OpenTo(role, names) for role, names in closed.items()]


def readers(connection: Connection) -> list[str]:
    """The roles that were granted the right to read."""
    return list(connection.scalars(_READERS))


def grant_reader(connection: Connection, role: str, *, also_web_api: bool = False) -> Reader:
    """Let a role read the numbers, now and after each upgrade; it gets no other right.

    Raises:
        KpiError: if there is no such role, if it is ours or a superuser, or if the host gives it
            to everybody who calls its web API and `also_web_api` is not set.
    """
    row = _found(connection, role)
    if row is None or role.upper() == "PUBLIC":
        raise KpiError(
            f"There is no role {role}. Create it first, as an administrator: "
            f"CREATE ROLE {role} LOGIN PASSWORD '…';"
        )
    if row.is_superuser or row.is_ours:
        raise KpiError(
            f"{role} can write to all tables already, as it is "
            f"{'a superuser' if row.is_superuser else 'the owner or a member of it'}. Name a role "
            "of its own for reading."
        )
    if row.of_a_web_api and not also_web_api:
        raise KpiError(
            f"{role} is a role of this host's web API: everybody who has its public key, or a "
            "login, would read the numbers of all clients. If that is meant, add --web-api."
        )
    connection.execute(_NOTE, {"role": role})
    _let_read(connection, role)
    return Reader(role, row.schema, row.database, row.may_connect)


def revoke_reader(connection: Connection, role: str) -> bool:
    """Take back what `grant_reader` gave; return whether the role was a reader."""
    deleted = connection.execute(text("DELETE FROM readers WHERE role = :role"), {"role": role})
    if _found(connection, role) is not None:
        quoted = _quoted(connection, role)
        for name in connection.scalars(_READABLE_HERE, _VALUES).all():
            revoke = f"REVOKE SELECT ON {name} FROM {quoted}"  # noqa: S608 - names, quoted
            connection.execute(text(revoke))
        # In `public`, a host may have given the role its usage for other tables.
        schema = connection.scalar(text("SELECT quote_ident(current_schema())"))
        if schema != "public":
            connection.execute(text(f"REVOKE USAGE ON SCHEMA {schema} FROM {quoted}"))
    return deleted.rowcount > 0


def _let_read(connection: Connection, role: str) -> None:
    quoted = _quoted(connection, role)
    names = connection.scalars(_READABLE_HERE, _VALUES).all()
    connection.execute(text(f"GRANT SELECT ON {', '.join(names)} TO {quoted}"))
    for schema in connection.scalars(_SCHEMAS, {**_VALUES, "role": role}).all():
        connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {quoted}"))


def _found(connection: Connection, role: str) -> Row[Any] | None:
    return connection.execute(_ROLE, {**_VALUES, "role": role}).first()


def _quoted(connection: Connection, role: str) -> str:
    return str(connection.scalar(text("SELECT quote_ident(:role)"), {"role": role}))
