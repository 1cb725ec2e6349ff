"""Each answer of an operator, tested as it is given."""

import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL, create_engine

from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import InstanceSetting
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
    inspect_database,
    is_behind_pooler,
)
from kpi_pipeline.services.set_up.zone_and_address import inspect_public_address, known_zone
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import closed_port
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.pgbouncer import Pooler


@pytest.mark.parametrize(
    ("answer", "zone"),
    [("Europe/Berlin", "Europe/Berlin"), (" america/new york", "America/New_York"), ("utc", "UTC")],
)
def test_a_time_zone_is_known_in_any_case(answer: str, zone: str) -> None:
    assert known_zone(answer).key == zone


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("Chicago", "Did you mean America/Chicago"),
        ("Amerika/Chicago", "Did you mean America/Chicago"),
        ("12", "Write one such as America/Chicago."),
    ],
)
def test_a_time_zone_that_is_none_is_answered_with_the_nearest(answer: str, hint: str) -> None:
    with pytest.raises(KpiError, match=f"'{answer}' is no time zone. {hint}"):
        known_zone(answer)


def _gateway(status: int) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/webhooks/bison/probe"
        return httpx.Response(status, headers={"Location": "https://other.example/"})

    return httpx.MockTransport(answer)


@pytest.mark.parametrize(
    ("status", "answers", "found"),
    [
        (405, True, "A gateway answers there."),
        (502, False, "not the gateway yet (status 502)"),
        (301, False, "redirects (301), which webhooks do not follow"),
    ],
)
def test_what_answers_at_the_public_address_is_said(status: int, answers: bool, found: str) -> None:
    address = inspect_public_address("https://kpi.agency.example/ ", transport=_gateway(status))
    assert (address.url, address.answers) == ("https://kpi.agency.example", answers)
    assert found in address.found
    assert address.warnings == ()


@pytest.mark.parametrize("answer", ["kpi.agency.example", "https://kpi.example/hooks", "https://"])
def test_a_public_address_is_scheme_and_host(answer: str) -> None:
    with pytest.raises(KpiError, match="write it as https://HOST"):
        inspect_public_address(answer)


@pytest.mark.parametrize(
    ("answer", "warning"),
    [
        ("http://kpi.agency.example", "has no TLS"),
        ("https://10.0.0.7", "of a private network"),
        ("http://localhost:8080", "of this machine or of a private"),
    ],
)
def test_an_address_that_email_bison_may_not_reach_is_warned_of(answer: str, warning: str) -> None:
    [said] = inspect_public_address(answer, transport=_gateway(405)).warnings
    assert warning in said


def test_an_instance_is_reached_and_its_key_lists_its_workspaces(bison: Bison) -> None:
    instance = instance_of(bison)
    assert reached_address(f" {instance.url}/ ") == instance.url
    found = found_workspaces(instance)
    assert {it.id for it in found} == {int(it["bison_workspace_id"]) for it in bison.clients()}
    assert [it.name.casefold() for it in found] == sorted(it.name.casefold() for it in found)


@pytest.mark.parametrize("key", ["", "a word", "17", "17|short", "17|" + "ü" * 40])
def test_what_has_not_the_form_of_a_key_is_not_sent(bison: Bison, key: str) -> None:
    before = len(bison.calls())
    instance = InstanceSetting("main", instance_of(bison).url, SecretStr(key))
    with pytest.raises(KpiError, match="That is not an API key"):
        found_workspaces(instance)
    assert len(bison.calls()) == before


def test_a_key_that_is_rejected_is_not_shown(bison: Bison) -> None:
    key = f"17|{'abcDEFghi123' * 4}"
    with pytest.raises(KpiError, match=r"Email Bison rejects the key \(answered 401") as rejected:
        found_workspaces(InstanceSetting("main", instance_of(bison).url, SecretStr(key)))
    assert key not in str(rejected.value)


@pytest.mark.parametrize("name", ["", "Main", "two words", "x" * 32])
def test_a_name_of_an_instance_fits_into_a_variable_and_a_file(name: str) -> None:
    with pytest.raises(KpiError, match="That is no name for an instance"):
        valid_name(name)


def test_an_address_without_an_answer_is_named() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(KpiError, match=f"{url} gives no answer: ConnectError"):
        reached_address(url)
    with pytest.raises(KpiError, match="Its address is not valid, write it as https://HOST"):
        reached_address("bison.example")


def test_keys_sent_as_plain_text_are_warned_of() -> None:
    assert address_warning("https://bison.example") is None
    assert address_warning("http://127.0.0.1:9000") is None
    assert "has no TLS" in str(address_warning("http://bison.example"))


def test_an_instance_is_added_or_replaced_and_an_address_has_one_name() -> None:
    main = InstanceSetting("main", "https://one.example", None)
    eu = InstanceSetting("eu", "https://two.example", None)
    assert with_instance([main], eu) == (main, eu)
    moved = InstanceSetting("main", "https://three.example", None)
    assert with_instance([main, eu], moved) == (moved, eu)
    with pytest.raises(KpiError, match="its address is that of main, name each server once"):
        with_instance([main], InstanceSetting("eu", "https://one.example", None))


@pytest.fixture
def role(postgres: URL, administer: Callable[[str], None]) -> Iterator[URL]:
    """A database in which a role without any other right may log in."""
    name = f"kpi_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    administer(f"CREATE ROLE {name} LOGIN")
    yield postgres.set(database=name, username=name)
    administer(f"DROP DATABASE {name} WITH (FORCE)")
    administer(f"DROP ROLE {name}")


def _as_owner(role: URL, statement: str) -> None:
    engine = create_engine(role.set(username="postgres"))
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def _settings(url: URL, dagster: URL | None = None) -> Settings:
    def plain(url: URL) -> SecretStr:
        text = url.set(drivername="postgresql").render_as_string(hide_password=False)
        return SecretStr(text)

    return Settings(
        database_url=plain(url), dagster_database_url=None if dagster is None else plain(dagster)
    )


def test_a_database_with_our_tables_is_current(database: URL) -> None:
    found = inspect_database(_settings(database, database))
    assert found.tables is Tables.CURRENT
    assert int(found.version.split(".")[0]) >= 14


def test_a_database_that_the_user_may_create_is_no_problem(postgres: URL) -> None:
    found = inspect_database(_settings(postgres.set(database=f"kpi_{uuid.uuid4().hex}")))
    assert (found.version, found.tables) == ("", Tables.ABSENT)


def test_a_database_that_is_missing_is_named_with_the_statement_that_makes_it(role: URL) -> None:
    missing = role.set(database=f"{role.database}_x")
    with pytest.raises(KpiError, match=f"CREATE DATABASE {missing.database} OWNER {role.username}"):
        inspect_database(_settings(missing))


def test_a_role_that_may_not_create_tables_is_named_with_the_grant(role: URL) -> None:
    with pytest.raises(KpiError, match=f"GRANT CREATE, USAGE ON SCHEMA public TO {role.username};"):
        inspect_database(_settings(role, role))


def test_tables_of_another_system_are_left_alone(
    role: URL, administer: Callable[[str], None]
) -> None:
    _as_owner(role, "CREATE TABLE client_metrics (client text)")
    with pytest.raises(SchemaTakenError, match="has a table client_metrics of another system"):
        inspect_database(_settings(role, role))
    own = _settings(role, role).model_copy(update={"database_schema": "kpi"})
    with pytest.raises(KpiError, match=f"CREATE SCHEMA kpi AUTHORIZATION {role.username};"):
        inspect_database(own)
    administer(f"GRANT CREATE ON DATABASE {role.database} TO {role.username}")
    assert inspect_database(own).tables is Tables.ABSENT


def test_without_a_second_database_dagster_gets_a_schema_where_one_may_be_made(
    role: URL, administer: Callable[[str], None]
) -> None:
    _as_owner(role, f"GRANT CREATE ON SCHEMA public TO {role.username}")
    remedy = f"CREATE SCHEMA dagster AUTHORIZATION {role.username};"
    with pytest.raises(KpiError, match=f"has no database {role.database}_dagster.*{remedy}"):
        inspect_database(_settings(role))
    administer(f"GRANT CREATE ON DATABASE {role.database} TO {role.username}")
    assert inspect_database(_settings(role)).dagster_schema == "dagster"


def test_behind_a_pooler_a_schema_for_dagster_needs_the_direct_address(
    role: URL, administer: Callable[[str], None], pgbouncer: Pooler
) -> None:
    _as_owner(role, f"GRANT CREATE ON SCHEMA public TO {role.username}")
    administer(f"GRANT CREATE ON DATABASE {role.database} TO {role.username}")
    pooled = _settings(pgbouncer.through(role))
    assert is_behind_pooler(pooled)
    assert not is_behind_pooler(_settings(role))
    with pytest.raises(KpiError, match="Set KPI_DATABASE_DIRECT_URL to the same database"):
        inspect_database(pooled)
    direct = pooled.model_copy(update={"database_direct_url": _settings(role).database_url})
    assert inspect_database(direct).dagster_schema == "dagster"


@pytest.mark.parametrize("name", ["Two words", "pg_kpi", 'a"; DROP TABLE clients', ""])
def test_a_schema_has_a_plain_name(name: str) -> None:
    with pytest.raises(KpiError, match="is no name of a schema"):
        checked_schema(name)


def test_a_read_only_server_is_named(role: URL, administer: Callable[[str], None]) -> None:
    administer(f"ALTER DATABASE {role.database} SET default_transaction_read_only = on")
    with pytest.raises(KpiError, match="is read-only, as a standby or by its settings"):
        inspect_database(_settings(role, role))


def test_a_server_without_an_answer_is_named_without_the_password(postgres: URL) -> None:
    url = URL.create(
        "postgresql", "kpi", "made-up-word", "127.0.0.1", int(closed_port()), database="kpi"
    )
    with pytest.raises(KpiError, match=r"postgresql://kpi:\*\*\*@127.0.0.1.* cannot be") as refused:
        inspect_database(_settings(url))
    assert "made-up-word" not in str(refused.value)
