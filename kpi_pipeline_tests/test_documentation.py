import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.variables import OTHER_VARIABLES
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.test_layers import MAY_IMPORT

SETTINGS = {f"KPI_{name.upper()}" for name in Settings.model_fields}
DOCUMENTS = [*sorted(PROJECT_ROOT.glob("*.md")), *sorted((PROJECT_ROOT / "docs").glob("*.md"))]


def read(name: str) -> str:
    return (PROJECT_ROOT / name).read_text()


def _name(variable: str) -> str:
    """The setting of a variable: there is a secret for each instance."""
    return re.sub(r"^(KPI_WEBHOOK_SECRET)_.*", r"\1", variable)


def test_the_page_of_settings_has_a_row_for_each_and_names_no_other() -> None:
    page = read("docs/settings.md")
    rows = re.findall(r"^\| `(KPI_[A-Z_]+)…?` \|", page, flags=re.MULTILINE)
    assert sorted(map(_name, rows)) == sorted(SETTINGS | OTHER_VARIABLES)
    assert {_name(it) for it in re.findall(r"KPI_[A-Z_]+", page)} - {"KPI_"} == set(
        map(_name, rows)
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_name_no_setting_that_the_code_does_not_have(document: Path) -> None:
    if document.name == "CHANGELOG.md":  # names what earlier versions had
        return
    named = {_name(it) for it in re.findall(r"KPI_[A-Z_]*[A-Z]", document.read_text())}
    assert named <= SETTINGS | OTHER_VARIABLES | {"KPI_TEST_BROWSER"}


def test_the_example_of_an_env_file_names_every_setting_and_no_other() -> None:
    named = re.findall(r"^(KPI_[A-Z_]+)=", read(".env.example"), flags=re.MULTILINE)
    assert sorted(map(_name, named)) == sorted(SETTINGS)


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_documented_defaults_are_those_of_the_code() -> None:
    page = read("docs/settings.md")
    rows = re.findall(r"^\| `KPI_([A-Z_]+)` \| `([^`]+)` \|", page, flags=re.MULTILINE)
    documented = {name.lower(): default for name, default in rows}
    assert documented == {
        name: f"{Settings.model_fields[name].default:g}"
        if isinstance(Settings.model_fields[name].default, float)
        else str(Settings.model_fields[name].default)
        for name in documented
    }
    assert len(documented) >= 8


def _anchors(document: Path) -> set[str]:
    """The names of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", it.lower()).replace(" ", "-") for it in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", document.read_text())
    targets = [(document.parent / path if path else document, anchor) for path, anchor in links]
    assert [it for it, _ in targets if not it.exists()] == []
    assert [it for it in targets if it[1] and it[1] not in _anchors(it[0])] == []


def test_the_architecture_has_the_rooms_and_what_each_may_import() -> None:
    rows = re.findall(
        r"^\| `([a-z]+)` \| [^|]+ \| ([^|]+) \|$", read("docs/architecture.md"), flags=re.MULTILINE
    )
    documented: dict[str, set[str]] = {}
    for room, imports in rows:
        everything = imports == "everything above"
        documented[room] = set(documented) if everything else set(re.findall(r"`(\w+)`", imports))
    assert documented == MAY_IMPORT


def test_every_column_of_client_metrics_is_defined() -> None:
    rows = re.findall(r"^\| (`.+?`) \| ", read("docs/numbers.md"), flags=re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(documented) == sorted(column.name for column in client_metrics.columns)


def test_every_check_schedule_and_sensor_is_documented() -> None:
    from kpi_pipeline.orchestration.automation import build_automation

    # One sensor exists where a switch is set.
    automation = build_automation(Settings(heartbeat_url=SecretStr("https://watch.example/abc")))
    rows = re.findall(r"^\| `(\w+)` \| ", read("docs/checks.md"), flags=re.MULTILINE)
    names = [it.name for it in automation.schedules] + [it.name for it in automation.sensors]
    assert sorted(rows) == sorted([*Check, *names])


def test_each_lesson_names_a_test_that_exists() -> None:
    lessons = re.findall(r"`(test_\w+)`", read("docs/lessons.md"))
    code = "\n".join(
        path.read_text() for path in (PROJECT_ROOT / "kpi_pipeline_tests").rglob("test_*.py")
    )
    assert len(lessons) > 20
    assert [name for name in lessons if f"def {name}(" not in code] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_name_only_make_targets_that_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", document.read_text())) <= targets
