"""Every setting of the pipeline: an environment variable KPI_…, or a line of the file .env."""

import os
import re
from datetime import date, time, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import API_KEY_FORM, InstanceSetting, is_api_key, parse_instances

# Who reads API keys from elsewhere, such as the CSV of clients, knows them by the same form.
__all__ = ["API_KEY_FORM", "PROJECT_ROOT", "Settings", "is_api_key", "load_settings"]

PROJECT_ROOT = Path(__file__).resolve().parents[1]

# Two refreshes may fail, or a night be late by an hour, before anybody need know.
_STALE_AFTER_HOURS = 3
_STALE_AFTER_HOURS_DAILY = 26


@cache
def zone_names() -> frozenset[str]:
    """The names of all time zones, as they are found on disk once in a process."""
    return frozenset(available_timezones())


class Settings(BaseSettings):
    """What an app decides. Built by `load_settings`, at the edge, and passed on from there.

    An empty variable counts as unset, so a line of `.env` can be left blank.
    """

    model_config = SettingsConfigDict(
        env_prefix="KPI_",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        # KPI_WEBHOOK_SECRET_EU_WEST is the entry `eu_west` of webhook_secret.
        env_nested_delimiter="_",
        env_nested_max_split=1,
    )

    state_dir: Path = Field(
        default=PROJECT_ROOT / ".kpi",
        description="Folder of the embedded database, Dagster's files and the generated key.",
    )
    timezone: Annotated[ZoneInfo, NoDecode] = Field(
        default=ZoneInfo("America/Chicago"),
        description="Time zone that bounds a business day, as `Area/City`.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL for the KPI tables, as `postgresql://USER:PASSWORD@HOST/DATABASE`; "
        "unset: an embedded server under KPI_STATE_DIR.",
    )
    dagster_database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL for Dagster's own tables; unset: a database beside the KPI one, "
        "with `_dagster` added to its name.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="Fernet key that encrypts the API keys; unset: generated once as `secret.key` "
        "under KPI_STATE_DIR.",
    )
    bison_instances: Annotated[tuple[InstanceSetting, ...], NoDecode] = Field(
        default=(),
        description="The Email Bison instances: `NAME https://HOST MASTER_KEY`, separated by "
        "commas. NAME is what the column `instance` of the clients' CSV holds; the super-admin "
        "key lists the workspaces and serves clients without a key, and may be left out.",
    )
    bison_calls_per_second: float = Field(
        default=5.0,
        ge=0,
        description="How many calls a second an instance is sent, by all processes together; "
        "0: no limit.",
    )
    bison_calls_in_flight: int = Field(
        default=16,
        ge=1,
        le=256,
        description="How many calls may be under way at once, over all processes.",
    )
    bison_concurrency: int = Field(
        default=8, ge=1, le=64, description="How many clients one run fetches side by side."
    )
    bison_timeout_seconds: float = Field(
        default=60.0, gt=0, description="How long one call may take before it is tried again."
    )
    bison_attempts: int = Field(
        default=5, ge=1, description="How often a call is tried in all when the trouble may pass."
    )
    bison_timezone: Annotated[ZoneInfo | None, NoDecode] = Field(
        default=None,
        description="Time zone that bounds Email Bison's days, where it is known; unset: sending "
        "plans are asked for only while it is the same date in UTC, US Eastern and KPI_TIMEZONE.",
    )
    series_max_days: int = Field(
        default=400, ge=61, description="How many days of the daily series one call asks for."
    )
    first_date: date | None = Field(
        default=None,
        description="First date of the partition grid; unset: 1 January of last year.",
    )
    hourly_refresh: bool = Field(
        default=True,
        description="Whether yesterday and today are fetched each hour; `off`: each night alone.",
    )
    workspaces_per_run: int = Field(
        default=50, ge=1, description="How many clients one scheduled run covers at most."
    )
    run_retention_days: int = Field(
        default=90,
        ge=7,
        description="For how many days finished runs are kept; older ones are deleted weekly "
        "unless they hold a partition's latest event.",
    )
    web_port: int = Field(
        default=3000, ge=0, le=65535, description="Port of Dagster's page on 127.0.0.1; 0: any."
    )

    realtime: bool = Field(
        default=True,
        description="Whether webhooks are worked into the numbers as they arrive; `off`: they are "
        "stored, and the sensor has them applied within a minute.",
    )
    gateway_host: str = Field(
        default="127.0.0.1", description="Address on which the gateway takes webhooks."
    )
    gateway_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the gateway; 0: any."
    )
    webhook_secret: dict[str, SecretStr] = Field(
        default={},
        description="Last part of the address of an instance's webhooks; at least 24 letters, "
        "digits, `-` and `_`. One for each instance: KPI_WEBHOOK_SECRET_MAIN for `main`.",
    )
    event_drop_dir: Path | None = Field(
        default=None,
        description="Folder in which files of events are taken up; unset: `events` under "
        "KPI_STATE_DIR.",
    )
    event_retention_days: int = Field(
        default=30,
        ge=1,
        description="For how many days the bodies of events are kept; what the numbers are made "
        "of stays.",
    )

    fresh_by: Annotated[time, NoDecode] = Field(
        default=time(6),
        description="By when yesterday's numbers are to be closed, as HH:MM in KPI_TIMEZONE.",
    )
    stale_after_hours: float | None = Field(
        default=None,
        gt=0,
        description="How old today's numbers may get; unset: 3, or 26 where KPI_HOURLY_REFRESH is "
        "off.",
    )
    alert_urls: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Who is told of trouble: addresses as apprise writes them (slack://…, "
        "mailto://…, json://…), separated by commas or blanks; unset: nobody.",
    )
    alert_remind_hours: int = Field(
        default=12, ge=1, description="After how many hours trouble that lasts is told again."
    )
    dagster_url: str | None = Field(
        default=None,
        description="Address of Dagster's page in alerts; unset: that of KPI_WEB_PORT on "
        "127.0.0.1.",
    )
    summary_at: Annotated[time | None, NoDecode] = Field(
        default=time(8),
        description="When the daily summary is sent, as HH:MM in KPI_TIMEZONE; `off`: never.",
    )
    heartbeat_url: SecretStr | None = Field(
        default=None,
        description="Called after each good scheduled sync and round of checks, for a watch from "
        "outside (healthchecks.io and the like); unset: none.",
    )

    @property
    def drop_dir(self) -> Path:
        """The folder of dropped files."""
        return self.event_drop_dir or self.state_dir / "events"

    @property
    def stale_after(self) -> timedelta:
        """How old today's numbers may get."""
        default = _STALE_AFTER_HOURS if self.hourly_refresh else _STALE_AFTER_HOURS_DAILY
        return timedelta(hours=self.stale_after_hours or default)

    @property
    def page_url(self) -> str:
        """Where people find Dagster's page."""
        return (self.dagster_url or f"http://127.0.0.1:{self.web_port}").rstrip("/")

    @field_validator("alert_urls", mode="before")
    @classmethod
    def _addresses(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        # A comma may stand within an address, too.
        entries = [
            it for it in re.split(r"[\s,]+(?=[A-Za-z0-9]+://)|\s+", value.strip(", \n")) if it
        ]
        if any("://" not in it for it in entries):
            raise ValueError("an entry is no address; write each as SERVICE://…")
        return tuple(SecretStr(it.strip(",")) for it in entries)

    @field_validator("summary_at", "fresh_by", mode="before")
    @classmethod
    def _time_of_day(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value.strip()):
            raise ValueError(f"{value!r} is no time; write one such as 08:00")
        return time.fromisoformat(value.strip())

    # Validators of this kind are called from the last one to the first.
    @field_validator("summary_at", mode="before")
    @classmethod
    def _or_off(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() == "off" else value

    @field_validator("timezone", "bison_timezone", mode="before")
    @classmethod
    def _known_zone(cls, value: object) -> object:
        if isinstance(value, str):
            if value not in zone_names():
                raise ValueError(f"{value!r} is no time zone; write one such as America/Chicago")
            return ZoneInfo(value)
        return value

    @field_validator("bison_instances", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return parse_instances(value) if isinstance(value, str) else value

    @field_validator("webhook_secret")
    @classmethod
    def _hard_to_guess(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{24,200}", secret.get_secret_value()):
                raise ValueError(
                    f"that of {name.upper()} is not 24 to 200 letters, digits, - and _; "
                    "`kpi webhook-secret` makes one"
                )
        if len({secret.get_secret_value() for secret in value.values()}) < len(value):
            raise ValueError("two instances have the same, so they cannot be told apart")
        return value

    @field_validator("state_dir", "event_drop_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            return value.expanduser().absolute()
        except RuntimeError:
            raise ValueError("the user whose home it starts with is not known here") from None


def load_settings() -> Settings:
    """Read the environment and the file `.env` beside the project.

    KPI_ENV_FILE names another file, and none when it is empty; the environment wins over the file.

    Raises:
        KpiError: naming each variable that does not fit, and what it should hold.
    """
    env_file = os.environ.get("KPI_ENV_FILE", str(PROJECT_ROOT / ".env"))
    if "KPI_ENV_FILE" in os.environ and env_file and not Path(env_file).is_file():
        raise KpiError(f"KPI_ENV_FILE names {env_file}, which is no file. Check the name.")
    try:
        return Settings(_env_file=env_file or None)
    except ValidationError as error:
        faults = "; ".join(
            f"KPI_{str(fault['loc'][0]).upper()}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise KpiError(
            f"The settings do not fit: {faults}. Mend them in the environment or in .env "
            "(.env.example lists them all)."
        ) from None
