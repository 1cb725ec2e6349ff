"""`kpi secret-key rotate`: every API key is encrypted under the new key, and stays as it was."""

import pytest
from sqlalchemy import Engine

from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import Kpi
from kpi_pipeline_tests.cli.test_keys import assert_without_secrets, keys_in

pytestmark = pytest.mark.usefixtures("imported")


def test_a_rotated_secret_key_leaves_every_api_key_as_it_was(
    kpi: Kpi, live_bison: Bison, engine: Engine
) -> None:
    path = load_settings().state_dir / "secret.key"
    before, old = keys_in(engine), path.read_text()

    result = kpi("secret-key", "rotate")

    assert result.answer() == (
        f"23 API keys are encrypted under a new secret key in {path}; back that file up.\n"
        "A backup of the database from before needs the secret.key from before.\n"
    )
    new = path.read_text()
    assert new != old
    assert keys_in(engine) == before
    assert_without_secrets(result, live_bison, engine)
    assert not [key for key in (old, new) if key in result.out + result.err]


def test_a_configured_secret_key_is_rotated_in_steps(
    kpi: Kpi, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (load_settings().state_dir / "secret.key").read_text()
    new = kpi("secret-key", "new").answer().strip()
    before = keys_in(engine)
    monkeypatch.setenv("KPI_SECRET_KEY", old)
    assert "2. Set KPI_SECRET_KEY to NEW,OLD" in kpi("secret-key", "rotate").error()

    monkeypatch.setenv("KPI_SECRET_KEY", f"{new},{old}")
    message = kpi("secret-key", "rotate").answer()

    assert message.startswith("23 API keys are encrypted under the first key of KPI_SECRET_KEY. ")
    assert not [key for key in (old, new) if key in message]
    monkeypatch.setenv("KPI_SECRET_KEY", new)
    assert keys_in(engine) == before
