from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.tables import client_api_keys, client_metrics, client_targets, clients
from kpi_pipeline_tests.cli.running import Kpi, calm_zone, cells, days_ago, rows_of, written
from kpi_pipeline_tests.db.stocked import stock_facts

HEADER = (
    "instance,bison_workspace_id,name,display_name,active,monthly_kpi_target,"
    "monthly_sending_target,api_key"
)
KEY = f"17|{'abcDEFghi123' * 4}"
HERON = f"main,101,Heron Tide Freight,Heron,yes,60,30000,{KEY}"
LARK = "main,102,Lark Mill Solar,,no,,,"


@pytest.fixture(autouse=True)
def _email_bison(configured: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clients.csv"


def _stored(engine: Engine) -> object:
    return rows_of(engine, clients, client_targets, client_api_keys)


def test_an_import_says_what_it_took_and_the_list_shows_it(kpi: Kpi, file: Path) -> None:
    answer = kpi("clients", "import", written(file, HEADER, HERON, LARK)).answer()
    month = f"{days_ago(0):%Y-%m}"
    assert answer == (f"2 clients imported: 2 new. Targets hold from {month}.\n")
    screen = kpi("clients", "list").answer()
    assert cells(screen, "heron-tide-freight") == [
        *("heron-tide-freight", "Heron", "main", "101", "yes", "yes", "–")
    ]
    assert cells(screen, "lark-mill-solar") == [
        *("lark-mill-solar", "Lark Mill Solar", "main", "102", "no", "no", "–")
    ]
    assert screen.splitlines()[-1] == "Active: 1 of 2 clients."
    assert KEY not in screen


def test_targets_hold_from_the_month_that_is_named(kpi: Kpi, file: Path, engine: Engine) -> None:
    path = written(file, HEADER, HERON)
    answer = kpi("clients", "import", path, "--targets-from", "2026-02").answer()
    assert "Targets hold from 2026-02." in answer
    (target,) = rows_of(engine, client_targets)["client_targets"]
    assert (target["holds_from"], target["monthly_kpi_target"]) == (date(2026, 2, 1), 60)


def test_a_client_that_is_imported_again_keeps_its_key_and_takes_its_new_label(
    kpi: Kpi, file: Path
) -> None:
    kpi("clients", "import", written(file, HEADER, HERON)).answer()
    renamed = "main,101,Crane Tide Freight,Crane,yes,60,30000,"
    kpi("clients", "import", written(file, HEADER, renamed)).answer()
    screen = kpi("clients", "list").answer()
    assert cells(screen, "heron-tide-freight")[1] == "Crane"
    assert cells(screen, "heron-tide-freight")[5] == "yes"
    assert "Active: 1 of 1 client." in screen


def test_a_file_with_some_columns_changes_nothing_else(
    kpi: Kpi, file: Path, engine: Engine
) -> None:
    kpi("clients", "import", written(file, HEADER, HERON, LARK)).answer()
    before = rows_of(engine, client_targets, client_api_keys)
    rows = ("main,101,Heron Tide Cargo", "main,102,Lark Mill Solar")

    answer = kpi(
        "clients", "import", written(file, "instance,bison_workspace_id,name", *rows)
    ).answer()

    assert answer == (
        "heron-tide-freight: name Heron Tide Freight → Heron Tide Cargo\n"
        f"2 clients imported: 1 unchanged, 1 name. Targets hold from {days_ago(0):%Y-%m}.\n"
    )
    assert rows_of(engine, client_targets, client_api_keys) == before
    screen = kpi("clients", "list").answer()
    assert cells(screen, "heron-tide-freight")[1] == "Heron"
    assert "Active: 1 of 2 clients." in screen


def test_a_dry_run_prints_what_an_import_would_change_and_writes_nothing(
    kpi: Kpi, file: Path, engine: Engine
) -> None:
    kpi("clients", "import", written(file, HEADER, HERON, LARK)).answer()
    before = _stored(engine)
    changed = written(
        file, HEADER, HERON.replace("60,30000", "75,30000"), LARK, "main,103,Otter,,,,,"
    )

    rehearsed = kpi("clients", "import", changed, "--dry-run").answer()

    month = f"{days_ago(0):%Y-%m}"
    assert rehearsed.splitlines() == [
        "heron-tide-freight: monthly_kpi_target 60 → 75",
        f"3 clients would be imported: 1 new, 1 unchanged, 1 target. Targets hold from {month}.",
        "Nothing was written.",
    ]
    assert _stored(engine) == before
    done = kpi("clients", "import", changed).answer()
    assert done.splitlines() == [
        it.replace("would be imported", "imported") for it in rehearsed.splitlines()[:-1]
    ]


def test_what_may_be_a_mistake_is_refused_as_a_whole_until_it_is_confirmed(
    kpi: Kpi, file: Path, engine: Engine
) -> None:
    kpi("clients", "import", written(file, HEADER, HERON, LARK)).answer()
    before = _stored(engine)
    older = KEY.replace("17|", "16|")
    path = written(
        file,
        HEADER,
        HERON.replace("60,", ",").replace(KEY, older),
        LARK.replace("no", "yes"),
        "main,103,Otter Ridge Law,,yes,,,",
    )
    changes = [
        "  line 2, monthly_kpi_target: the cell is blank, and the target 60 of heron-tide-freight "
        "would be deleted",
        "  line 2, api_key: key 17 of heron-tide-freight would be replaced by key 16, which is "
        "older",
        "  line 3, active: lark-mill-solar is inactive, and would be active again",
    ]

    problem = kpi("clients", "import", path).error()

    assert problem.splitlines() == [
        f"{path} was not imported, as some changes need --yes. Correct these cells, or import it "
        "again with --yes:",
        *changes,
    ]
    assert KEY[3:] not in problem
    assert _stored(engine) == before

    rehearsed = kpi("clients", "import", path, "--dry-run").answer()
    assert rehearsed.splitlines()[-5:] == [
        "These changes need --yes:",
        *changes,
        "Nothing was written.",
    ]
    assert KEY[3:] not in rehearsed
    assert _stored(engine) == before

    answer = kpi("clients", "import", path, "--yes").answer()
    assert "1 new, 1 target, 1 API key, 1 reactivated." in answer
    assert KEY[3:] not in answer
    assert "Active: 3 of 3 clients." in kpi("clients", "list").answer()


def test_a_new_target_and_label_show_at_once_in_the_stored_rows(
    kpi: Kpi, file: Path, engine: Engine
) -> None:
    kpi("clients", "import", written(file, HEADER, HERON)).answer()
    slug, days = "heron-tide-freight", [days_ago(1), days_ago(0)]
    with engine.begin() as connection:
        stock_facts(connection, slug, days_ago(70), days_ago(0))
        update_rows(
            connection,
            [slug],
            since=days_ago(1),
            zone=calm_zone(),
            source="sync",
            dates=days,
        )
    changed = HERON.replace("60,", "75,").replace(",Heron,", ",Crane,")

    month = f"{days_ago(1):%Y-%m}"
    kpi("clients", "import", written(file, HEADER, changed), "--targets-from", month).answer()

    rows = rows_of(engine, client_metrics)["client_metrics"]
    assert [(it["monthly_kpi_target"], it["display_name"]) for it in rows] == [(75, "Crane")] * 2


def test_the_template_can_be_imported_as_it_is(kpi: Kpi, file: Path) -> None:
    template = kpi("clients", "template").answer()
    file.write_text(template)
    answer = kpi("clients", "import", str(file)).answer()
    assert answer.startswith(f"{len(template.splitlines()) - 1} clients imported")


def test_a_file_with_problems_is_rejected_as_a_whole_and_each_problem_is_named(
    kpi: Kpi, file: Path, engine: Engine
) -> None:
    kpi("clients", "import", written(file, HEADER, HERON)).answer()
    before = _stored(engine)
    path = written(
        file,
        HEADER,
        "main,101,Crane Tide Freight,,yes,99,,",
        "main,,Nobody,,yes,,,",
        "main,103,Otter Ridge Law,,perhaps,many,,",
        "west,104,Quiet Vale Roofing,,yes,,,",
    )
    problem = kpi("clients", "import", path).error().splitlines()
    assert problem[0] == f"{path} was not imported. Correct these and import it again:"
    assert [line.strip() for line in problem[1:]] == [
        "line 3, bison_workspace_id: it is empty",
        "line 4, active: 'perhaps' is neither yes nor no",
        "line 4, monthly_kpi_target: 'many' is no whole number from 0 to 2147483647",
        "line 5, instance: 'west' is not configured; known: main",
    ]
    assert _stored(engine) == before


def test_clients_of_every_configured_instance_are_taken_and_those_of_any_other_refused(
    kpi: Kpi, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = "main http://127.0.0.1:9, emea http://127.0.0.1:10"
    monkeypatch.setenv("KPI_BISON_INSTANCES", two)
    path = written(file, HEADER, HERON, "west,101,Quiet Vale Roofing,,yes,,,")
    problem = kpi("clients", "import", path).error()
    assert problem.splitlines()[1:] == [
        "  line 3, instance: 'west' is not configured; known: emea, main"
    ]
    path = written(file, HEADER, HERON, "emea,101,Quiet Vale Roofing,,yes,,,")
    kpi("clients", "import", path).answer()
    screen = kpi("clients", "list").answer()
    assert cells(screen, "heron-tide-freight")[2:4] == ["main", "101"]
    assert cells(screen, "quiet-vale-roofing")[2:4] == ["emea", "101"]


def test_a_malformed_api_key_is_refused_and_not_shown(kpi: Kpi, file: Path, engine: Engine) -> None:
    for key in (KEY.replace("17|", ""), KEY.replace("|", " "), f"{KEY}!", "17|x"):
        path = written(file, HEADER, HERON.replace(KEY, key))
        problem = kpi("clients", "import", path).error()
        assert "line 2, api_key: it is not of the form NUMBER|LETTERS-AND-DIGITS" in problem
        assert key not in problem
    assert rows_of(engine, clients) == {"clients": []}


def test_a_file_that_is_not_there_is_named(kpi: Kpi, file: Path) -> None:
    problem = kpi("clients", "import", str(file)).error()
    assert problem == f"{file} can't be read: No such file or directory. Check the name."


def test_a_folder_is_no_file(kpi: Kpi, tmp_path: Path) -> None:
    problem = kpi("clients", "import", str(tmp_path)).error()
    assert problem == f"{tmp_path} can't be read: Is a directory. Check the name."


def test_a_file_that_the_system_gives_nobody_to_read_is_named(kpi: Kpi) -> None:
    # Not even root may read this one, where a file without rights would stop others alone.
    problem = kpi("clients", "import", "/proc/self/mem").error()
    assert problem == "/proc/self/mem can't be read: Input/output error. Check the name."


def test_a_file_in_another_encoding_is_refused_with_the_remedy(kpi: Kpi, file: Path) -> None:
    file.write_bytes(f"{HEADER}\nmain,101,Brûlé Café,,yes,,,\n".encode("latin-1"))
    problem = kpi("clients", "import", str(file)).error()
    assert problem.startswith(f"{file} is not UTF-8 text.")


def test_an_import_without_an_email_bison_names_the_setting(
    kpi: Kpi, file: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KPI_BISON_INSTANCES")
    problem = kpi("clients", "import", written(file, HEADER, HERON)).error()
    assert problem == (
        "No Email Bison is configured: set KPI_BISON_INSTANCES to `NAME https://HOST MASTER_KEY`."
    )
    assert rows_of(engine, clients) == {"clients": []}


def test_a_month_that_does_not_exist_is_a_usage_error(kpi: Kpi, file: Path, engine: Engine) -> None:
    path = written(file, HEADER, HERON)
    result = kpi("clients", "import", path, "--targets-from", "2026-13")
    assert (result.code, result.out) == (2, "")
    assert "--targets-from" in result.err
    assert rows_of(engine, clients) == {"clients": []}


def test_two_keys_that_begin_alike_stay_distinct_on_a_narrow_screen(kpi: Kpi, file: Path) -> None:
    names = ["Quiet Harvest Orchard Landscaping East", "Quiet Harvest Orchard Landscaping West"]
    rows = [f"main,{number},{name},,yes,,," for number, name in enumerate(names, 101)]
    kpi("clients", "import", written(file, HEADER, *rows)).answer()
    screen = kpi("clients", "list").answer()
    for name in names:
        assert cells(screen, name.lower().replace(" ", "-"))[1] == name


def test_the_list_and_the_template_need_no_email_bison(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KPI_BISON_INSTANCES")
    assert "Active: 0 of 0 clients." in kpi("clients", "list").answer()
    columns = HEADER.replace("api_key", "max_sending_shortfall,min_reply_rate,api_key")
    assert kpi("clients", "template").answer().startswith(columns + "\n")
