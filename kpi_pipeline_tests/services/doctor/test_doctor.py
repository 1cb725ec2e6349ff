"""`kpi doctor`: each fault that it knows, made: it names that one alone; and what it mends."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpi_pipeline.db.tables import bison_call_slots, bison_pacing, metadata, webhook_events
from kpi_pipeline.services.doctor.finding import Finding, Verdict
from kpi_pipeline.services.doctor.run import CHECKS, examine
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.cli.running import Kpi, address, rows_of
from kpi_pipeline_tests.pgbouncer import Pooler
from kpi_pipeline_tests.services.doctor.faults import FAULTS, Fault
from kpi_pipeline_tests.services.doctor.installation import Well, not_made

# One of each check; the others are made in the long test.
FIRST = list({it.check: it for it in reversed(FAULTS)}.values())
BY_NAME = {it.name: it for it in FAULTS}
# Calls are counted and spaced, and the test event is stored.
TOUCHED = (bison_call_slots, bison_pacing, webhook_events)


@pytest.fixture
def kpi(capsys: pytest.CaptureFixture[str]) -> Kpi:
    """The command, with the settings of the installation."""
    return Kpi(capsys)


def test_where_all_is_well_each_check_says_so_and_nothing_is_changed(well: Well) -> None:
    tables = [it for it in metadata.tables.values() if it not in TOUCHED]
    before = rows_of(well.app.engine, *tables)
    found = examine()
    assert [it for it in found if it.is_bad] == []
    assert [it.check for it in found] == [it.name for it in CHECKS]
    assert not_made(found) == {"parts"}
    assert rows_of(well.app.engine, *tables) == before


def test_there_is_a_fault_for_each_check() -> None:
    assert {it.check for it in FAULTS} == {it.name for it in CHECKS}


def require_named(well: Well, found: list[Finding], fault: Fault) -> None:
    """Fail unless the fault is what was found wrong, and nothing else was."""
    bad = [it for it in found if it.is_bad]
    assert [(it.check, it.verdict) for it in bad] == [(fault.check, fault.verdict)], bad
    assert fault.words in bad[0].sentence
    assert not [it for it in well.secrets if it in str(found)]


@pytest.mark.parametrize("fault", FIRST, ids=[it.name for it in FIRST])
def test_its_check_names_a_fault(well: Well, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    with fault.make(well, monkeypatch):
        require_named(well, examine([fault.check]), fault)


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=[it.name for it in FAULTS])
def test_of_all_checks_only_that_one_names_a_fault(
    well: Well, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    with fault.make(well, monkeypatch):
        require_named(well, examine(), fault)


def test_what_follows_from_the_problem_of_one_client_hides_no_problem_of_another(
    well: Well, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        BY_NAME["a sync that failed"].make(well, monkeypatch),
        BY_NAME["a key that was revoked"].make(well, monkeypatch),
    ):
        # Both are of the same client.
        assert [it.check for it in examine() if it.is_bad] == ["keys"]
    with (
        BY_NAME["a sync that failed"].make(well, monkeypatch),
        BY_NAME["a client without a target"].make(well, monkeypatch),
    ):
        # A client without a target is synced all the same.
        assert [it.check for it in examine() if it.is_bad] == ["targets", "syncs"]


def test_behind_a_pooler_all_is_well(
    well: Well, monkeypatch: pytest.MonkeyPatch, pgbouncer: Pooler
) -> None:
    through = pgbouncer.through(well.app.engine.url)
    monkeypatch.setenv("KPI_DATABASE_URL", address(through))
    found = examine(["database", "connections", "direct-url", "freshness"])
    assert [it for it in found if it.is_bad] == []
    assert "behind a pooler" in found[0].text
    monkeypatch.setenv("KPI_DATABASE_DIRECT_URL", well.environment["KPI_DATABASE_URL"])
    (direct,) = examine(["direct-url"])
    assert "leads to the same database, past the pooler" in direct.text
    monkeypatch.setenv("KPI_DATABASE_DIRECT_URL", address(through))
    (pooled,) = examine(["direct-url"])
    assert pooled.verdict is Verdict.WARNING


def test_an_instance_without_a_feed_is_well_if_it_has_webhooks(
    well: Well, monkeypatch: pytest.MonkeyPatch
) -> None:
    well.bison.variants(event_feed="missing")
    (with_webhooks,) = examine(["feed"])
    monkeypatch.delenv("KPI_GATEWAY_URL")
    without = examine(["feed", "webhooks"])
    well.bison.control("DELETE", "variants")
    assert (with_webhooks.verdict, with_webhooks.text) == (
        Verdict.OK,
        "main has no event feed. Its events come by webhook alone.",
    )
    assert [it.check for it in without if it.is_bad] == ["feed"]


def test_a_test_message_goes_to_the_receivers_if_it_is_asked_for(kpi: Kpi, well: Well) -> None:
    well.receiver.received.clear()
    assert kpi("doctor", "alerts").code == 0
    assert well.receiver.received == []
    assert (
        "1 receiver: a test message was accepted"
        in kpi("doctor", "alerts", "--send-alert").answer()
    )
    assert len(well.receiver.received) == 1
    well.receiver.answer = lambda path, before: 500
    refused = kpi("doctor", "alerts", "--send-alert")
    well.receiver.answer = lambda path, before: 200
    assert refused.code == 2
    assert "The receiver json://127.0.0.1 did not accept a test message" in refused.out


@pytest.fixture
def a_readable_folder(well: Well) -> Iterator[Path]:
    """The state folder, which other users can read."""
    folder = Path(well.environment["KPI_STATE_DIR"])
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o700)


MENDED = {
    "a secret key that others can read": "has mode 600 now",
    "a host that grants to an anonymous role": "The rights of others were revoked",
    "a client without a partition": "Dagster has 3 partitions of active clients now",
    "a row that the grid lacks": "reported from stored rows",
    "a webhook that was deleted": "Webhooks are registered in 1 workspace",
}


@pytest.mark.parametrize("name", MENDED)
def test_fix_does_what_is_safe_and_then_all_is_well(
    kpi: Kpi, well: Well, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault = BY_NAME[name]
    with fault.make(well, monkeypatch):
        fixed = kpi("doctor", fault.check, "--fix")
        assert MENDED[name] in fixed.answer()
        assert fixed.out.splitlines()[-1] == "All is well."


def test_fix_leaves_alone_what_people_have_to_decide(
    kpi: Kpi, well: Well, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BY_NAME["a schedule that is off"].make(well, monkeypatch):
        result = kpi("doctor", "automation", "--fix")
    assert result.code == 2
    assert "→" not in result.out


def test_it_prints_a_line_for_each_finding_and_its_exit_code_is_that_of_the_worst(
    kpi: Kpi, well: Well, monkeypatch: pytest.MonkeyPatch, a_readable_folder: Path
) -> None:
    assert kpi("doctor", "versions").code == 0
    with BY_NAME["no dump"].make(well, monkeypatch):
        warned = kpi("doctor", "backups", "disk")
        both = kpi("doctor", "backups", "file-modes")
    disk, dump, verdict = warned.out.splitlines()
    assert disk.startswith("✓ disk          The disk of ")
    assert dump.startswith("! backups       No dump was ever made. Run `kpi db dump FILE` every ")
    assert (verdict, warned.code) == ("0 problems, 1 warning.", 1)
    assert f"Run `chmod 700 {a_readable_folder}`." in both.out
    assert (both.out.splitlines()[-1], both.code) == ("1 problem, 1 warning.", 2)


def test_the_json_has_the_documented_shape(
    kpi: Kpi, well: Well, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BY_NAME["a webhook that was deleted"].make(well, monkeypatch):
        result = kpi("doctor", "webhooks", "--json")
    document = json.loads(result.out)
    assert (document["verdict"], document["exit_code"], result.code) == ("problem", 2, 2)
    (finding,) = document["findings"]
    assert finding == {
        "check": "webhooks",
        "verdict": "problem",
        "text": f"Webhooks are missing in 1 workspace: {well.client}.",
        "remedy": "`kpi webhooks register` corrects it.",
        "clients": [well.client],
        "fixable": True,
    }
    section = (PROJECT_ROOT / "docs" / "monitoring.md").read_text().split("`kpi doctor --json`")[1]
    shape = re.findall(r"^\| `([a-z_.\[\]]+)` ", section.split("\n## ")[0], flags=re.MULTILINE)
    names = [*document.keys() - {"findings"}, *(f"findings[].{it}" for it in finding)]
    assert sorted(it.removesuffix("[]") for it in shape) == sorted(names)


def test_the_list_and_the_document_name_each_check(kpi: Kpi) -> None:
    listed = kpi("doctor", "--list").answer().splitlines()
    assert [it.split()[0] for it in listed] == [it.name for it in CHECKS]
    section = (PROJECT_ROOT / "docs" / "monitoring.md").read_text().split("## The doctor")[1]
    rows = re.findall(r"^\| `([a-z-]+)` \| ", section.split("\n## ")[0], flags=re.MULTILINE)
    assert [it for it in rows if it not in ("verdict",)] == [it.name for it in CHECKS]


def test_a_check_that_could_not_be_made_names_the_problem_and_is_no_success(
    kpi: Kpi, well: Well, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BY_NAME["a database that is away"].make(well, monkeypatch):
        result = kpi("doctor", "targets")
    problem, targets, verdict = result.out.splitlines()
    assert problem.startswith("✗ database      The database postgresql://nobody@127.0.0.1:")
    assert targets == "– targets       Checked when this is well: database."
    assert (verdict, result.code) == ("1 problem, 0 warnings.", 2)


def test_a_check_that_does_not_exist_is_an_error(kpi: Kpi, well: Well) -> None:
    error = kpi("doctor", "webhook").error()
    assert error.startswith("There is no check webhook. Known are settings, ")
