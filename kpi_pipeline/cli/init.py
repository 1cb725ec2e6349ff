"""`kpi init`: asks for what an installation needs, tests each answer, and writes it down."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from pydantic import SecretStr
from rich.markup import escape

from kpi_pipeline.bison import Workspace
from kpi_pipeline.cli.common import out, print_warning
from kpi_pipeline.cli.questions import Questions, text_of
from kpi_pipeline.db.registry.vault import key_file
from kpi_pipeline.db.registry.workspaces_csv import FoundWorkspace, add_workspaces
from kpi_pipeline.db.server.urls import for_people, parse_url
from kpi_pipeline.domain.formatting import counted, joined
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import InstanceSetting, format_instances
from kpi_pipeline.services.database import embedded_of
from kpi_pipeline.services.set_up.bison import (
    address_warning,
    found_workspaces,
    reached_address,
    valid_name,
    with_instance,
)
from kpi_pipeline.services.set_up.database import (
    SchemaTakenError,
    Tables,
    checked_schema,
    create_tables,
    inspect_database,
    is_behind_pooler,
    known_clients,
)
from kpi_pipeline.services.set_up.zone_and_address import (
    inspect_public_address,
    known_zone,
    new_webhook_secrets,
)
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.env_file import (
    file_to_write,
    other_in_environment,
    settings_with,
    write_settings,
)
from kpi_pipeline.settings.private_folders import private_state
from kpi_pipeline.settings.webhooks import without_secret

_NONE, _EMBEDDED = "none", "embedded"
_DATABASE = (
    *("database_url", "database_direct_url", "dagster_database_url"),
    *("database_schema", "dagster_database_schema"),
)
_WORKSPACES_SHOWN = 50


def run(
    context: typer.Context,
    instance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the Email Bison instance, of your choice; unset: main."
        ),
    ] = None,
    bison_url: Annotated[
        str | None, typer.Option(metavar="https://HOST", help="Address of Email Bison.")
    ] = None,
    master_key_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File that holds its super-admin key; -: standard input. Other users of a machine "
            "can read the options of a command, so none holds a key.",
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="PostgreSQL, as postgresql://USER@HOST/DATABASE; `embedded`: one under "
            "KPI_STATE_DIR. Set KPI_DATABASE_URL in place of this where it has a password.",
        ),
    ] = None,
    direct_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The same database without the pooler that --database-url names."
        ),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Schema of the KPI tables; unset: the role's own."),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Your time zone, such as America/Chicago.")
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="https://HOST",
            help="Public address of the gateway, to which Email Bison sends webhooks; `none`: its "
            "event feed is read every few minutes.",
        ),
    ] = None,
    clients: Annotated[
        Path, typer.Option(metavar="FILE.csv", help="Where the clients are to be filled in.")
    ] = Path("clients.csv"),
) -> None:
    """Set up an installation: ask for what it needs, test each answer, and write it down.

    Asks for Email Bison's address and super-admin key, the database, the time zone and the public
    address, or takes them from options and from what is set; without a terminal it asks nothing.
    Writes `.env`, readable by you alone, creates the tables in an empty database, and adds the
    workspaces that it finds to clients.csv. Safe to run again: what it does not ask about stays.
    """
    if context.find_root().params.get("in_demo"):
        raise KpiError("The demo needs no set-up. Run `kpi init` without --demo.")
    file = file_to_write()
    settings = settings_with(file)
    ask = Questions(sys.stdin.isatty() and master_key_file != "-")
    if ask.interactive:
        out.print(f"Settings go to {file}. Enter keeps what is in [brackets].", markup=False)
    bison, workspaces = _ask_bison(ask, settings, instance, bison_url, master_key_file)
    instances = with_instance(settings.bison_instances, bison)
    if schema:
        settings = settings.model_copy(update={"database_schema": checked_schema(schema)})
    if direct_url:
        settings = settings.model_copy(update={"database_direct_url": SecretStr(direct_url)})
    with_databases, tables = _ask_database(ask, settings, database_url)
    zone = _ask_zone(ask, settings, timezone)
    gateway = _ask_public_address(ask, settings, public_url)
    changed = settings.model_copy(update={"bison_instances": instances})
    values = {
        "KPI_BISON_INSTANCES": format_instances(instances),
        **{f"KPI_{it.upper()}": _plain(getattr(with_databases, it)) for it in _DATABASE},
        "KPI_TIMEZONE": zone.key,
        "KPI_GATEWAY_URL": gateway or "",
        **(new_webhook_secrets(without_secret(changed)) if gateway else {}),
    }
    written = write_settings(file, values)
    what = f"has {joined(written)} now" if written else "stays as it is"
    out.print(f"\n{file} {what} (mode 600).", markup=False, soft_wrap=True)
    if others := other_in_environment(values):
        print_warning(
            f"The environment has another {joined(others)}, and goes before the file. Unset it."
        )
    embedded, settings = embedded_of(settings), settings_with(file)
    if tables is Tables.ABSENT and settings.database_url and embedded and embedded.data.exists():
        _print_commands(
            f"The data of the embedded database stay in {embedded.data}. To bring them here, end "
            "`kpi up`, and run:",
            ["kpi db restore --from-embedded", "kpi init", "kpi up"],
        )
        return
    known = _prepare(settings, tables)
    found = [FoundWorkspace(bison.name, it.id, it.name) for it in workspaces]
    if found:
        out.print(add_workspaces(clients, found, known), markup=False, soft_wrap=True)
    else:
        out.print("`kpi clients template > clients.csv` writes a file to fill in.", markup=False)
    _print_next(settings, clients, tables)


def _ask_bison(
    ask: Questions,
    settings: Settings,
    name: str | None,
    url: str | None,
    key_file_name: str | None,
) -> tuple[InstanceSetting, Sequence[Workspace]]:
    """The instance, as it was tested, and the workspaces that its key lists."""
    configured = {it.name: it for it in settings.bison_instances}
    usual = next(iter(configured), "main")
    name = ask.ask(
        "Name of the Email Bison instance", "--instance", valid_name, given=name, current=usual
    )
    before = configured.get(name)

    def tested(text: str) -> str:
        address = reached_address(text)
        _print_good(f"Email Bison answers at {address}.")
        if warning := address_warning(address):
            print_warning(warning)
        return address

    address = ask.ask(
        "Its address (https://HOST)",
        "--bison-url",
        tested,
        given=url,
        current=before.url if before else None,
    )
    if before and before.url != address:
        print_warning(
            f"{name} was {before.url}. A name belongs to its server for good, as ids repeat "
            "between servers: give another server a name of its own."
        )
    old = before.master_key.get_secret_value() if before and before.master_key else _NONE
    found = InstanceSetting(name, address, None)

    def tested_key(text: str) -> tuple[InstanceSetting, Sequence[Workspace]]:
        if text == _NONE:
            print_warning("Without a super-admin key, each client needs an API key of its own.")
            return found, ()
        with_key = replace(found, master_key=SecretStr(text))
        workspaces = found_workspaces(with_key)
        _print_good(f"Its key lists {counted(len(workspaces), 'workspace')}:")
        _print_workspaces(workspaces)
        return with_key, workspaces

    return ask.ask(
        "Its super-admin key (hidden; `none`: no key)",
        "--master-key-file",
        tested_key,
        given=text_of(key_file_name),
        current=old,
        shown="as it is" if old != _NONE else _NONE,
        hidden=True,
    )


def _ask_database(ask: Questions, settings: Settings, given: str | None) -> tuple[Settings, Tables]:
    """The settings with the databases as they were tested; and what the KPI database holds."""
    secret = settings.database_url
    current = secret.get_secret_value() if secret else _EMBEDDED

    def tested(text: str) -> tuple[Settings, Tables]:
        if text == _EMBEDDED:
            return settings.model_copy(update=dict.fromkeys(_DATABASE)), Tables.ABSENT
        is_new = text != current
        address = ask.with_password(text, "KPI_DATABASE_URL") if is_new else text
        found = settings.model_copy(update={"database_url": SecretStr(address)})
        if ask.interactive and found.database_direct_url is None and is_behind_pooler(found):
            label = "A pooler is before it. Its address without the pooler (empty: none)"
            if direct := ask.line(label, hidden=False):
                direct = ask.with_password(direct, "KPI_DATABASE_DIRECT_URL")
                found = found.model_copy(update={"database_direct_url": SecretStr(direct)})
        try:
            database = inspect_database(found)
        except SchemaTakenError as error:
            if not ask.interactive:
                raise
            print_warning(str(error))
            schema = ask.line("Schema for the KPI tables [kpi]", hidden=False) or "kpi"
            found = found.model_copy(update={"database_schema": checked_schema(schema)})
            database = inspect_database(found)
        server = f"PostgreSQL {database.version}" if database.version else "it will be created"
        _print_good(f"{database.shown}: {server}; tables: {database.tables.value}.")
        if database.dagster_schema is not None:
            found = found.model_copy(update={"dagster_database_schema": database.dagster_schema})
            out.print(
                f"  Dagster's tables go into its schema {database.dagster_schema}, as there is no "
                "second database.",
                markup=False,
                soft_wrap=True,
            )
        return found, database.tables

    return ask.ask(
        "PostgreSQL (postgresql://USER@HOST:PORT/DATABASE, or `embedded`)",
        "--database-url",
        tested,
        given=given,
        current=current,
        shown=for_people(parse_url(current, "KPI_DATABASE_URL")) if secret else _EMBEDDED,
    )


def _ask_zone(ask: Questions, settings: Settings, given: str | None) -> ZoneInfo:
    current = settings.timezone.key
    return ask.ask("Your time zone", "--timezone", known_zone, given=given, current=current)


def _ask_public_address(ask: Questions, settings: Settings, given: str | None) -> str | None:
    def tested(text: str) -> str | None:
        if text == _NONE:
            return None
        address = inspect_public_address(text)
        for warning in address.warnings:
            print_warning(warning)
        mark = "[green]✓[/green]" if address.answers else "[yellow]·[/yellow]"
        out.print(f"{mark} {escape(f'{address.url}: {address.found}')}", soft_wrap=True)
        return address.url

    return ask.ask(
        "Public address to which Email Bison sends webhooks (https://HOST, or `none`)",
        "--public-url",
        tested,
        given=given,
        current=settings.gateway_url or _NONE,
    )


def _prepare(settings: Settings, tables: Tables) -> set[tuple[str, int]]:
    """Make the tables where there are none; the clients that the database has."""
    if warning := private_state(settings.state_dir):
        print_warning(warning)
    if tables is Tables.BEHIND:
        return set()
    if tables is Tables.ABSENT:
        create_tables(settings)
        _print_good("The database has all tables.")
    known, warning = known_clients(settings)
    if warning:
        print_warning(warning)
    if settings.secret_key is None:
        out.print(
            f"API keys are encrypted with {key_file(settings.state_dir)}: keep a copy of that file "
            "elsewhere.",
            markup=False,
            soft_wrap=True,
        )
    return known


def _print_next(settings: Settings, clients: Path, tables: Tables) -> None:
    """The next three commands; what can follow one another at once is one line."""
    then = []
    if any(it.master_key for it in settings.bison_instances):
        then.append("kpi keys create-missing")
    if settings.bison_timezone is None:
        then.append("kpi bison measure")
    if settings.gateway_url:
        then.append("kpi webhooks register")
    first = f"kpi clients import {clients}"
    if tables is Tables.BEHIND:
        first = f"kpi db upgrade && {first}"
    _print_commands(
        f"Fill in the targets in {clients}. Then run:",
        [first, " && ".join(then) or "kpi keys check", "kpi up"],
    )
    out.print("`kpi doctor` says what is still missing.", markup=False)


def _print_commands(heading: str, commands: Sequence[str]) -> None:
    out.print(f"\n{heading}", markup=False, soft_wrap=True)
    for command in commands:
        out.print(f"  {command}", markup=False, soft_wrap=True)


def _plain(value: str | SecretStr | None) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value or ""


def _print_good(text: str) -> None:
    out.print(f"[green]✓[/green] {escape(text)}", soft_wrap=True)


def _print_workspaces(workspaces: Sequence[Workspace]) -> None:
    for it in workspaces[:_WORKSPACES_SHOWN]:
        out.print(f"  {it.id:>6}  {it.name}", markup=False, soft_wrap=True)
    if (more := len(workspaces) - _WORKSPACES_SHOWN) > 0:
        out.print(f"  and {more:,} more")
