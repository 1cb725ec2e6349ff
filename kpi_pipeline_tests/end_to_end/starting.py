"""Starts an agency: databases, sandbox, Dagster's page and daemon, and ends them all."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.services.database import databases_to_upgrade
from kpi_pipeline.services.playground import playground
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline_tests.cli.running import calm_zone
from kpi_pipeline_tests.end_to_end.agency import Agency
from kpi_pipeline_tests.end_to_end.schedules import stop_schedules

_SANDBOX = {"clients": 26, "calls-per-second": 0, "latency": 0.01}


@contextmanager
def running_agency(
    server: URL,
    administer: Callable[[str], None],
    state: Path,
    sandbox_options: Mapping[str, object] = _SANDBOX,
    *,
    settings: Mapping[str, object] | None = None,
    schedules_on: bool = False,
    takes_webhooks: bool = False,
) -> Iterator[Agency]:
    """Start everything on databases of its own, as a user with a password of its own.

    `state` is its state folder, and `settings` are by name, beside those that every agency has.
    """
    with _own_environment(state), _own_database(server, administer) as url:
        described = _settings(url).model_copy(update=dict(settings or {}))
        with databases_to_upgrade(described):
            pass
        with (
            playground(
                described, sandbox_options, date(2020, 1, 1), takes_webhooks=takes_webhooks
            ) as play,
            httpx.Client(base_url=play.sandbox, timeout=30) as sandbox,
        ):
            # Today stands still, so that a row can be compared after the run that wrote it.
            now = datetime.now(UTC)
            body = {"now": now.isoformat()}
            sandbox.post("/sandbox/clock", json=body).raise_for_status()
            at_start = {} if schedules_on else stop_schedules(play.page)
            yield Agency(play, sandbox, now, str(url.password), at_start)


@contextmanager
def _own_environment(state: Path) -> Iterator[None]:
    """No settings of the developer's, nor of the one test that an agency may outlast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KPI_ENV_FILE", "")
        patch.setenv("KPI_STATE_DIR", str(state))
        patch.delenv("KPI_TIMEZONE", raising=False)
        yield


@contextmanager
def _own_database(server: URL, administer: Callable[[str], None]) -> Iterator[URL]:
    """An empty database, whose owner has a password and may create one for Dagster beside it."""
    name = f"agency_{secrets.token_hex(4)}"
    password = secrets.token_urlsafe(24)
    administer(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD '{password}'")
    administer(f"CREATE DATABASE {name} OWNER {name}")
    try:
        yield server.set(drivername="postgres", database=name, username=name, password=password)
    finally:
        administer(f"DROP DATABASE IF EXISTS {name}_dagster WITH (FORCE)")
        administer(f"DROP DATABASE {name} WITH (FORCE)")
        administer(f"DROP ROLE {name}")


def _settings(url: URL) -> Settings:
    database = SecretStr(url.render_as_string(hide_password=False))
    return load_settings().model_copy(
        update={
            "database_url": database,
            "timezone": calm_zone(),
            "web_port": 0,
            "gateway_port": 0,
            "bison_attempts": 2,
        }
    )
