import gc
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import is_hypothesis_test, settings
from pydantic import SecretStr
from sqlalchemy import URL, Engine
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests import databases
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, receiving
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, on_stage, options
from kpi_pipeline_tests.guard import Guard, server_address
from kpi_pipeline_tests.pgbouncer import Pooler, pooling

# The sandbox of the fixture `bison` stands still at this instant: a Wednesday afternoon in Chicago.
NOW = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)

_TESTS = Path(__file__).parent
# The tests of this folder share one agency, which takes half a minute of processor time to start,
# and more for as long as it runs.
_ONE_AGENCY = "end_to_end/one_agency/"
# Their tests execute runs of Dagster, syncs of all clients, or whole commands.
_OF_RUNS = {"orchestration", "sync", "cli", "services"}
_SLOW = ("server", "runs", "browser", "long")
_GUARD = pytest.StashKey[Guard]()

# How many examples a property is tried with: `make test-long` names the third profile.
settings.register_profile("usual", max_examples=20)
settings.register_profile("ci", max_examples=80)
settings.register_profile("long", max_examples=200)
settings.load_profile("usual")


def pytest_configure(config: pytest.Config) -> None:
    """Start the guard of this run, which xdist's workers share."""
    if hasattr(config, "workerinput"):
        return
    config.stash[_GUARD] = Guard()
    if config.getoption("dist", "no") != "no":
        config.stash[_GUARD].start_server()


def pytest_collection() -> None:
    """Collect no garbage meanwhile: it is a sixth of the time of collecting the tests."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave out of later garbage collections what stays until the end anyway."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no process and no file behind."""
    if guard := config.stash.get(_GUARD, None):
        guard.close()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Mark the properties; begin with the slow tests, in random order.

    Then no process is left alone with a slow one at the end.
    """
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("thorough")
        if item.path.relative_to(_TESTS).parts[0] in _OF_RUNS:
            item.add_marker("runs")
        if item.get_closest_marker("alone") and "processes/" not in item.nodeid:
            raise pytest.UsageError(
                f"`make test-long` looks for tests that run alone in processes/: {item.nodeid}"
            )
    yield

    def place(item: pytest.Item) -> tuple[bool, bool, int]:
        limit = item.get_closest_marker("timeout")
        slow = any(map(item.get_closest_marker, _SLOW))
        # Those that may take longest come first.
        return _ONE_AGENCY not in item.nodeid, not slow, -limit.args[0] if limit else 0

    items.sort(key=place)


class ByWhatTheyShare(LoadFileScheduling):  # type: ignore[misc]
    """Has the tests of a file, and those that share an agency, run in one process."""

    def _split_scope(self, nodeid: str) -> str:
        if "[part " in nodeid:
            # One of several equal parts of a long test.
            return nodeid
        return _ONE_AGENCY if _ONE_AGENCY in nodeid else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    """How pytest-xdist deals the tests out to its processes."""
    return ByWhatTheyShare(config, log)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell lets what runs in its background ignore Ctrl-C, and so would our child processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _revisions_are_read_once() -> Iterator[None]:
    """A new Dagster reads its ninety migrations four times: 0.3 s of processor time."""
    read = ScriptDirectory.from_config
    folders: dict[str | None, ScriptDirectory] = {}

    def from_config(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in folders:
            folders[location] = read(config)
        return folders[location]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the developer's settings, .env or state folder, or keeps another's."""
    for name in list(os.environ):
        if name.startswith(("KPI_", "DAGSTER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KPI_ENV_FILE", "")
    monkeypatch.setenv("KPI_STATE_DIR", str(tmp_path / "state"))
    # Installations of several tests may be up at once.
    monkeypatch.setenv("KPI_DASHBOARD_PORT", "0")


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> URL:
    """The one PostgreSQL of the run; the address names the template with the KPI tables."""
    if guard := request.config.stash.get(_GUARD, None):
        guard.start_server()
    return server_address()


@pytest.fixture(scope="session")
def administer(postgres: URL) -> Callable[[str], None]:
    """Executes a statement as the superuser of that server."""
    return partial(databases.administer, postgres)


@pytest.fixture(scope="session")
def pgbouncer(postgres: URL) -> Iterator[Pooler]:
    """A pooler in transaction mode before that server: `pgbouncer.through(database)`."""
    with pooling(postgres) as running:
        yield running


@pytest.fixture(scope="session")
def _kept_database(postgres: URL) -> Iterator[databases.KeptDatabase]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    kept = databases.KeptDatabase(postgres, f"kpi_{worker}", str(postgres.database))
    yield kept
    kept.drop()


@pytest.fixture
def database(_kept_database: databases.KeptDatabase) -> Iterator[URL]:
    """A database of the test's own, with empty KPI tables."""
    yield _kept_database.url
    _kept_database.reset()


@pytest.fixture(scope="session")
def _kept_dagster(
    postgres: URL,
    _kept_database: databases.KeptDatabase,
    administer: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[databases.KeptDatabase]:
    """Dagster's database beside that of the tests. Its tables take a while to make."""
    # Imported only where a test needs it: it costs two seconds.
    from kpi_pipeline.services.dagster_home import dagster_instance
    from kpi_pipeline.services.database import databases_to_upgrade

    def plain(url: URL) -> str:
        return url.set(drivername="postgresql").render_as_string(hide_password=False)

    name = f"{_kept_database.url.database}_dagster"
    template = postgres.set(database=f"{name}_template")
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("dagster"),
        database_url=SecretStr(plain(postgres)),
        dagster_database_url=SecretStr(plain(template)),
    )
    with databases_to_upgrade(settings) as ready, dagster_instance(ready) as instance:
        instance.upgrade()
    # A database can be copied only while nobody is connected to it.
    administer(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE datname = '{template.database}'"
    )
    kept = databases.KeptDatabase(postgres, name, str(template.database))
    yield kept
    kept.drop()


@pytest.fixture
def dagster_database(_kept_dagster: databases.KeptDatabase) -> Iterator[URL]:
    """Dagster's database beside that of the test, up to date and empty."""
    yield _kept_dagster.url
    _kept_dagster.reset()


@pytest.fixture
def engine(database: URL) -> Iterator[Engine]:
    opened = open_engine(database)
    yield opened
    opened.dispose()


@pytest.fixture
def vault() -> Vault:
    return Vault(SecretStr(new_secret_key()))


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    with on_stage() as running:
        yield running


@pytest.fixture
def bison(stage: Stage) -> Iterator[Bison]:
    """A fresh sandbox of 26 clients, unlimited, that stands still at NOW."""
    with bison_on(stage, options()) as fresh:
        yield fresh


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that keeps what webhooks and alerts bring to it."""
    with receiving() as opened:
        yield opened


def instance_of(bison: Bison) -> InstanceSetting:
    """A sandbox as the instance `main` of the settings."""
    url = str(bison.http.base_url).rstrip("/")
    return InstanceSetting("main", url, SecretStr(bison.master_key))


@pytest.fixture(scope="session")
def _settings_of_app() -> Settings:
    """Read once: it takes 20 ms. The developer's environment is no part of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [it for it in os.environ if it.startswith("KPI_")]:
            patch.delenv(name)
        return Settings(
            bison_calls_per_second=0, bison_attempts=2, bison_timezone=ZoneInfo("America/Chicago")
        )


@pytest.fixture
def app(
    engine: Engine, vault: Vault, bison: Bison, tmp_path: Path, _settings_of_app: Settings
) -> AppContext:
    """An installation on the test's own database, against the sandbox, at NOW."""
    own = {"bison_instances": (instance_of(bison),), "state_dir": tmp_path / "state"}
    return AppContext(_settings_of_app.model_copy(update=own), engine, vault, lambda: NOW)
