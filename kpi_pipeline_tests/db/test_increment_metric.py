"""The counter function of old: its callers call it as before, and it stores events."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.inbox.replay import match_and_date, replay
from kpi_pipeline_tests.cli.running import calm_zone, wait_until
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.db.test_migrate import alembic_config
from kpi_pipeline_tests.inbox.support import Clients

# What the caller of the function names, and the count that it raises.
METRICS = {
    "interested_mtd": "interested",
    "replies_mtd": "replied",
    "bounces_mtd": "bounced",
    "unsubscribes_mtd": "unsubscribed",
    "emails_sent_mtd": "sent",
    "positive_replies": "interested",
    "positive_replies_mtd": "interested",
    "positive_replies_today": "interested",
    "positive_replies_current_month": "interested",
    "interested": "interested",
    "emails_sent_today": "sent",
    "all_replies_mtd": "replied",
    "bounced_mtd": "bounced",
    "unsubscribed": "unsubscribed",
    "unsubscribed_mtd": "unsubscribed",
    " Positive_Replies_MTD ": "interested",
}


@pytest.fixture
def clients(engine: Engine, vault: Vault) -> Clients:
    """Clients whose clock is that of the database, which dates its events by it."""
    records = [record(101, "Harbor Analytics"), record(102, "Quay"), record(103, "Idle Ltd")]
    imported(engine, vault, *records)
    clients = Clients(engine, vault, tz=calm_zone())
    clients.sql("UPDATE clients SET active = false WHERE workspace = 'idle-ltd'")
    clients.at = datetime.now(UTC) + timedelta(seconds=5)
    return clients


def increment(clients: Clients, workspace: object, metric: object, by: object = 1) -> None:
    clients.sql(
        "SELECT increment_metric(:workspace, :metric, :by)",
        **{"workspace": workspace, "metric": metric, "by": by},
    )


def error_of(clients: Clients, *arguments: object) -> str:
    """The error that the caller gets; nothing is stored."""
    with pytest.raises(DBAPIError) as refused:
        increment(clients, *arguments)
    assert clients.events("id") == []
    assert getattr(refused.value.orig, "sqlstate", None) == "22023"
    return str(refused.value.orig).splitlines()[0]


def test_a_client_is_found_by_name_or_key_trimmed_and_in_any_case(clients: Clients) -> None:
    names = ["Harbor Analytics", "harbor-analytics", " HARBOR-ANALYTICS", "  HARBOR analytics "]
    for name in names:
        increment(clients, name, "positive_replies_mtd")
    columns = "workspace", "instance", "bison_workspace_id", "source", "status"
    expected = ("harbor-analytics", "main", 101, "function", "received")
    assert clients.events(*columns) == [expected] * len(names)


def test_each_name_of_a_metric_raises_its_own_count(clients: Clients) -> None:
    for name in METRICS:
        increment(clients, "Quay", name)
    assert clients.events("metric") == list(METRICS.values())


def test_it_stores_an_event_for_each_one_and_touches_no_number(clients: Clients) -> None:
    increment(clients, "Quay", "positive_replies_mtd", 3)
    increment(clients, "Quay", "positive_replies_mtd", 1000)
    assert len(set(clients.events("idempotency_key"))) == 3 + 1000
    assert set(clients.events("business_date", "body")) == {(None, None)}
    assert clients.rows() == {}


def test_its_events_count_on_the_business_date_of_their_arrival(clients: Clients) -> None:
    increment(clients, "Quay", "positive_replies_mtd", 3)
    increment(clients, "Quay", "emails_sent_today")
    assert match_and_date(clients.inbox()) == 4
    [arrived_at, *_] = clients.events("arrived_at")
    day = business_date(arrived_at, clients.tz)
    assert set(clients.events("business_date")) == {day}
    assert replay(clients.inbox()).applied == 4
    row = clients.rows()["quay", day]
    assert (row["positive_replies_today"], row["emails_sent_today"]) == (3, 1)
    assert match_and_date(clients.inbox()) == 0


def test_events_that_were_set_aside_before_they_had_a_day_get_one_and_count(
    clients: Clients,
) -> None:
    increment(clients, "Quay", "positive_replies_mtd")
    clients.sql("UPDATE webhook_events SET status = 'set_aside', tries = 5")
    assert replay(clients.inbox()).applied == 1
    assert clients.events("status") == ["applied"]


def test_an_unknown_or_inactive_client_is_refused_with_a_sentence(clients: Clients) -> None:
    for name in ("Nobody", "", None, "Idle Ltd", "idle-ltd"):
        message = error_of(clients, name, "positive_replies_mtd")
        assert message.startswith(f"There is no active client {'NULL' if name is None else name}")
        assert "`kpi clients list`" in message


def test_a_name_that_two_clients_have_is_refused_and_their_keys_are_not(clients: Clients) -> None:
    imported(clients.engine, clients.vault, record(104, "quay", instance="emea"))
    assert error_of(clients, "QUAY ", "bounced").startswith(
        "Several active clients are called QUAY"
    )


def test_a_key_is_understood_though_another_client_is_called_so(clients: Clients) -> None:
    imported(clients.engine, clients.vault, record(104, "Quay", instance="emea"))
    [key] = clients.sql("SELECT workspace FROM clients WHERE instance = 'emea'")
    increment(clients, key[0], "bounced")
    increment(clients, "quay", "bounced")
    assert clients.events("workspace") == [key[0], "quay"]


def test_it_is_called_with_named_parameters_and_raises_by_one_unless_told_otherwise(
    clients: Clients,
) -> None:
    clients.sql(
        "SELECT increment_metric(p_workspace_name => 'Quay', p_metric_name => 'interested_mtd')"
    )
    clients.sql(
        "SELECT increment_metric(p_metric_name => 'replies_mtd', p_increment_by => 2, "
        "p_workspace_name => 'Harbor Analytics')"
    )
    clients.sql("SELECT increment_metric('Quay', 'bounces_mtd')")
    assert clients.events("workspace", "metric") == [
        ("quay", "interested"),
        ("harbor-analytics", "replied"),
        ("harbor-analytics", "replied"),
        ("quay", "bounced"),
    ]


def test_a_call_with_the_same_arguments_and_key_counts_once(clients: Clients) -> None:
    call = "SELECT increment_metric(:name, 'interested_mtd', 3, :key)"
    for name, key in [("Quay", "lead 7"), (" QUAY", "lead 7"), ("quay", " lead 7 ")]:
        clients.sql(call, name=name, key=key)
    assert clients.events("metric") == ["interested"] * 3
    # Another client, key, metric or number is another call.
    clients.sql(call, name="Harbor Analytics", key="lead 7")
    clients.sql(call, name="Quay", key="lead 8")
    clients.sql("SELECT increment_metric('Quay', 'replies_mtd', 3, 'lead 7')")
    clients.sql("SELECT increment_metric('Quay', 'interested_mtd', 2, 'lead 7')")
    assert len(clients.events("id")) == 3 * 4 + 2


def test_a_key_that_was_applied_counts_no_second_time(clients: Clients) -> None:
    call = "SELECT increment_metric('Quay', 'interested_mtd', 1, 'lead 7')"
    clients.sql(call)
    assert replay(clients.inbox()).applied == 1
    clients.sql(call)
    replay(clients.inbox())
    [row] = clients.rows().values()
    assert row["positive_replies_today"] == 1


@pytest.mark.parametrize("key", [None, "", "  "])
def test_calls_without_a_key_each_count(clients: Clients, key: str | None) -> None:
    for _ in range(2):
        clients.sql("SELECT increment_metric('Quay', 'interested_mtd', 1, :key)", key=key)
    assert len(clients.events("id")) == 2


def test_a_key_may_be_of_any_length(clients: Clients) -> None:
    for _ in range(2):
        clients.sql("SELECT increment_metric('Quay', 'replies_mtd', 1, repeat('\u00e9x', 50000))")
    assert len(clients.events("id")) == 1


def test_two_callers_with_the_same_key_at_once_count_once(
    clients: Clients, other_engine: Engine
) -> None:
    call = text("SELECT increment_metric('Quay', 'interested_mtd', 2, 'lead 7')")

    def other() -> None:
        with other_engine.begin() as connection:
            connection.execute(call)

    with ThreadPoolExecutor(1) as thread:
        with clients.engine.begin() as connection:
            connection.execute(call)
            second = thread.submit(other)
            wait_until(lambda: waits_for_a_lock(clients), "the second call to wait")
        second.result(timeout=60)
    assert len(clients.events("id")) == 2


def waits_for_a_lock(clients: Clients) -> bool:
    """Whether a connection to the database waits for another one's transaction."""
    [row] = clients.sql(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(row[0])


def test_an_unknown_metric_is_refused_with_those_there_are(clients: Clients) -> None:
    for name in ("opens", "", None, "positive_replies_last_7_days", "mtd"):
        message = error_of(clients, "Quay", name)
        assert message.startswith(f"There is no metric {'NULL' if name is None else name}: use ")


def test_a_number_that_is_no_increment_is_refused(clients: Clients) -> None:
    for by in (None, 0, -1, 1001):
        message = error_of(clients, "Quay", "positive_replies_mtd", by)
        assert message == f"A metric is raised by 1 to 1000, not by {'NULL' if by is None else by}."


@pytest.fixture
def stranger(engine: Engine, administer: Callable[[str], None]) -> Iterator[str]:
    """A role without any right, apart from those of everybody."""
    name = f"stranger_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {name}")
    yield name
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
    administer(f"DROP ROLE {name}")


def as_role(clients: Clients, role: str, *statements: str) -> None:
    """Execute the statements in one transaction, with the rights of the role."""
    with clients.engine.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        for statement in statements:
            connection.execute(text(statement))


CALL = "SELECT increment_metric('Quay', 'bounces_mtd')"


def test_a_role_without_the_right_may_not_call_it(clients: Clients, stranger: str) -> None:
    clients.sql(f"GRANT SELECT, INSERT ON clients, webhook_events TO {stranger}")
    with pytest.raises(DBAPIError, match="permission denied for function increment_metric"):
        as_role(clients, stranger, CALL)
    assert clients.events("id") == []


def test_the_right_to_execute_it_is_enough_for_a_role_that_may_do_nothing_else(
    clients: Clients, stranger: str
) -> None:
    clients.sql(f"GRANT EXECUTE ON FUNCTION increment_metric TO {stranger}")
    as_role(clients, stranger, CALL, CALL)
    assert clients.events("workspace") == ["quay", "quay"]
    for statement in ("SELECT FROM clients", "SELECT FROM webhook_events"):
        with pytest.raises(DBAPIError, match="permission denied for table"):
            as_role(clients, stranger, statement)


def test_a_caller_can_not_change_what_the_function_does(clients: Clients, stranger: str) -> None:
    """It runs with the rights of its owner, so names in it must not mean the caller's things."""
    clients.sql(f"GRANT EXECUTE ON FUNCTION increment_metric TO {stranger}")
    clients.sql(f"CREATE SCHEMA traps AUTHORIZATION {stranger}")
    clients.sql("CREATE TABLE public.called (by text)")
    as_role(
        clients,
        stranger,
        "CREATE FUNCTION traps.btrim(text) RETURNS text LANGUAGE sql AS "
        "'INSERT INTO public.called VALUES (current_user); SELECT $1'",
        "CREATE TABLE traps.webhook_events (instance text)",
        "SET LOCAL search_path = traps, pg_catalog, public",
        "SELECT public.increment_metric('Quay', 'bounces_mtd')",
    )
    assert clients.events("workspace") == ["quay"]
    assert clients.sql("SELECT * FROM called") == []


def test_a_role_that_could_call_the_function_before_can_after_an_upgrade_and_back(
    clients: Clients, stranger: str
) -> None:
    clients.sql(f"GRANT EXECUTE ON FUNCTION increment_metric TO {stranger}")
    with clients.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0012")
    clients.sql(f"GRANT ALL ON clients, webhook_events TO {stranger}")
    as_role(clients, stranger, "SELECT increment_metric('Quay', 'bounced', 1)")
    clients.sql(f"REVOKE ALL ON clients, webhook_events FROM {stranger}")
    upgrade(clients.engine)
    as_role(clients, stranger, CALL)
    assert clients.events("workspace") == ["quay", "quay"]
    [row] = clients.sql("SELECT count(*) FROM pg_proc WHERE proname = 'increment_metric'")
    assert row[0] == 1
