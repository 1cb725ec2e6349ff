"""What texts tell people to do about missing or wrong rows: done as it is written, it helps."""

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Connection

from kpi_pipeline.checks.coverage import complete, no_missing_days
from kpi_pipeline.checks.outcome import Outcome
from kpi_pipeline.checks.rows_match_inputs import rows_match_inputs
from kpi_pipeline.cli import backfill
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import WITHOUT_FETCH
from kpi_pipeline_tests.agency import ASSETS, differences
from kpi_pipeline_tests.cli.running import Kpi
from kpi_pipeline_tests.orchestration.installation import Installation, cells

pytestmark = pytest.mark.runs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kpi(capsys: pytest.CaptureFixture[str]) -> Kpi:
    return Kpi(capsys)


def outcome_of(installation: Installation, check: Callable[[Connection], Outcome]) -> Outcome:
    with installation.agency.app.engine.connect() as connection:
        return check(connection)


def command_in(text: str) -> list[str]:
    """The words of the first `kpi` command that a text names."""
    found = re.search(r"`kpi ([^`]*)`", text)
    assert found, text
    return found[1].split()


def follow(installation: Installation, words: list[str]) -> None:
    """What `kpi backfill` with these words has Dagster run, within this process."""
    assert words[0] == "backfill"
    options = dict(zip(words[1::2], words[2::2], strict=True))
    clients = [it for name, it in zip(words[1::2], words[2::2], strict=True) if name == "-w"]
    first, last = (date.fromisoformat(options[name]) for name in ("--from", "--to"))
    target = backfill._target(installation.agency.app, first, last, clients)
    for workspace, dates in target.dates.items():
        assert installation.run(block_tags([workspace], dates)).success


def assets_in(text: str) -> list[str]:
    """The assets on whose page a text says to press Materialize."""
    found = re.search(r"on the page of ([^:]*?), and press Materialize", text)
    assert found, text
    return re.findall(r"\w+_\w+", found[1])


_METRICS = ("client_metrics", "metric_date", complete)
_FACTS = ("raw_bison_stats", "date", no_missing_days)


@pytest.mark.parametrize(
    ("table", "column", "check", "way"),
    [
        (*_METRICS, "the command"),
        (*_FACTS, "client_metrics"),
        # One step fills all three, and both checks say the same.
        *(pytest.param(*_METRICS, it, marks=pytest.mark.long) for it in ASSETS),
        pytest.param(*_FACTS, "the command", marks=pytest.mark.long),
        *(pytest.param(*_FACTS, it, marks=pytest.mark.long) for it in ASSETS[:2]),
    ],
)
def test_the_check_of_missing_days_passes_after_what_it_says(
    installation: Installation,
    table: str,
    column: str,
    check: Callable[[Connection, date], Outcome],
    way: str,
) -> None:
    agency, dates = installation.agency, installation.days_ago(6, 5, 4, 3, 2, 1)
    workspaces = installation.workspaces[:3]
    assert installation.run(block_tags(workspaces, dates)).success
    agency.sql(
        "UPDATE clients SET active = false WHERE NOT workspace = ANY(:some)", some=workspaces
    )
    lost = f"DELETE FROM {table} WHERE {column} = :day AND workspace = ANY(:some)"
    agency.sql(lost, day=dates[2], some=workspaces[:2])

    found = outcome_of(installation, lambda it: check(it, dates[-1]))

    assert not found.passed
    if way == "the command":
        follow(installation, command_in(found.description))
    else:
        assert assets_in(found.description) == ASSETS
        missing = block_tags(workspaces[:2], [dates[2]])
        assert installation.run(missing, [way]).success
    assert outcome_of(installation, lambda it: check(it, dates[-1])).passed
    assert differences(agency.rows(), agency.expected(dates, workspaces)) == []


def test_rows_that_were_changed_by_hand_are_right_after_the_command_of_their_check(
    installation: Installation, kpi: Kpi
) -> None:
    agency, dates = installation.agency, installation.days_ago(3, 2, 1)
    workspaces = installation.workspaces[:2]
    assert installation.run(block_tags(workspaces, dates)).success
    agency.sql("UPDATE client_metrics SET emails_sent_mtd = 1")

    def checked() -> Outcome:
        app = agency.app
        return outcome_of(installation, lambda it: rows_match_inputs(it, app.today(), app.day_zone))

    found = checked()
    assert not found.passed
    kpi(*command_in(found.description)).answer()

    assert checked().passed
    assert differences(agency.rows(), agency.expected(dates, workspaces)) == []


def test_a_run_that_lacks_facts_names_the_command_that_brings_them(
    installation: Installation,
) -> None:
    workspaces, dates = installation.workspaces[:1], installation.days_ago(2, 1)
    tags = block_tags(workspaces, dates)
    result = installation.run(tags, config=WITHOUT_FETCH)
    assert not result.success

    follow(installation, command_in(installation.failure(result)))

    assert installation.partitions("client_metrics") == (cells(workspaces, dates), set())
    assert installation.run(tags, config=WITHOUT_FETCH).success


@pytest.mark.parametrize("document", ["README.md", "docs/operations.md"])
def test_the_documents_send_people_to_the_page_of_any_of_the_three_assets(document: str) -> None:
    text = " ".join((ROOT / document).read_text().split())
    said = re.findall(r"\*Materialize\* on the page of ([^|:]*)", text)
    assert said, "the document says where the button is"
    for pages in said:
        assert "any of the three assets" in pages or all(asset in pages for asset in ASSETS)
    run = "ops: {client_kpis: {config: {fetch: false}}}"
    assert document == "README.md" or run in text


def test_every_option_of_the_documented_kpi_backfill_exists(kpi: Kpi) -> None:
    options = kpi("backfill", "--help").answer()
    for document in ("README.md", "docs/operations.md"):
        for command in re.findall(r"`kpi backfill ([^`]*)`", (ROOT / document).read_text()):
            for option in re.findall(r"(?<!\S)--?[a-z-]+", command):
                assert option in options, command
