"""Markdown on Dagster's page shows names and errors from outside as they are."""

from datetime import UTC, date, datetime

import dagster as dg
import pytest
from markdown_it import MarkdownIt

from kpi_pipeline.db.metrics import DayNumbers
from kpi_pipeline.orchestration.assets.client_kpis import _failure
from kpi_pipeline.orchestration.assets.client_registry import _metadata
from kpi_pipeline.orchestration.assets.partition_metadata import _table
from kpi_pipeline.sync.registry import RegistryReport
from kpi_pipeline.sync.run import ClientOutcome

NAME = "*Acme* [free](http://evil.example) | <b>\x9b1A"
SHOWN = "*Acme* [free](http://evil.example) | &lt;b&gt;[U+009B]1A"


def rendered(value: object) -> str:
    assert isinstance(value, dg.MarkdownMetadataValue)
    return str(MarkdownIt("commonmark").enable("table").render(str(value.value)))


@pytest.mark.parametrize(
    ("clients", "sentence"),
    [
        (1, "1 of 1 client failed."),
        (2, "1 of 2 clients failed; the rows of the other are written."),
        (3, "1 of 3 clients failed; the rows of the others are written."),
    ],
)
def test_a_failed_run_says_who_failed_in_words_that_fit_the_number(
    clients: int, sentence: str
) -> None:
    failed = ClientOutcome("acme", error=f"acme: answered 500: {NAME}")
    outcomes = [failed, *(ClientOutcome(f"c{number}") for number in range(clients - 1))]
    failure = _failure(outcomes, [failed])
    assert failure.description is not None
    first, second = failure.description.splitlines()
    assert first == sentence
    assert "\x9b" not in second
    assert f"<li>acme: answered 500: {SHOWN}</li>" in rendered(failure.metadata["failed"])


def test_the_registry_shows_the_name_of_a_workspace_as_it_is() -> None:
    metadata = _metadata(RegistryReport(active=["acme"], unknown=[f"main 107: {NAME}"]))
    assert f"<li>main 107: {SHOWN}</li>" in rendered(metadata["unknown"])


def test_a_partition_shows_its_clients_name_as_it_is() -> None:
    day, now = date(2026, 3, 18), datetime(2026, 3, 18, 20, tzinfo=UTC)
    numbers = DayNumbers("acme", day, NAME, "main", [5], now, None, None)
    assert SHOWN in rendered(_table(numbers, [("emails_sent_mtd", "{:,}")], [5], {}))
