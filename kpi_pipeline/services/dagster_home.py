"""The environment in which Dagster's processes find their configuration, database and code."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.server.slots import SLOTS_FOLDER, slots_folder
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import format_instances
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.private_folders import FOLDER_MODE, private_folder

if TYPE_CHECKING:
    from dagster import DagsterInstance


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with all that Dagster's processes need, settings included.

    Takes the settings of `ready_databases`, which have both addresses. Places dagster.yaml and
    workspace.yaml in the DAGSTER_HOME in the state folder.
    """
    home = settings.state_dir / "dagster"
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    private_folder(home)
    for name in ("dagster.yaml", "workspace.yaml"):
        _place(home / name, (files("kpi_pipeline") / "config" / name).read_bytes())
    if settings.dagster_database_url is None:
        raise ValueError("the settings have no database for Dagster")
    # What these settings lack, a child must not find in the variables of this process.
    fields = type(settings).model_fields
    unset = {f"KPI_{it.upper()}" for it in fields if getattr(settings, it) is None}
    return (
        {name: value for name, value in os.environ.items() if name not in unset}
        | _as_variables(settings)
        | {
            # The variables above hold all settings: a child must not read another file.
            "KPI_ENV_FILE": "",
            "DAGSTER_HOME": str(home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            SLOTS_FOLDER: str(slots_folder(settings.state_dir)),
            # The materializations of a large run are written in batches.
            "DAGSTER_EVENT_BATCH_SIZE": "500",
        }
    )


@contextmanager
def dagster_instance(settings: Settings) -> Iterator["DagsterInstance"]:
    """Dagster's instance in this process; missing tables are created.

    While the block runs, this process has the environment of Dagster's own processes.

    Raises:
        KpiError: if its database can't be reached.
    """
    # Dagster takes more than a second to import: only commands that need it pay for it.
    from dagster import DagsterInstance
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import OperationalError

    before = dict(os.environ)
    own = child_environment(settings)
    for name in before.keys() - own.keys():
        del os.environ[name]
    os.environ.update(own)
    try:
        try:
            instance = DagsterInstance.get()
        except (OperationalError, DagsterPostgresException):
            raise KpiError(
                "Dagster's database is unreachable. Check KPI_DAGSTER_DATABASE_URL, and run "
                "`kpi db upgrade` if it was never created."
            ) from None
        with instance:
            yield instance
    finally:
        os.environ.clear()
        os.environ.update(before)


def _place(file: Path, content: bytes) -> None:
    # Written only where it differs: a process of Dagster's may be reading it.
    if not file.exists() or file.read_bytes() != content:
        file.write_bytes(content)


def _as_variables(settings: Settings) -> dict[str, str]:
    # None means unset; where the default is another, it means off.
    values = {
        name: "off" if value is None and field.default is not None else value
        for name, field in type(settings).model_fields.items()
        for value in [getattr(settings, name)]
    }
    for name, entries in list(values.items()):
        if isinstance(entries, dict):
            del values[name]
            values |= {f"{name}_{entry}": value for entry, value in entries.items()}
    return {
        f"KPI_{name.upper()}": _as_text(value)
        for name, value in values.items()
        if value is not None
    }


def _as_text(value: object) -> str:
    """The value in the form that `load_settings` reads."""
    match value:
        case SecretStr():
            return value.get_secret_value()
        case tuple() if all(isinstance(it, SecretStr) for it in value):
            return " ".join(it.get_secret_value() for it in value)
        case tuple() if all(isinstance(it, str) for it in value):
            return ",".join(value)
        case tuple():
            return format_instances(value)
        case time():
            return f"{value:%H:%M}"
        case _:
            return str(value)


def update_grid(app: AppContext, settings: Settings) -> list[str]:
    """Add the active clients to Dagster's partitions; return them in the order of the partitions.

    Partitions of inactive clients stay: runs and backfills may cover them. `client_registry`
    removes them.
    """
    with dagster_instance(settings) as opened:
        from kpi_pipeline.orchestration.partitions import WORKSPACE, add_workspaces

        with app.engine.connect() as connection:
            active = [client.workspace for client in active_clients(connection)]
        add_workspaces(opened, active)
        return [it for it in opened.get_dynamic_partitions(WORKSPACE) if it in active]
