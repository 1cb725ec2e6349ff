"""Two clients fail: the others' rows are stored, theirs stay, and no secret gets out."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import RETRY_OF
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.end_to_end.running import RunningAgency

pytestmark = [pytest.mark.server, pytest.mark.long]


class FailingClients:
    """A client whose key is rejected and one whose workspace is deleted, until `end`."""

    def __init__(self, agency: RunningAgency) -> None:
        self.workspaces = agency.keyed[3], agency.keyed[17]
        self._agency = agency
        self._fail = False

    def begin(self) -> None:
        self._fail = True
        self._agency.revoke(self.workspaces[0])
        self._agency.delete(self.workspaces[1])

    def end(self) -> None:
        if not self._fail:
            return
        self._fail = False
        self._agency.restore(self.workspaces[0])
        self._agency.control("POST", f"workspaces/{self._agency.ids[self.workspaces[1]]}/restore")


@pytest.fixture
def failing(agency: RunningAgency) -> Iterator[FailingClients]:
    clients = FailingClients(agency)
    yield clients
    clients.end()


def retries_of(agency: RunningAgency, run_id: str) -> list[str]:
    """The statuses of the runs that retry what a failed run left undone."""
    return [run.status for run in agency.runs() if run.tags.get(RETRY_OF) == run_id]


def all_secrets(agency: RunningAgency) -> list[str]:
    """Every secret of the installation: the secret parts of the API keys, and the other two."""
    password = agency.app.engine.url.password
    return [
        *(str(agency.key(workspace)).split("|")[1] for workspace in agency.keyed),
        agency.bison.master_key.split("|")[1],
        (agency.app.settings.state_dir / "secret.key").read_text(),
        str(password),
    ]


def contents_of(engine: Engine) -> dict[str, str]:
    """Every table of a database as text."""
    with engine.connect() as connection:
        return {
            table: "\n".join(connection.execute(text(f'SELECT t::text FROM "{table}" t')).scalars())
            for table in inspect(engine).get_table_names()
        }


def test_two_failing_clients_keep_their_rows_and_stop_no_other_until_they_are_repaired(
    agency: RunningAgency, failing: FailingClients
) -> None:
    dates = days_between(agency.today - timedelta(days=91), agency.today - timedelta(days=90))
    tags = block_tags(agency.workspaces, dates)
    assert agency.run(ASSETS, tags)[0] is RunStatus.SUCCESS
    # A run that another test left behind would change rows, too.
    agency.poll(agency.is_at_rest, "the end of the runs of other tests")
    before = agency.all_rows()
    failing.begin()

    status, run_id = agency.run(ASSETS, tags)

    assert status is RunStatus.FAILURE
    error = "".join(it for it in agency.log_of(run_id) if "failureMetadata" in it)
    assert "2 of 26 clients failed" in error
    assert all(client in error for client in failing.workspaces)
    assert error.count("kpi clients import") >= 2, "each has its remedy"
    after = agency.all_rows()
    for asset in ASSETS:
        for key, row in after[asset].items():
            changed = row != before[asset][key]
            if key[0] in failing.workspaces:
                assert not changed, (asset, key)
            elif key[1] in dates:
                assert changed, (asset, key)
    # Each of the two is retried alone, once; the healthy are not, and then it ends.
    agency.poll(lambda: retries_of(agency, run_id) == ["FAILURE", "FAILURE"], "the split")
    assert agency.all_rows() == after
    red = {asset: agency.failed_partitions(asset, dates) for asset in ASSETS}
    bad = {f"{day}|{key}" for day in dates for key in failing.workspaces}
    assert red == dict.fromkeys(ASSETS, bad)

    failing.end()
    assert agency.backfill(dict.fromkeys(failing.workspaces, dates)) == ["COMPLETED_SUCCESS"]

    assert [agency.failed_partitions(asset, dates) for asset in ASSETS] == [set(), set(), set()]


def test_no_secret_is_in_dagsters_tables_the_page_or_the_logs_after_a_failed_run(
    agency: RunningAgency, failing: FailingClients, capfd: pytest.CaptureFixture[str]
) -> None:
    failing.begin()
    tags = block_tags(agency.workspaces, [agency.today - timedelta(days=1)])
    assert agency.run(["client_registry"], {})[0] is RunStatus.SUCCESS
    assert agency.run(ASSETS, tags)[0] is RunStatus.FAILURE

    state, dagster = agency.app.settings.state_dir, agency.app.settings.dagster_database_url
    # All that the processes printed, and the runs.
    printed = [it for it in state.rglob("*") if it.is_file() and it.name != "secret.key"]
    places = {f"log {file.name}": file.read_bytes() for file in printed}
    configuration = agency.page.query("{ instance { info runLauncher { name } } }", {})
    places["the page's configuration"] = str(configuration).encode()
    places["the console"] = "".join(capfd.readouterr()).encode()
    assert dagster is not None
    engine = create_engine(dagster.get_secret_value())
    places |= {f"table {name}": it.encode() for name, it in contents_of(engine).items()}
    engine.dispose()

    assert failing.workspaces[0].encode() in places["table event_logs"], (
        "the search must be able to find"
    )
    assert b"Bearer" not in b"".join(places.values())
    found = {
        place
        for place, content in places.items()
        for secret in all_secrets(agency)
        if secret.encode() in content
    }
    assert found == set()
    assert len(all_secrets(agency)) == 23 + 3


def test_api_keys_are_encrypted_in_the_kpi_database(agency: RunningAgency) -> None:
    for content in contents_of(agency.app.engine).values():
        # bytea reads as hex in text.
        for secret in all_secrets(agency):
            assert secret not in content
            assert secret.encode().hex() not in content
