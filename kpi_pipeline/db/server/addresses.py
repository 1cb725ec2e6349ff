"""The addresses of both databases, as the settings have them: which server, database and schema."""

from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.db.server.urls import dagster_url, parse_url, schema_of, with_schema
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings

# Of Dagster's tables, where they share a database with the KPI tables and no other is named.
DAGSTER_SCHEMA = "dagster"


def kpi_address(settings: Settings) -> URL:
    """The KPI database of settings that name one.

    Raises:
        KpiError: if KPI_DATABASE_URL is no address.
    """
    url = _required(settings.database_url, "KPI_DATABASE_URL")
    return with_schema(url, settings.database_schema)


def direct_address(settings: Settings) -> URL:
    """The KPI database without the pooler, where there is one: KPI_DATABASE_DIRECT_URL.

    For what a pooler in transaction mode can't do, or not as well: LISTEN, and upgrades.

    Raises:
        KpiError: if an address is none, or both name different databases.
    """
    direct = settings.database_direct_url
    if direct is None or settings.database_url is None:
        return kpi_address(settings)
    url = parse_url(direct.get_secret_value(), "KPI_DATABASE_DIRECT_URL")
    return with_schema(url, settings.database_schema)


def dagster_address(settings: Settings, kpi: URL | None = None) -> URL:
    """The database of Dagster's tables; `kpi` is that of the KPI tables where no setting names one.

    It is that of KPI_DAGSTER_DATABASE_URL; else the KPI database, if KPI_DAGSTER_DATABASE_SCHEMA
    names a schema in it; else one beside it, with `_dagster` added to its name. The last two are
    reached without the pooler, where KPI_DATABASE_DIRECT_URL says how.

    Raises:
        KpiError: if an address is none.
    """
    schema = settings.dagster_database_schema
    if settings.dagster_database_url is not None:
        url = _required(settings.dagster_database_url, "KPI_DAGSTER_DATABASE_URL")
        if schema is None and schema_of(url) is None and _is_kpi_database(url, settings):
            schema = DAGSTER_SCHEMA
        return with_schema(url, schema)
    if kpi is None:
        direct = settings.database_direct_url
        kpi = (
            _required(settings.database_url, "KPI_DATABASE_URL")
            if direct is None
            else _required(direct, "KPI_DATABASE_DIRECT_URL")
        )
    return dagster_url(kpi) if schema is None else with_schema(kpi, schema)


def _is_kpi_database(url: URL, settings: Settings) -> bool:
    """Whether this is an address of the KPI database, where both sets of tables would collide."""
    if settings.database_url is None:
        return False
    ours = [kpi_address(settings), direct_address(settings)]
    place = _place(url)
    return any(_place(it) == place for it in ours)


def _place(url: URL) -> tuple[object, ...]:
    return (
        url.host or url.query.get("host"),
        url.port or url.query.get("port", "5432"),
        url.database,
    )


def _required(address: SecretStr | None, setting: str) -> URL:
    if address is None:
        raise KpiError(f"{setting} is not set in this process.")
    return parse_url(address.get_secret_value(), setting)
