"""docs/messages.md shows every message as it is sent."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.alerts.messages_page import page

PAGE = PROJECT_ROOT / "docs" / "messages.md"


def test_the_page_of_messages_shows_them_as_they_are_sent(engine: Engine, tmp_path: Path) -> None:
    made = page(engine)
    if made != PAGE.read_text():
        new = tmp_path / PAGE.name
        new.write_text(made)
        pytest.fail(f"The texts have changed: cp {new} docs/messages.md")


@pytest.mark.parametrize("check", [*Check, "sync"])
def test_the_page_of_messages_has_a_message_of_each_check(check: str) -> None:
    assert f"### `{check}`, " in PAGE.read_text()
