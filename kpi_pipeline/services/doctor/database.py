"""Checks of the KPI database: reached, at this version, with its rights, clock and dates."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from sqlalchemy import text

from kpi_pipeline.app import open_app
from kpi_pipeline.db.day_zone import ensure_day_zone, stored_day_zone
from kpi_pipeline.db.readers import close_to_others, open_to_others
from kpi_pipeline.db.registry.api_keys import stored_keys
from kpi_pipeline.db.server import rights as on_server
from kpi_pipeline.db.server.addresses import direct_address
from kpi_pipeline.db.server.engine import open_engine, require_reachable
from kpi_pipeline.db.server.slots import CONNECTIONS
from kpi_pipeline.db.server.urls import for_people
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.domain.formatting import counted, duration, joined, listed, whose_day
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.database import embedded_of, ready_databases
from kpi_pipeline.services.doctor.examination import Examination
from kpi_pipeline.services.doctor.finding import Finding, good, not_checked, problem, warning

OLDEST, NEWEST = 14, 18
_CLOCKS_MAY_DIFFER = 10.0


def database(examination: Examination) -> Iterator[Finding]:
    """The KPI database answers, accepts writes, and its tables are those of this version."""
    settings = examination.settings
    server = embedded_of(settings)
    if server is not None and not (server.data / "PG_VERSION").exists():
        yield problem(
            f"Nothing is set up in {settings.state_dir} yet.", "Start `kpi up` in this folder."
        )
        return
    ready = examination.stack.enter_context(ready_databases(settings, dagster_too=False))
    app = examination.stack.enter_context(open_app(ready, any_day_zone=True))
    examination.opened(app)
    with app.engine.connect() as connection:
        found = on_server.read_server(connection)
    where = for_people(app.engine.url) if server is None else f"the embedded one in {server.data}"
    if found.read_only:
        yield problem(
            f"The database {where} is read-only, as a standby or by its settings.",
            "Name the primary server in KPI_DATABASE_URL.",
        )
        return
    major = found.version_number // 10_000
    pooled = ", behind a pooler" if found.pooled else ""
    said = f"{where}: PostgreSQL {found.version}{pooled}, with the tables of this version."
    if OLDEST <= major <= NEWEST:
        yield good(f"The database is {said}")
    else:
        tried = f"PostgreSQL {OLDEST} to {NEWEST}"
        say = problem if major < OLDEST else warning
        yield say(f"The database is {said}", f"The pipeline is made for {tried}: use one of these.")


def tables(examination: Examination) -> Iterator[Finding]:
    """All KPI tables are in the schema that this role works in."""
    with examination.app.engine.connect() as connection:
        missing = on_server.missing_tables(connection)
        schema = on_server.read_server(connection).schema
    if missing:
        number = counted(len(missing), "KPI table")
        are = "is" if len(missing) == 1 else "are"
        yield problem(
            f"{number} {are} missing in the schema {schema}: {listed(missing)}.",
            "Restore the last dump with `kpi db restore`, or correct the search path of the role.",
        )
        return
    yield good(f"All KPI tables are in the schema {schema}.")


def rights(examination: Examination) -> Iterator[Finding]:
    """This role may use the KPI tables, and upgrade them."""
    with examination.app.engine.connect() as connection:
        state = on_server.read_server(connection)
        lacking = on_server.missing_rights(connection)
        owners = on_server.foreign_owners(connection)
    role, schema = state.role, state.schema
    if lacking:
        first, missing = next(iter(lacking.items()))
        yield problem(
            f"The role {role} may not use {counted(len(lacking), 'table')} in full: it lacks "
            f"{missing} on {first}.",
            "As their owner: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "
            f"{schema} TO {role};",
        )
    elif owners:
        yield warning(
            f"The role {role} can't upgrade the tables: they belong to {joined(owners)}.",
            f"Run `kpi db upgrade` as {joined(owners)}.",
        )
    elif not state.may_make_tables:
        yield warning(
            f"The role {role} can't upgrade the tables: it may make none in the schema {schema}.",
            f"As the owner of the database: GRANT CREATE ON SCHEMA {schema} TO {role};",
        )
    else:
        yield good(f"The role {role} may use and upgrade the KPI tables.")


def exposure(examination: Examination) -> Iterator[Finding]:
    """Neither PUBLIC nor a role of the host's web API has rights on the KPI tables."""
    with examination.app.engine.connect() as connection:
        found = open_to_others(connection)
    for it in found:
        yield problem(
            f"{it.role} has rights on {counted(len(it.names), 'object')} of ours: "
            f"{listed(it.names)}.",
            "`kpi doctor exposure --fix` and each `kpi db upgrade` revoke them.",
            fix=partial(_close, examination),
        )
    if not found:
        yield good("Neither PUBLIC nor a web API of the host has rights on the KPI tables.")


def _close(examination: Examination) -> str:
    with examination.app.engine.begin() as connection:
        close_to_others(connection)
    return "The rights of others were revoked."


def connections(examination: Examination) -> Iterator[Finding]:
    """The server leaves this role the connections that everything together needs."""
    with examination.app.engine.connect() as connection:
        if on_server.read_server(connection).pooled:
            yield good("A pooler shares the connections out.")
            return
        available = on_server.available_connections(connection)
    if available < CONNECTIONS:
        yield warning(
            f"The server leaves this role {counted(available, 'connection')}, and everything "
            f"together needs up to {CONNECTIONS}.",
            "Raise max_connections or the limit of the role, or end what else uses the server.",
        )
    else:
        yield good(f"The server leaves this role {counted(available, 'connection')}.")


def direct_url(examination: Examination) -> Iterator[Finding]:
    """KPI_DATABASE_DIRECT_URL leads to the same database, past the pooler."""
    app = examination.app
    with app.engine.connect() as connection:
        usual = on_server.read_server(connection)
    if app.settings.database_direct_url is None:
        if usual.pooled:
            yield good("A pooler is used for everything, as KPI_DATABASE_DIRECT_URL is unset.")
        else:
            yield good("It is not needed: no pooler is between.")
        return
    engine = open_engine(direct_address(app.settings), pool_size=1)
    try:
        require_reachable(engine, "KPI_DATABASE_DIRECT_URL")
        with engine.connect() as connection:
            direct = on_server.read_server(connection)
    finally:
        engine.dispose()
    where = for_people(engine.url)
    if direct.identity != usual.identity:
        yield problem(
            f"{where} is another database than that of KPI_DATABASE_URL.",
            "Name the same one in KPI_DATABASE_DIRECT_URL.",
        )
    elif direct.pooled:
        yield warning(
            f"A pooler is between at {where}, too.",
            "Name the server itself in KPI_DATABASE_DIRECT_URL, or leave it unset.",
        )
    else:
        yield good(f"{where} leads to the same database, past the pooler.")


def clock(examination: Examination) -> Iterator[Finding]:
    """The clocks of this machine and of the database agree."""
    before = utc_now()
    with examination.app.engine.connect() as connection:
        theirs = connection.scalar(text("SELECT clock_timestamp()"))
    middle = before + (utc_now() - before) / 2
    ahead = (middle - theirs).total_seconds()
    if abs(ahead) > _CLOCKS_MAY_DIFFER:
        yield warning(
            f"The clock of this machine is {_span(abs(ahead))} "
            f"{'ahead of' if ahead > 0 else 'behind'} that of the database.",
            "Set it by NTP: schedules tick by this clock, and rows are dated by the other.",
        )
    else:
        yield good("This machine and the database agree on the time.")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else duration(timedelta(seconds=seconds))


def dates(examination: Examination) -> Iterator[Finding]:
    """The stored dates are days of the zone that the settings name."""
    app = examination.app
    with app.engine.connect() as connection:
        stored = stored_day_zone(connection)
    if stored not in (None, app.day_zone.key):
        # It says what the change means, and what to do.
        ensure_day_zone(app.engine, app.settings)
    today = f"Today is {app.today()}{whose_day(app.day_zone, app.timezone)}"
    yield good(f"{today}; times are those of {app.timezone.key}.")


def stored(examination: Examination) -> Iterator[Finding]:
    """Every stored API key can be decrypted."""
    app = examination.app
    lost = []
    for client in (it for it in examination.clients if it.has_key):
        try:
            with app.engine.connect() as connection:
                examination.keys |= stored_keys(connection, [client.workspace], app.vault)
        except KpiError:
            lost.append(client.workspace)
    if lost:
        yield problem(
            f"The secret key is another than that of {counted(len(lost), 'stored API key')}, which "
            f"can't be decrypted: {listed(lost)}.",
            "Restore KPI_SECRET_KEY, or the file secret.key of the state folder, from a backup. "
            "If it is lost, so are these keys: `kpi keys rotate CLIENT` makes a new one of each.",
            lost,
        )
    elif examination.keys:
        yield good(f"{counted(len(examination.keys), 'stored API key')} can be decrypted.")
    else:
        yield not_checked("No API key is stored.")
