from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import IntegrityError

from kpi_pipeline.db.registry.api_keys import drop_key, mark_key, stored_keys
from kpi_pipeline.db.registry.clients import (
    Client,
    active_clients,
    all_clients,
    pick_clients,
    relabel,
)
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import clients
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.stocked import api_key, imported, record, rows_of

SEEN = datetime(2026, 3, 18, 6, 0, tzinfo=UTC)


def mark(
    connection: Connection, vault: Vault, workspace: str, verified_at: datetime | None
) -> None:
    key = stored_keys(connection, [workspace], vault)[workspace]
    mark_key(connection, workspace, key, verified_at)


def names(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {client.workspace: client.name for client in all_clients(connection)}


def test_an_imported_client_is_read_back_whole(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor", display_name="HB", api_key=api_key(7)))
    with engine.connect() as connection:
        assert all_clients(connection) == [
            Client(
                workspace="harbor",
                instance="main",
                bison_workspace_id=101,
                name="Harbor",
                display_name="HB",
                active=True,
                has_key=True,
                seen_in_bison_at=None,
            )
        ]


def test_a_client_is_called_by_its_display_name_where_it_has_one(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor", display_name="HB"), record(102, "Quay"))
    with engine.connect() as connection:
        assert [client.label for client in all_clients(connection)] == ["HB", "Quay"]


def test_a_renamed_client_keeps_its_key(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor"))
    assert imported(engine, vault, record(101, "Seaside")) == ["harbor"]
    assert names(engine) == {"harbor": "Seaside"}


def test_the_same_id_in_two_instances_is_two_clients(engine: Engine, vault: Vault) -> None:
    first, second = record(101, "Harbor"), record(101, "Harbor", instance="second")
    assert imported(engine, vault, first, second) == ["harbor", "harbor-2"]
    assert imported(engine, vault, second, first) == ["harbor-2", "harbor"]
    with engine.connect() as connection:
        assert [(it.workspace, it.instance) for it in all_clients(connection)] == [
            ("harbor", "main"),
            ("harbor-2", "second"),
        ]


def test_two_clients_of_one_name_are_two_clients(engine: Engine, vault: Vault) -> None:
    assert imported(engine, vault, record(101, "Harbor")) == ["harbor"]
    assert imported(engine, vault, record(102, "Harbor")) == ["harbor-2"]


def test_a_client_that_takes_over_a_former_name_does_not_take_over_the_key(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor"))
    assert imported(engine, vault, record(101, "Quay"), record(102, "Harbor")) == [
        "harbor",
        "harbor-2",
    ]


def test_a_client_that_a_file_does_not_name_stays_as_it_is(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay"))
    with engine.connect() as connection:
        before = rows_of(connection, clients)
    imported(engine, vault, record(102, "Pier"))
    with engine.connect() as connection:
        after = rows_of(connection, clients)
    assert after[0] == before[0]
    assert after[1]["name"] == "Pier"


def test_an_import_that_fails_at_its_end_writes_nothing(engine: Engine, vault: Vault) -> None:
    with pytest.raises(IntegrityError):
        imported(engine, vault, record(101, "Harbor"), targets_from=SEEN.date())
    assert names(engine) == {}


def test_a_reimport_keeps_the_api_key_where_the_file_has_none(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor", api_key=api_key(7)))
    with engine.begin() as connection:
        mark(connection, vault, "harbor", SEEN)
    imported(engine, vault, record(101, "Harbor"))
    with engine.connect() as connection:
        key = stored_keys(connection, ["harbor"], vault)["harbor"]
    assert (key.secret, key.verified_at) == (api_key(7), SEEN)


def test_a_new_api_key_replaces_the_old_one_and_waits_to_be_verified(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor", api_key=api_key(7)))
    with engine.begin() as connection:
        mark(connection, vault, "harbor", SEEN)
    imported(engine, vault, record(101, "Harbor", api_key=api_key(8)))
    with engine.connect() as connection:
        key = stored_keys(connection, ["harbor"], vault)["harbor"]
    assert (key.secret, key.verified_at) == (api_key(8), None)


def test_a_key_is_marked_for_its_own_client_alone(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, *(record(it, f"Quay {it}", api_key=api_key(it)) for it in (1, 2)))
    with engine.begin() as connection:
        mark(connection, vault, "quay-2", SEEN)
        keys = stored_keys(connection, ["quay-1", "quay-2"], vault)
        assert {it: key.verified_at for it, key in keys.items()} == {"quay-1": None, "quay-2": SEEN}
        mark(connection, vault, "quay-2", None)
        assert stored_keys(connection, ["quay-2"], vault)["quay-2"].verified_at is None


def test_the_result_of_a_check_is_noted_for_the_key_that_was_checked_alone(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor", api_key=api_key(7)))
    with engine.connect() as connection:
        checked = stored_keys(connection, ["harbor"], vault)["harbor"]
    imported(engine, vault, record(101, "Harbor", api_key=api_key(8)))
    with engine.begin() as connection:
        mark_key(connection, "harbor", checked, SEEN)
        drop_key(connection, "harbor", checked)
        key = stored_keys(connection, ["harbor"], vault)["harbor"]
    assert (key.secret, key.verified_at) == (api_key(8), None)


def test_keys_are_read_for_the_named_clients_alone(engine: Engine, vault: Vault) -> None:
    keyed = [record(number, f"Harbor {number}", api_key=api_key(number)) for number in (1, 2)]
    imported(engine, vault, *keyed, record(3, "Quay"))
    with engine.connect() as connection:
        found = stored_keys(connection, ["harbor-2", "quay"], vault)
        assert [client.has_key for client in all_clients(connection)] == [True, True, False]
    assert {workspace: key.secret for workspace, key in found.items()} == {"harbor-2": api_key(2)}


def test_an_inactive_client_is_known_but_not_worked_for(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay", active=False))
    with engine.connect() as connection:
        assert [client.workspace for client in all_clients(connection)] == ["harbor", "quay"]
        assert [client.workspace for client in active_clients(connection)] == ["harbor"]
    imported(engine, vault, record(102, "Quay"))
    with engine.connect() as connection:
        assert len(active_clients(connection)) == 2


def test_clients_are_picked_in_the_order_asked_for(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay"), record(103, "Pier"))
    with engine.connect() as connection:
        picked = pick_clients(connection, iter(["quay", "harbor"]))
    assert [client.workspace for client in picked] == ["quay", "harbor"]


def test_every_unknown_client_is_named(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor"))
    with engine.connect() as connection, pytest.raises(KpiError) as error:
        pick_clients(connection, ["sloop", "harbor", "Harbor"])
    assert str(error.value) == (
        "There is no client sloop, Harbor. `kpi clients list` shows the workspaces."
    )


def test_every_inactive_client_that_is_asked_for_is_named(engine: Engine, vault: Vault) -> None:
    off = [record(number, f"Quay {number}", active=False) for number in (1, 2, 3)]
    imported(engine, vault, record(101, "Harbor"), *off)
    with engine.connect() as connection, pytest.raises(KpiError) as error:
        pick_clients(connection, ["quay-3", "harbor", "quay-1"])
    assert str(error.value) == (
        "Not active: quay-3, quay-1. Import the client again with active = yes."
    )


def test_names_of_email_bison_are_trimmed_and_change_nothing_else(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor", display_name="HB"), record(102, "Quay"))
    with engine.begin() as connection:
        relabel(connection, {"harbor": "  Seaside "}, SEEN)
    with engine.connect() as connection:
        harbor, quay = all_clients(connection)
        stored = connection.scalar(select(clients.c.name).where(clients.c.workspace == "harbor"))
    assert stored == "Seaside"
    assert (harbor.workspace, harbor.label, harbor.seen_in_bison_at) == ("harbor", "HB", SEEN)
    assert (quay.name, quay.seen_in_bison_at) == ("Quay", None)
