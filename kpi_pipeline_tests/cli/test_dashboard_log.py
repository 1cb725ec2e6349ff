import logging

import pytest
from typer.testing import CliRunner

from kpi_pipeline.cli.main import commands
from kpi_pipeline.dashboard import server
from kpi_pipeline.dashboard.actions import client


def test_the_log_of_the_dashboard_says_who_did_what_and_nothing_of_who_looked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actions = logging.getLogger("kpi_pipeline.dashboard.actions")
    monkeypatch.setattr(server, "serve", lambda *_: None)
    before = actions.level
    try:
        assert CliRunner().invoke(commands, ["dashboard"]).exit_code == 0
        assert logging.getLogger(client.__name__).isEnabledFor(logging.INFO)
        assert not logging.getLogger("uvicorn.access").isEnabledFor(logging.INFO)
    finally:
        actions.setLevel(before)
