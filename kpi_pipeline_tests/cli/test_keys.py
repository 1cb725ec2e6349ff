"""`kpi keys`, against a local Email Bison over HTTP, in which 3 of 26 clients have no key."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, Engine, update

from kpi_pipeline.db.registry.api_keys import StoredKey, stored_keys
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.registry.vault import open_vault
from kpi_pipeline.db.tables import client_api_keys
from kpi_pipeline.instances import format_instances
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison
from kpi_pipeline_tests.cli.running import Kpi, Result, cells, rows_of
from kpi_pipeline_tests.conftest import instance_of

pytestmark = pytest.mark.usefixtures("imported")

TOKENS = "/api-tokens"
SWITCH = f"{WORKSPACES}/switch-workspace"


@pytest.fixture
def keyless(engine: Engine) -> dict[str, int]:
    """The clients without a key, with their ids in Email Bison."""
    with engine.connect() as connection:
        return {
            client.workspace: client.bison_workspace_id
            for client in all_clients(connection)
            if not client.has_key
        }


@pytest.fixture
def keyed(engine: Engine) -> str:
    with engine.connect() as connection:
        return next(it.workspace for it in all_clients(connection) if it.has_key)


def keys_in(engine: Engine) -> dict[str, StoredKey]:
    settings = load_settings()
    with engine.connect() as connection:
        everybody = [client.workspace for client in all_clients(connection)]
        vault = open_vault(settings.secret_key, settings.state_dir)
        return stored_keys(connection, everybody, vault)


def id_of(engine: Engine, workspace: str) -> int:
    with engine.connect() as connection:
        return next(
            it.bison_workspace_id for it in all_clients(connection) if it.workspace == workspace
        )


def fault(bison: Bison, **what: object) -> None:
    bison.http.post("/sandbox/faults", json=what).raise_for_status()


def assert_without_secrets(result: Result, bison: Bison, engine: Engine) -> None:
    shown = result.out + result.err
    secrets = [key.secret.get_secret_value() for key in keys_in(engine).values()]
    for secret in [*secrets, bison.master_key]:
        assert secret.partition("|")[2] not in shown


def test_the_list_shows_who_has_a_key_of_its_own_and_no_key(
    kpi: Kpi, live_bison: Bison, engine: Engine, keyless: dict[str, int], keyed: str
) -> None:
    result = kpi("keys", "list")
    screen = result.answer()
    assert "23 of 26 active clients have a key of their own." in screen
    row = cells(screen, keyed)
    assert row[2:4] == ["main", keys_in(engine)[keyed].number]
    assert row[-1] == "–"
    for slug in keyless:
        assert cells(screen, slug)[-3:] == ["–", "–", "–"]
    assert_without_secrets(result, live_bison, engine)


def verify_all(engine: Engine, verified_at: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(update(client_api_keys).values(verified_at=verified_at))


def test_the_list_says_when_a_key_was_verified_in_the_time_zone_of_the_people(
    kpi: Kpi, engine: Engine, keyed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify_all(engine, datetime(2026, 3, 18, 20, 0, tzinfo=UTC))
    monkeypatch.setenv("KPI_TIMEZONE", "Asia/Tokyo")
    assert cells(kpi("keys", "list").answer(), keyed)[-1] == "2026-03-19 05:00 JST"


def test_the_list_does_not_believe_a_verification_in_the_future(
    kpi: Kpi, engine: Engine, keyed: str
) -> None:
    verify_all(engine, datetime.now(UTC) + timedelta(hours=26))
    assert cells(kpi("keys", "list").answer(), keyed)[-1] == "–"


def test_a_dry_run_says_what_would_be_made_and_does_nothing(
    kpi: Kpi, live_bison: Bison, engine: Engine, keyless: dict[str, int]
) -> None:
    before = rows_of(engine, client_api_keys)
    answer = kpi("keys", "create-missing", "--dry-run").answer()
    for slug, number in keyless.items():
        assert f"{slug}: would make a key in workspace {number} of main" in answer.splitlines()
    assert answer.endswith("3 keys would be made; nothing was done.\n")
    assert live_bison.calls() == []
    assert rows_of(engine, client_api_keys) == before


def test_missing_keys_are_made_with_one_call_each_stored_encrypted_and_verified(
    kpi: Kpi, live_bison: Bison, engine: Engine, keyless: dict[str, int]
) -> None:
    result = kpi("keys", "create-missing")
    answer = result.answer()

    calls = live_bison.calls()
    assert [call["path"] for call in calls if call["key"] == "master"] == [
        f"{WORKSPACES}/{number}{TOKENS}" for number in keyless.values()
    ]
    verifying = [call for call in calls if call["key"] == "workspace"]
    assert {call["path"] for call in verifying} == {"/api/users"}
    assert [call["workspace_id"] for call in verifying] == list(keyless.values())
    keys = keys_in(engine)
    assert len(keys) == 26
    assert all(keys[slug].verified_at for slug in keyless)
    for slug in keyless:
        assert f"{slug}: key {keys[slug].number} is made, stored and verified" in answer
    assert answer.endswith("3 of 3 keys made.\n")
    assert_without_secrets(result, live_bison, engine)
    for row in rows_of(engine, client_api_keys)["client_api_keys"]:
        secret = keys[row["workspace"]].secret.get_secret_value()
        assert secret.encode() not in bytes(row["encrypted_key"])


@pytest.mark.server
@pytest.mark.long
def test_after_create_missing_a_sync_makes_no_switch_and_says_26_of_26_with_their_own_key(
    kpi: Kpi, live_bison: Bison
) -> None:
    before = kpi("sync")
    assert "23 of 26 with their own key" in before.answer()
    assert any(call["path"] == SWITCH for call in live_bison.calls())
    kpi("keys", "create-missing").answer()
    live_bison.http.delete("/sandbox/calls").raise_for_status()

    after = kpi("sync")

    assert "26 of 26 clients ok" in after.answer()
    assert "26 of 26 with their own key" in after.answer()
    calls = live_bison.calls()
    assert len(calls) == 26 * 3
    assert {call["key"] for call in calls} == {"workspace"}
    assert SWITCH not in {call["path"] for call in calls}


def test_a_second_time_there_is_nothing_left_to_make(kpi: Kpi, live_bison: Bison) -> None:
    kpi("keys", "create-missing").answer()
    live_bison.http.delete("/sandbox/calls").raise_for_status()
    assert kpi("keys", "create-missing").answer() == "Every client has a key of its own.\n"
    assert live_bison.calls() == []


def test_one_clients_error_stops_no_other_key_and_the_exit_code_tells(
    kpi: Kpi, live_bison: Bison, engine: Engine, keyless: dict[str, int]
) -> None:
    gone, *others = keyless
    live_bison.http.delete(f"/sandbox/workspaces/{keyless[gone]}").raise_for_status()

    result = kpi("keys", "create-missing")

    assert result.code == 1
    assert f"✗ {gone}: POST" in result.out
    assert "answered 404" in result.out
    assert "2 of 3 keys made." in result.out
    assert {slug for slug in keyless if slug in keys_in(engine)} == set(others)


def test_a_new_key_that_acts_elsewhere_is_forgotten_and_the_master_key_serves_on(
    kpi: Kpi, live_bison: Bison, engine: Engine, keyless: dict[str, int]
) -> None:
    slug, number = next(iter(keyless.items()))
    where = {"path": "/api/users", "workspace_id": number}
    fault(live_bison, kind="edit", pointer="/data/workspace/id", value=999, **where)

    result = kpi("keys", "create-missing", "-w", slug)

    assert result.code == 1
    assert "workspace 999" in result.out
    assert f"not to {number}" in result.out
    assert "was made and is not used; delete it there." in result.out
    assert slug not in keys_in(engine)


def test_a_new_key_that_could_not_be_verified_yet_is_kept_and_verified_before_its_first_use(
    kpi: Kpi, live_bison: Bison, engine: Engine, keyless: dict[str, int]
) -> None:
    slug, number = next(iter(keyless.items()))
    fault(live_bison, kind="status", status=503, path="/api/users", workspace_id=number)

    result = kpi("keys", "create-missing", "-w", slug)

    assert result.code == 1
    assert "answered 503" in result.out
    key = keys_in(engine)[slug]
    assert f"Key {key.number} is stored, and verified before its first use." in result.out
    assert key.verified_at is None


def test_without_a_master_key_the_dry_run_and_the_command_say_what_is_missing(
    kpi: Kpi, live_bison: Bison, keyless: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = format_instances([instance_of(live_bison)]).rpartition(" ")[0]
    monkeypatch.setenv("KPI_BISON_INSTANCES", text)

    dry = kpi("keys", "create-missing", "--dry-run").answer()
    result = kpi("keys", "create-missing")

    assert dry.count("but instance main has no master key in KPI_BISON_INSTANCES") == 3
    assert result.code == 1
    assert result.out.count("Give the instance its super-admin key in KPI_BISON_INSTANCES") == 3
    assert "0 of 3 keys made." in result.out
    assert live_bison.calls() == []


def test_a_key_is_replaced_by_a_verified_one_and_the_old_one_is_named_for_deletion(
    kpi: Kpi, live_bison: Bison, engine: Engine, keyed: str
) -> None:
    old = keys_in(engine)[keyed]

    result = kpi("keys", "rotate", keyed)

    answer = result.answer()
    new = keys_in(engine)[keyed]
    assert new.number != old.number
    assert new.verified_at is not None
    assert f"{keyed}: key {new.number} is verified, and in use from now on" in answer
    assert f"Key {old.number} is not used any more" in answer
    assert [call["path"] for call in live_bison.calls()] == [
        f"{WORKSPACES}/{id_of(engine, keyed)}{TOKENS}",
        "/api/users",
    ]
    assert_without_secrets(result, live_bison, engine)


@pytest.mark.parametrize("path", [TOKENS, "/api/users"])
def test_a_client_keeps_its_key_when_the_new_one_cannot_be_made_or_verified(
    kpi: Kpi, live_bison: Bison, engine: Engine, keyed: str, path: str
) -> None:
    before = rows_of(engine, client_api_keys)
    fault(live_bison, kind="status", status=503, path=path)

    result = kpi("keys", "rotate", keyed)

    assert result.code == 1
    assert "The client keeps the key it had." in result.out
    assert ("delete it there" in result.out) == (path == "/api/users")
    assert "not used any more" not in result.out
    assert rows_of(engine, client_api_keys) == before


def test_a_client_without_a_key_has_none_to_replace(kpi: Kpi, keyless: dict[str, int]) -> None:
    slug = next(iter(keyless))
    problem = kpi("keys", "rotate", slug).error()
    assert problem == (
        f"{slug} has no key of its own to replace. `kpi keys create-missing -w {slug}` makes one."
    )


def test_good_keys_pass_the_check_and_are_marked_as_verified(
    kpi: Kpi, engine: Engine, keyless: dict[str, int], keyed: str
) -> None:
    answer = kpi("keys", "check").answer()
    assert f"Without a key of their own: {', '.join(keyless)}." in answer
    assert answer.endswith("23 of 23 keys good.\n")
    assert keys_in(engine)[keyed].verified_at is not None


def test_a_rejected_key_and_one_of_another_workspace_fail_the_check_with_their_remedies(
    kpi: Kpi, live_bison: Bison, engine: Engine
) -> None:
    rejected, moved, owner = list(keys_in(engine))[:3]
    kpi("keys", "check").answer()
    body = {"workspace_id": id_of(engine, rejected)}
    live_bison.http.post("/sandbox/keys/revoke", json=body).raise_for_status()
    body = {"workspace_id": id_of(engine, moved), "to": id_of(engine, owner)}
    live_bison.http.post("/sandbox/keys/move", json=body).raise_for_status()

    result = kpi("keys", "check")

    assert result.code == 1
    assert f"✗ {rejected}: GET /api/users answered 401" in result.out
    assert f"workspace {id_of(engine, owner)}" in result.out
    assert f"not to {id_of(engine, moved)}" in result.out
    assert "21 of 23 keys good." in result.out
    keys = keys_in(engine)
    assert {slug for slug in keys if keys[slug].verified_at is None} == {rejected, moved}


def test_a_key_under_another_encryption_key_is_listed_as_such_and_fails_the_check(
    kpi: Kpi, configured: URL, keyed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = kpi("secret-key").answer().strip()
    monkeypatch.setenv("KPI_SECRET_KEY", fresh)
    assert cells(kpi("keys", "list").answer(), keyed)[3] == "can't be decrypted"
    result = kpi("keys", "check", "-w", keyed)
    assert result.code == 1
    assert "it was stored with another encryption key" in result.out


def test_an_unknown_client_is_named(kpi: Kpi) -> None:
    assert "There is no client nobody." in kpi("keys", "rotate", "nobody").error()
