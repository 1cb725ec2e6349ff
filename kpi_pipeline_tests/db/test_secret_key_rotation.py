import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kpi_pipeline.db.registry import api_keys
from kpi_pipeline.db.registry.api_keys import (
    StoredKey,
    mark_key,
    rotate_secret_key,
    store_keys,
    stored_keys,
)
from kpi_pipeline.db.registry.vault import (
    Vault,
    key_file,
    new_secret_key,
    open_vault,
    replace_kept_keys,
)
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.stocked import api_key, imported, record
from kpi_pipeline_tests.db.support import run, until_somebody_waits

KEYED = {"harbor": 1, "quay": 2, "pier": 3}
SECRETS = {workspace: api_key(number) for workspace, number in KEYED.items()}


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def state(tmp_path: Path, engine: Engine) -> Path:
    """A state folder with a generated secret key, under which three API keys are stored."""
    records = [record(it, name.title(), api_key=api_key(it)) for name, it in KEYED.items()]
    imported(engine, open_vault(None, tmp_path), *records)
    return tmp_path


def keys_in(state: Path) -> list[str]:
    return key_file(state).read_text().split(",")


def read(engine: Engine, vault: Vault) -> dict[str, StoredKey]:
    with engine.connect() as connection:
        return stored_keys(connection, [*KEYED], vault)


def secrets(engine: Engine, vault: Vault) -> dict[str, SecretStr]:
    return {workspace: key.secret for workspace, key in read(engine, vault).items()}


def test_every_api_key_is_encrypted_under_a_new_secret_key_and_under_no_other(
    engine: Engine, state: Path
) -> None:
    [old] = keys_in(state)

    assert rotate_secret_key(engine, None, state) == 3

    [new] = keys_in(state)
    assert new != old
    assert stat.S_IMODE(key_file(state).stat().st_mode) == 0o600
    assert [file.name for file in state.iterdir()] == ["secret.key"]
    assert secrets(engine, Vault(SecretStr(new))) == SECRETS
    with pytest.raises(KpiError, match="stored with another encryption key"):
        read(engine, Vault(SecretStr(old)))


def test_a_rotation_changes_neither_when_a_key_was_stored_nor_when_it_was_verified(
    engine: Engine, state: Path
) -> None:
    with engine.begin() as connection:
        key = stored_keys(connection, ["harbor"], open_vault(None, state))["harbor"]
        mark_key(connection, "harbor", key, datetime(2026, 3, 18, tzinfo=UTC))
    before = read(engine, open_vault(None, state))

    rotate_secret_key(engine, None, state)

    assert read(engine, open_vault(None, state)) == before


def nth_call(real: Callable[..., Any], number: int) -> Callable[..., Any]:
    """`real`, but that its nth call kills the process."""
    calls: list[None] = []

    def call(*arguments: Any, **named: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            raise Killed
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize(
    ("step", "number", "keys_left"),
    [
        pytest.param("replace_kept_keys", 1, 1, id="before the file holds both keys"),
        pytest.param("_encrypt_again", 1, 2, id="before anything is encrypted again"),
        pytest.param("update", 2, 2, id="between two API keys"),
        pytest.param("_read_all", 2, 2, id="before the API keys are verified"),
        pytest.param("replace_kept_keys", 2, 2, id="before the old key is dropped"),
    ],
)
def test_a_rotation_that_is_killed_leaves_every_key_readable_and_the_next_one_finishes_it(
    engine: Engine,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
    keys_left: int,
) -> None:
    opened_before = open_vault(None, state)
    [old] = keys_in(state)
    with monkeypatch.context() as patch:
        patch.setattr(api_keys, step, nth_call(getattr(api_keys, step), number))
        with pytest.raises(Killed):
            rotate_secret_key(engine, None, state)
    left = keys_in(state)
    assert len(left) == keys_left
    assert left[-1] == old
    for vault in (open_vault(None, state), opened_before):
        assert secrets(engine, vault) == SECRETS

    assert rotate_secret_key(engine, None, state) == 3

    [new] = keys_in(state)
    assert new != old
    assert keys_left == 1 or new == left[0]
    for vault in (Vault(SecretStr(new)), opened_before):
        assert secrets(engine, vault) == SECRETS


def test_a_crash_while_the_file_is_replaced_leaves_the_old_contents(
    state: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys_in(state)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", nth_call(Path.replace, 1))
        with pytest.raises(Killed):
            rotate_secret_key(engine, None, state)
    assert keys_in(state) == before
    assert [file.name for file in state.iterdir()] == ["secret.key"]


def test_a_full_disk_is_named_and_leaves_every_key_readable(
    engine: Engine, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kpi_pipeline.db.registry.vault.tempfile.mkstemp", full)
        with pytest.raises(KpiError) as error:
            rotate_secret_key(engine, None, state)

    assert str(error.value) == (
        f"{key_file(state)} can't be replaced: No space left on device. Every API key is still "
        "readable. Check the folder, and run it again."
    )
    assert secrets(engine, open_vault(None, state)) == SECRETS


def test_a_process_that_opened_its_vault_before_reads_every_key_during_the_rotation(
    engine: Engine, other_engine: Engine, state: Path
) -> None:
    vault, done = open_vault(None, state), threading.Event()
    seen: list[dict[str, SecretStr] | Exception] = []

    def keep_reading() -> None:
        while not done.is_set():
            try:
                seen.append(secrets(other_engine, vault))
            except Exception as error:  # noqa: BLE001 - shown by the assertion below
                seen.append(error)

    reader = threading.Thread(target=keep_reading)
    reader.start()
    try:
        for _ in range(5):
            rotate_secret_key(engine, None, state)
    finally:
        done.set()
        reader.join(60)

    assert seen
    assert [it for it in seen if it != SECRETS] == []
    assert secrets(other_engine, vault) == SECRETS


def test_a_key_that_is_being_stored_under_the_old_secret_key_is_waited_for(
    engine: Engine, other_engine: Engine, state: Path
) -> None:
    with other_engine.begin() as connection:
        store_keys(connection, {"harbor": api_key(9)}, open_vault(None, state))
        rotating = threading.Thread(target=rotate_secret_key, args=(engine, None, state))
        rotating.start()
        run(until_somebody_waits(engine))
    rotating.join(60)

    [new] = keys_in(state)
    assert secrets(engine, Vault(SecretStr(new))) == {**SECRETS, "harbor": api_key(9)}


def test_a_key_that_is_stored_during_a_rotation_is_encrypted_after_it(
    engine: Engine, other_engine: Engine, state: Path
) -> None:
    new, opened_before = new_secret_key(), open_vault(None, state)

    def store() -> None:
        with engine.begin() as connection:
            store_keys(connection, {"harbor": api_key(9)}, opened_before)

    with other_engine.begin() as connection:
        connection.execute(text("LOCK TABLE client_api_keys IN SHARE ROW EXCLUSIVE MODE"))
        storing = threading.Thread(target=store)
        storing.start()
        run(until_somebody_waits(engine))
        replace_kept_keys(key_file(state), [new])
    storing.join(60)

    with engine.connect() as connection:
        found = stored_keys(connection, ["harbor"], Vault(SecretStr(new)))
    assert found["harbor"].secret == api_key(9)


def test_a_process_that_opened_its_vault_before_stores_under_the_new_secret_key(
    engine: Engine, state: Path
) -> None:
    opened_before = open_vault(None, state)
    rotate_secret_key(engine, None, state)

    with engine.begin() as connection:
        store_keys(connection, {"harbor": api_key(9)}, opened_before)

    assert secrets(engine, open_vault(None, state))["harbor"] == api_key(9)


def test_an_api_key_that_cannot_be_decrypted_is_named_and_nothing_is_changed(
    engine: Engine, state: Path
) -> None:
    with engine.begin() as connection:
        stranger = Vault(SecretStr(new_secret_key()))
        store_keys(connection, {"quay": api_key(9)}, stranger)
    before = keys_in(state)

    with pytest.raises(KpiError, match="The API key of quay can't be decrypted"):
        rotate_secret_key(engine, None, state)

    assert keys_in(state) == before


def test_with_a_configured_key_the_operator_is_told_the_steps(
    engine: Engine, tmp_path: Path
) -> None:
    only = new_secret_key()
    with pytest.raises(KpiError) as error:
        rotate_secret_key(engine, SecretStr(only), tmp_path)
    said = str(error.value)
    assert said.startswith("KPI_SECRET_KEY holds one key, so there is nothing to rotate to. ")
    for step in ("`kpi secret-key new`", "NEW,OLD", "`kpi secret-key rotate`", "NEW alone"):
        assert step in said
    assert only not in said


def test_with_configured_keys_all_is_encrypted_under_the_first_and_no_file_is_written(
    engine: Engine, tmp_path: Path
) -> None:
    new, old = new_secret_key(), new_secret_key()
    imported(engine, Vault(SecretStr(old)), record(1, "Harbor", api_key=api_key(1)))

    both = SecretStr(f"{new}, {old}")
    assert rotate_secret_key(engine, both, tmp_path / "state") == 1

    assert secrets(engine, Vault(SecretStr(new))) == {"harbor": api_key(1)}
    assert rotate_secret_key(engine, both, tmp_path / "state") == 1
    assert not (tmp_path / "state").exists()


def test_a_vault_of_several_keys_decrypts_under_any_and_encrypts_under_the_first() -> None:
    new, old = new_secret_key(), new_secret_key()
    both = Vault(SecretStr(f"{new},{old}"))
    token = Vault(SecretStr(old)).encrypt(api_key(1))

    assert both.decrypt(token, "harbor") == api_key(1)
    assert not both.is_current(token)
    assert Vault(SecretStr(new)).decrypt(both.encrypt(api_key(2)), "harbor") == api_key(2)


@pytest.mark.parametrize("wrong", ["hunter2", ""])
def test_a_wrong_key_among_several_is_named_by_its_place(wrong: str) -> None:
    with pytest.raises(KpiError) as error:
        Vault(SecretStr(f"{new_secret_key()},{wrong}"))
    assert str(error.value).startswith("Key 2 of KPI_SECRET_KEY is no Fernet key: ")
    assert "hunter2" not in str(error.value)
