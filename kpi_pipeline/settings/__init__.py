"""Every setting of the pipeline: an environment variable KPI_…, or a line of the file .env."""

import re
from datetime import date, time, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict, SettingsError

from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import InstanceSetting, parse_instances, url_problem
from kpi_pipeline.settings.pages import PageSettings
from kpi_pipeline.settings.places import default_state_dir, settings_file
from kpi_pipeline.settings.variables import PREFIX, unknown_variables

# Two refreshes may fail, or a night be two hours late, before anyone is alerted. Runs take minutes
# to start on a busy day, however short the interval is.
_REFRESHES_UNTIL_STALE = 3
_SHORTEST_STALE_AFTER = timedelta(minutes=45)
_STALE_AFTER_A_DAY = timedelta(hours=26)
_MINUTES_A_DAY = 1440


@cache
def zone_names() -> frozenset[str]:
    """The names of all time zones, read from disk once in a process."""
    return frozenset(available_timezones())


class Settings(PageSettings):
    """The settings of one installation, built by `load_settings` and passed on from there.

    An empty variable counts as unset, so a line of `.env` may be blank.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
        # KPI_WEBHOOK_SECRET_EU_WEST is the entry `eu_west` of webhook_secret.
        env_nested_delimiter="_",
        env_nested_max_split=1,
    )

    state_dir: Path = Field(
        default_factory=default_state_dir,
        description="Folder of the embedded database, Dagster's files and the generated key; "
        "unset: `.kpi` in a checkout, else a folder of this user (~/.local/state/kpi_pipeline on "
        "Linux).",
    )
    timezone: Annotated[ZoneInfo, NoDecode] = Field(
        default=ZoneInfo("America/Chicago"),
        description="Time zone of schedules, deadlines and all times that people read, as "
        "`Area/City`.",
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
    database_direct_url: SecretStr | None = Field(
        default=None,
        description="The same KPI database without the pooler that KPI_DATABASE_URL names; used "
        "for upgrades, for live pages and for Dagster's tables; unset: KPI_DATABASE_URL.",
    )
    database_schema: str | None = Field(
        default=None,
        description="Schema of the KPI tables, made by `kpi db upgrade`; unset: the first of the "
        "role's search path, mostly `public`.",
    )
    dagster_database_schema: str | None = Field(
        default=None,
        description="Schema of Dagster's tables; unless KPI_DAGSTER_DATABASE_URL is set, they are "
        "in the KPI database then, and no second database is needed.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="Fernet key that encrypts the API keys, or several, newest first and separated "
        "by commas, while `kpi secret-key rotate` replaces one; unset: generated once as "
        "`secret.key` under KPI_STATE_DIR.",
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
        description="How many calls a second an instance gets, from all processes together; "
        "0: no limit.",
    )
    bison_calls_in_flight: int = Field(
        default=16,
        ge=1,
        le=256,
        description="How many calls may be under way at once, from all processes together.",
    )
    bison_concurrency: int = Field(
        default=8, ge=1, le=64, description="How many clients one run fetches side by side."
    )
    bison_timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        description="How many seconds one call may take before it is tried again.",
    )
    bison_attempts: int = Field(
        default=5,
        ge=1,
        description="How many times in all a call is tried when the error may be temporary.",
    )
    bison_timezone: Annotated[ZoneInfo | None, NoDecode] = Field(
        default=None,
        description="Time zone of Email Bison's days, and so of every date; unset: what `kpi bison "
        "measure` found before anything was stored, else KPI_TIMEZONE, and then sending plans are "
        "fetched only while it is the same date in all zones that a measurement left possible, or "
        "before one in UTC, US Eastern and KPI_TIMEZONE.",
    )
    series_max_days: int = Field(
        default=400, ge=61, description="How many days of the daily series one call covers at most."
    )
    first_date: date | None = Field(
        default=None,
        description="First date of the partition grid; unset: 1 January of last year.",
    )
    refresh_minutes: int | None = Field(
        default=15,
        description="How many minutes pass between two fetches of yesterday and today: a divisor "
        "of 60, or a multiple of 60 up to 1440; `off`: they are fetched only at night.",
    )
    workspaces_per_run: int = Field(
        default=50, ge=1, description="How many clients one scheduled run covers at most."
    )
    run_retention_days: int = Field(
        default=90,
        ge=7,
        description="For how many days finished runs are kept; older ones are deleted nightly "
        "unless they hold a partition's latest event.",
    )
    realtime: bool = Field(
        default=True,
        description="Whether webhooks change the numbers as they arrive; `off`: they are stored, "
        "and the sensor applies them within a minute.",
    )
    gateway_host: str = Field(
        default="127.0.0.1", description="Address on which the gateway receives webhooks."
    )
    gateway_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of the gateway; 0: any."
    )
    gateway_url: str | None = Field(
        default=None,
        description="Public address of the gateway, as `https://HOST`, to which Email Bison sends "
        "webhooks; unset: no webhook is registered or verified.",
    )
    webhook_secret: dict[str, SecretStr] = Field(
        default={},
        description="Last part of the address of an instance's webhooks; at least 24 letters, "
        "digits, `-` and `_`. One for each instance: KPI_WEBHOOK_SECRET_MAIN for `main`.",
    )
    event_feed_minutes: int | None = Field(
        default=5,
        ge=1,
        le=60,
        description="How many minutes pass between two readings of Email Bison's event feed, which "
        "has what webhooks dropped, and the leads of an agency without webhooks; `off`: it is not "
        "read.",
    )
    event_drop_dir: Path | None = Field(
        default=None,
        description="Folder from which files of events are ingested; unset: `events` under "
        "KPI_STATE_DIR.",
    )
    event_retention_days: int = Field(
        default=30,
        ge=1,
        description="For how many days the bodies of events and ingested files are kept; the "
        "columns from which the numbers are computed stay.",
    )

    fresh_by: Annotated[time, NoDecode] = Field(
        default=time(6),
        description="By when yesterday's numbers must be closed, as HH:MM in KPI_TIMEZONE.",
    )
    stale_after_hours: float | None = Field(
        default=None,
        gt=0,
        description="After how many hours today's numbers are stale; unset: after three times "
        "KPI_REFRESH_MINUTES, but 45 minutes at least and 26 hours at most; 26 hours if that is "
        "off.",
    )
    alert_urls: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Receivers of alerts: addresses in apprise's form (slack://…, mailto://…, "
        "json://…), separated by commas or blanks; unset: none.",
    )
    alert_remind_hours: int = Field(
        default=12,
        ge=1,
        description="After how many hours an alert about a lasting problem is repeated.",
    )
    summary_at: Annotated[time | None, NoDecode] = Field(
        default=time(8),
        description="When the daily summary is sent, as HH:MM in KPI_TIMEZONE; `off`: never.",
    )
    heartbeat_url: SecretStr | None = Field(
        default=None,
        description="Address of an external dead-man's switch (healthchecks.io and the like) for "
        "the nightly sync: pinged when it starts, when all its clients are in, and when it ended "
        "without some of them; unset: none.",
    )
    heartbeat_url_checks: SecretStr | None = Field(
        default=None,
        description="Address of an external dead-man's switch for checks and alerts: pinged when "
        "a scheduled round of checks is done, and alerts go out; unset: none.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="How log lines are written: `text`, or `json`, an object a line.",
    )

    @property
    def day_zone(self) -> ZoneInfo:
        """The zone of Email Bison's days: every date is a day of it."""
        return self.bison_timezone or self.timezone

    @property
    def drop_dir(self) -> Path:
        """The folder of dropped files."""
        return self.event_drop_dir or self.state_dir / "events"

    @property
    def stale_after(self) -> timedelta:
        """After what age today's numbers are stale."""
        if self.stale_after_hours is not None:
            return timedelta(hours=self.stale_after_hours)
        if self.refresh_minutes is None:
            return _STALE_AFTER_A_DAY
        after = _REFRESHES_UNTIL_STALE * timedelta(minutes=self.refresh_minutes)
        return min(max(after, _SHORTEST_STALE_AFTER), _STALE_AFTER_A_DAY)

    @field_validator("alert_urls", mode="before")
    @classmethod
    def _addresses(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        # An address may contain commas, too.
        entries = [
            it for it in re.split(r"[\s,]+(?=[A-Za-z0-9]+://)|\s+", value.strip(", \n")) if it
        ]
        if any("://" not in it for it in entries):
            raise ValueError("an entry is not an address; write each as SERVICE://…")
        return tuple(SecretStr(it.strip(",")) for it in entries)

    @field_validator("summary_at", "fresh_by", mode="before")
    @classmethod
    def _time_of_day(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value.strip()):
            raise ValueError(f"{value!r} is not a time; write one such as 08:00")
        return time.fromisoformat(value.strip())

    @field_validator("refresh_minutes")
    @classmethod
    def _evenly_spaced(cls, value: int | None) -> int | None:
        if value is not None and (
            value < 1 or value > _MINUTES_A_DAY or (60 % value and value % 60)
        ):
            raise ValueError(
                "it must divide an hour or be whole hours, a day at most; write 5, 10, 15, 20, 30, "
                "60, 120 or the like, or `off`"
            )
        return value

    # Validators of this kind are called from the last one to the first.
    @field_validator("summary_at", "event_feed_minutes", "refresh_minutes", mode="before")
    @classmethod
    def _or_off(cls, value: object) -> object:
        return None if isinstance(value, str) and value.strip().lower() == "off" else value

    @field_validator("timezone", "bison_timezone", mode="before")
    @classmethod
    def _known_zone(cls, value: object) -> object:
        if isinstance(value, str):
            if value not in zone_names():
                raise ValueError(f"{value!r} is not a time zone; write one such as America/Chicago")
            return ZoneInfo(value)
        return value

    @field_validator("database_schema", "dagster_database_schema")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(?!pg_)[a-z_][a-z0-9_]{0,62}", value):
            raise ValueError(
                f"{value!r} is no name of a schema; write small letters, digits and _, such as kpi"
            )
        return value

    @field_validator("bison_instances", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return parse_instances(value) if isinstance(value, str) else value

    @field_validator("gateway_url")
    @classmethod
    def _server_alone(cls, value: str | None) -> str | None:
        if value is None:
            return None
        # A whole address would hold a secret, so none is shown.
        if problem := url_problem(value.strip()):
            raise ValueError(problem)
        return value.strip().rstrip("/")

    @field_validator("webhook_secret")
    @classmethod
    def _hard_to_guess(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{24,200}", secret.get_secret_value()):
                raise ValueError(
                    f"the one of {name.upper()} must be 24 to 200 letters, digits, - and _; "
                    "`kpi webhook-secret` makes one"
                )
        if len({secret.get_secret_value() for secret in value.values()}) < len(value):
            raise ValueError("two instances have the same one; give each its own")
        return value

    @field_validator("state_dir", "event_drop_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            return value.expanduser().absolute()
        except RuntimeError:
            raise ValueError("it starts with the home folder of an unknown user") from None


def load_settings() -> Settings:
    """Read the environment and the file `.env` of the working folder; the environment wins.

    KPI_ENV_FILE names another file, and none when it is empty.

    Raises:
        KpiError: naming each variable that is unknown or has a wrong value, and what it should be.
    """
    file = settings_file()
    problems = unknown_variables(Settings.model_fields, file)
    try:
        # A byte order mark, as some editors write one, is no part of the first name.
        settings = Settings(_env_file=file, _env_file_encoding="utf-8-sig")
    except ValidationError as error:
        problems += [
            f"{PREFIX}{str(it['loc'][0]).upper()}: {it['msg'].removeprefix('Value error, ')}"
            for it in error.errors()
        ]
    except SettingsError:
        # The one setting that is a mapping; its members have variables of their own.
        problems.append(
            "KPI_WEBHOOK_SECRET: write one for each instance, as in KPI_WEBHOOK_SECRET_NAME"
        )
    if problems:
        raise KpiError(
            "Some settings are wrong. Correct them in the environment or in the settings file "
            "(docs/settings.md lists them all):" + "".join(f"\n  {it}" for it in problems)
        )
    return settings
