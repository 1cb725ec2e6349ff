"""What a server says of itself and allows this role: version, connections, rights on our tables."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from kpi_pipeline.db.server.sessions import is_pooled
from kpi_pipeline.db.tables import metadata

_SERVER = text("""
    SELECT current_setting('server_version_num')::int AS version_number,
        split_part(current_setting('server_version'), ' ', 1) AS version,
        current_setting('transaction_read_only') = 'on' AS read_only,
        current_schema() AS schema, current_user AS role,
        (SELECT oid::text FROM pg_database WHERE datname = current_database())
            || ' ' || extract(epoch FROM pg_postmaster_start_time())::text AS identity,
        has_database_privilege(current_database(), 'CREATE') AS may_make_schemas,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_make_tables
""")
_MISSING_RIGHTS = text("""
    SELECT t.name, string_agg(p.name, ', ' ORDER BY p.name) AS rights
    FROM unnest(CAST(:tables AS text[])) AS t (name)
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (name)
    WHERE to_regclass(quote_ident(t.name)) IS NOT NULL
        AND NOT has_table_privilege(to_regclass(quote_ident(t.name)), p.name)
    GROUP BY t.name
    ORDER BY t.name
""")
_MISSING_TABLES = text("""
    SELECT t.name FROM unnest(CAST(:tables AS text[])) AS t (name)
    WHERE to_regclass(quote_ident(t.name)) IS NULL
    ORDER BY t.name
""")
_FOREIGN_OWNERS = text("""
    SELECT DISTINCT pg_get_userbyid(c.relowner) AS owner
    FROM unnest(CAST(:tables AS text[])) AS t (name)
    JOIN pg_class c ON c.oid = to_regclass(quote_ident(t.name))
    WHERE NOT pg_has_role(c.relowner, 'USAGE')
    ORDER BY owner
""")
_CONNECTIONS = text("""
    SELECT least(
            current_setting('max_connections')::int
                - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true)::int, 0)
                - count(*) FILTER (WHERE a.usename IS DISTINCT FROM current_user),
            (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
            (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)
        ) AS available
    FROM pg_stat_activity a
    WHERE a.backend_type = 'client backend'
""")


@dataclass(frozen=True)
class ServerState:
    """What a server says of itself and of this role.

    `schema` is the one that tables are made in, or None if the search path names none that exists.
    `identity` tells this database from any other; `pooled` says that a pooler is between.
    `read_only` holds of a standby as well.
    """

    version_number: int
    version: str
    read_only: bool
    schema: str | None
    role: str
    identity: str
    may_make_schemas: bool
    may_make_tables: bool
    pooled: bool


def read_server(connection: Connection) -> ServerState:
    """The server behind this connection."""
    row = connection.execute(_SERVER).mappings().one()
    return ServerState(**row, pooled=is_pooled(connection))


def missing_tables(connection: Connection) -> list[str]:
    """The KPI tables that this role does not find."""
    return list(connection.scalars(_MISSING_TABLES, {"tables": _tables()}))


def missing_rights(connection: Connection) -> dict[str, str]:
    """The KPI tables that this role may not use in full, with the rights that it lacks."""
    rows = connection.execute(_MISSING_RIGHTS, {"tables": _tables()})
    return {row.name: row.rights for row in rows}


def foreign_owners(connection: Connection) -> list[str]:
    """The owners of KPI tables that this role may not act as: it cannot upgrade their tables."""
    return list(connection.scalars(_FOREIGN_OWNERS, {"tables": _tables()}))


def available_connections(connection: Connection) -> int:
    """How many connections the server leaves to this role, those that it has included."""
    return int(connection.scalar(_CONNECTIONS) or 0)


def _tables() -> list[str]:
    return sorted(metadata.tables)
