import base64
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kpi_pipeline.db.registry.api_keys import stored_keys
from kpi_pipeline.db.registry.vault import Vault, new_secret_key, open_vault
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.stocked import api_key, imported, record

SECRET = api_key(7)


def test_a_stored_api_key_comes_back_whole(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(name="Harbor", api_key=SECRET))
    with engine.connect() as connection:
        assert stored_keys(connection, ["harbor"], vault)["harbor"].secret == SECRET


def test_the_table_holds_no_api_key_in_any_readable_form(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(name="Harbor", api_key=SECRET))
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM client_api_keys")).mappings().one()
    stored = bytes(row["encrypted_key"])
    assert stored
    # A Fernet token is base64; what it wraps must be no more readable than the token itself.
    for seen in (stored, base64.urlsafe_b64decode(stored), repr(dict(row)).encode()):
        for part in SECRET.get_secret_value().split("|"):
            if len(part) > 4:
                assert part.encode() not in seen
                assert base64.b64encode(part.encode())[:12] not in seen


def test_one_api_key_never_gives_the_same_token_twice(vault: Vault) -> None:
    assert vault.encrypt(SECRET) != vault.encrypt(SECRET)


def test_another_encryption_key_gives_a_sentence_that_names_the_client(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(name="Harbor", api_key=SECRET))
    other = Vault(SecretStr(new_secret_key()))
    with engine.connect() as connection, pytest.raises(KpiError) as error:
        stored_keys(connection, ["harbor"], other)
    assert str(error.value) == (
        "The API key of harbor can't be decrypted: it was stored with another encryption key. "
        "Set KPI_SECRET_KEY (or the file secret.key of the state folder) to the one it was stored "
        "with, or import the client's API key again."
    )


@pytest.mark.parametrize(
    "wrong",
    ["hunter2", "x" * 44, "é" * 44, pytest.param(new_secret_key()[:-2], id="cut short")],
)
def test_a_wrong_secret_key_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(KpiError) as error:
        Vault(SecretStr(wrong))
    assert str(error.value) == (
        "KPI_SECRET_KEY is no Fernet key: it must be 32 bytes in URL-safe base64 (44 characters). "
        "Make one with `kpi secret-key`, or leave the variable unset."
    )


def test_a_configured_key_is_used_and_no_file_is_written(tmp_path: Path) -> None:
    secret = SecretStr(new_secret_key())
    token = open_vault(secret, tmp_path / "state").encrypt(SECRET)
    assert Vault(secret).decrypt(token, "harbor") == SECRET
    assert not (tmp_path / "state").exists()


def test_without_a_configured_key_one_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    before = os.umask(0)
    try:
        open_vault(None, state)
    finally:
        os.umask(before)
    assert [file.name for file in state.iterdir()] == ["secret.key"]
    assert stat.S_IMODE((state / "secret.key").stat().st_mode) == 0o600


def test_the_kept_key_stays_the_same(tmp_path: Path) -> None:
    token = open_vault(None, tmp_path).encrypt(SECRET)
    kept = (tmp_path / "secret.key").read_bytes()
    assert open_vault(None, tmp_path).decrypt(token, "harbor") == SECRET
    assert (tmp_path / "secret.key").read_bytes() == kept


def test_threads_that_start_together_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            state = tmp_path / str(number)
            vaults = list(pool.map(lambda _, at=state: open_vault(None, at), range(8)))
            token = vaults[0].encrypt(SECRET)
            assert [vault.decrypt(token, "harbor") for vault in vaults] == [SECRET] * 8
            assert [file.name for file in state.iterdir()] == ["secret.key"]


# Prints "ready", waits for a line, and then opens the vault of each folder that the line names.
_OPENS_VAULTS = """
import sys
from pathlib import Path
from kpi_pipeline.db.registry.vault import open_vault
from pydantic import SecretStr
print("ready", flush=True)
for state in sys.stdin.readline().split():
    print(open_vault(None, Path(state)).encrypt(SecretStr("7|harbor")).decode())
"""


def test_processes_that_start_together_get_the_same_key(tmp_path: Path) -> None:
    states = [tmp_path / str(number) for number in range(20)]
    command = [sys.executable, "-c", _OPENS_VAULTS]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(" ".join(map(str, states)) + "\n")
            process.stdin.flush()
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for output, errors in said:
        tokens = output.split()
        assert len(tokens) == len(states), errors
        for state, token in zip(states, tokens, strict=True):
            decrypted = open_vault(None, state).decrypt(token.encode(), "harbor")
            assert decrypted.get_secret_value() == "7|harbor"


def test_a_damaged_key_file_is_named_with_its_remedy_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("half-a-ke")
    with pytest.raises(KpiError, match="Restore the file from a backup") as error:
        open_vault(None, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'secret.key'} is no Fernet key")
    assert "half-a-ke" not in str(error.value)
