"""The instances of Email Bison, out of the text of one setting."""

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonInstance
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import (
    InstanceSetting,
    format_instances,
    is_api_key,
    parse_instances,
)
from kpi_pipeline.settings import Settings

KEY = "12|" + "Abcdefgh12" * 5
MAIN = InstanceSetting("main", "https://bison.example", SecretStr(KEY))
EMEA = InstanceSetting("emea", "http://127.0.0.1:8025", None)

FORM = "NAME https://HOST MASTER_KEY"
LACKS = f"it lacks a name or an address, write {FORM}"
ORDER = f"its parts are in another order, write {FORM}"
NONE = "its address is not valid, write it as https://HOST"
MORE = "its address holds more than scheme and host, write it as https://HOST"
NAME = (
    "its name is not valid, write 1 to 31 lower-case letters, digits, - and _, the first of them a "
    "letter or a digit"
)
KEY_FORM = (
    "its master key is not of the form NUMBER|LETTERS-AND-DIGITS, copy it again from Email Bison"
)


@pytest.mark.parametrize(
    "text",
    [
        f"main https://bison.example {KEY}, emea http://127.0.0.1:8025",
        f"main https://bison.example/ {KEY},emea http://127.0.0.1:8025/",
        f"main\thttps://bison.example  {KEY}\nemea http://127.0.0.1:8025\n",
        f"\r\n main https://bison.example {KEY},\r\n emea http://127.0.0.1:8025,\r\n",
    ],
)
def test_entries_stand_between_commas_or_line_breaks(text: str) -> None:
    assert parse_instances(text) == (MAIN, EMEA)


@pytest.mark.parametrize("text", ["", " ", ",", "\n , \n"])
def test_a_text_without_entries_means_no_instance(text: str) -> None:
    assert parse_instances(text) == ()


@pytest.mark.parametrize("name", ["a", "7", "emea-2", "north_west", "a" * 31])
def test_a_name_may_hold_lower_case_letters_digits_and_two_signs(name: str) -> None:
    assert parse_instances(f"{name} https://h")[0].name == name


@pytest.mark.parametrize(
    "url", ["https://h", "HTTPS://Bison.Example", "http://h:80", "https://[::1]:8443"]
)
def test_an_address_is_taken_as_it_is_written(url: str) -> None:
    assert parse_instances(f"main {url}") == (InstanceSetting("main", url, None),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("main", f"entry 1: {LACKS}"),
        ("https://h", f"entry 1: {LACKS}"),
        ("main https://h\nhttps://g", f"entry 2: {LACKS}"),
        (
            f"main https://h {KEY} emea https://g",
            f"main: it has 5 parts, write {FORM} and a comma before the next entry",
        ),
        ("https://h main", f"entry 1: {ORDER}"),
        (f"main {KEY} https://h", f"entry 1: {ORDER}"),
        ("Main https://h", f"entry 1: {NAME}"),
        ("-main https://h", f"entry 1: {NAME}"),
        (f"{'a' * 32} https://h", f"entry 1: {NAME}"),
        ("main h", f"entry 1: {NONE}"),
        ("main h.example:443", f"entry 1: {NONE}"),
        ("main ftp://h", f"main: {NONE}"),
        ("main https://", f"main: {NONE}"),
        ("main https://h:port", f"main: {NONE}"),
        ("main https://h:65536", f"main: {NONE}"),
        ("main https://[h", f"main: {NONE}"),
        ("main https://a|b", f"main: {NONE}"),
        ("main https://h/api", f"main: {MORE}"),
        ("main https://h?a=1", f"main: {MORE}"),
        ("main https://h?", f"main: {MORE}"),
        ("main https://h#a", f"main: {MORE}"),
        ("main https://u:p@h", f"main: {MORE}"),
        ("main https://@h", f"main: {MORE}"),
        ("main https://h 12", f"main: {KEY_FORM}"),
        (f"main https://h {KEY}!", f"main: {KEY_FORM}"),
        (
            "main https://h, emea https://g, main https://f",
            "main: two entries have this name, give each its own",
        ),
        (
            "main https://h, emea https://h",
            "emea: its address is that of main, name each server once",
        ),
        (
            "main https://h, emea HTTPS://H:443/",
            "emea: its address is that of main, name each server once",
        ),
    ],
)
def test_a_problem_is_a_sentence_about_its_entry(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"entry|main|emea") as refused:
        parse_instances(text)
    assert str(refused.value) == told


def test_another_scheme_or_port_is_another_server() -> None:
    found = parse_instances("a https://h, b http://h, c https://h:8443, d http://h:8443")
    assert [it.name for it in found] == ["a", "b", "c", "d"]


def test_all_problems_are_named_at_once() -> None:
    text = "main https://h/api 12, West https://g/x, https://f, a https://e, b https://e"
    with pytest.raises(ValueError, match="main") as refused:
        parse_instances(text)
    assert str(refused.value).split("; ") == [
        f"main: {MORE}",
        f"main: {KEY_FORM}",
        f"entry 2: {NAME}",
        f"entry 2: {MORE}",
        f"entry 3: {LACKS}",
        "b: its address is that of a, name each server once",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "12|hunter2",
        f"main 12|hunter2{'x' * 40}",
        f"12|hunter2{'x' * 40} main",
        "main https://h 12|hunter2!",
        f"main https://h {'hunter2' * 8}",
        # Keys that a comma, a line break or a blank has cut in two.
        "main https://h 12|AB,hunter2",
        "main https://h 12|AB\nhunter2 h.example",
        "main https://h 12| hunter2",
        f"main 12|hunter2{'x' * 40} https://h",
        "main https://:hunter2@h",
        "main https://h/hunter2",
        "main hunter2",
        "https://u:hunter2@h main",
    ],
)
def test_no_problem_shows_a_key_or_a_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"entry|main") as refused:
        parse_instances(text)
    assert "hunter2" not in str(refused.value)


def test_what_is_formatted_is_read_again() -> None:
    assert parse_instances(format_instances([MAIN, EMEA])) == (MAIN, EMEA)
    assert format_instances([]) == ""


def test_no_repr_shows_a_master_key() -> None:
    settings = Settings(bison_instances=(MAIN, EMEA))
    for shown in (repr(MAIN), str(MAIN), repr(settings), settings.model_dump_json()):
        assert "Abcdefgh12" not in shown
        assert "main" in shown


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (KEY, True),
        ("12|" + "a" * 20, True),
        ("12|" + "a" * 19, False),
        (KEY + "\n", False),
        (" " + KEY, False),
        ("x" + KEY, False),
        ("|" + "a" * 48, False),
        ("12|" + "é" * 48, False),
        ("１２|" + "a" * 48, False),
    ],
)
def test_an_api_key_is_known_by_its_form(text: str, fits: bool) -> None:
    assert is_api_key(text) is fits


def test_an_installation_knows_every_configured_instance_by_its_name(
    engine: Engine, vault: Vault
) -> None:
    app = AppContext(Settings(bison_instances=(MAIN, EMEA)), engine, vault, utc_now)
    emea = BisonInstance("emea", EMEA.url, None)
    assert app.instances() == {
        "main": BisonInstance("main", MAIN.url, SecretStr(KEY)),
        "emea": emea,
    }
    assert app.instance("emea") == emea
    with pytest.raises(KpiError) as refused:
        app.instance("west")
    assert str(refused.value) == (
        "The Email Bison instance 'west' is not configured; known: main, emea. "
        "Correct KPI_BISON_INSTANCES, or the client's instance in the CSV."
    )


def test_an_installation_without_instances_says_what_to_set(engine: Engine, vault: Vault) -> None:
    with pytest.raises(KpiError) as refused:
        AppContext(Settings(), engine, vault, utc_now).instance("main")
    assert str(refused.value) == (
        "No Email Bison is configured: set KPI_BISON_INSTANCES to `NAME https://HOST MASTER_KEY`."
    )
