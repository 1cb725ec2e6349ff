"""Each command that a document names exists, and takes the words and options that it is given."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.cli.main import commands
from kpi_pipeline.services.doctor.run import CHECKS
from kpi_pipeline_tests.test_documentation import DOCUMENTS, read

KPI = get_command(commands)
RUNBOOK = "docs/operations.md"
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Files that a command checks before it runs.
_FILES = ("clients.csv", "key.txt", "FILE")


def fenced(text: str) -> Iterator[list[str]]:
    """The `kpi` commands of code blocks, which a reader copies as they are."""
    for language, block in _FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ")
            if language in ("console", "sh") and re.match(r"kpi\s", command):
                yield words_of(command)


def inline(text: str) -> Iterator[list[str]]:
    """The `kpi` commands within sentences; some are the mere name of one."""
    for command in re.findall(r"`(kpi\s[^`]+)`", _FENCED.sub("", text)):
        yield words_of(" ".join(command.split()))


def words_of(command: str) -> list[str]:
    """The words of a shell's line, without its comment and where its output goes; `…` is a date."""
    words = shlex.split(re.sub(r"\s[>|].*", "", command.replace("…", "2026-03-01")), comments=True)
    return words[1:]


def problem_of(words: list[str], *, whole: bool) -> str | None:
    """Why the command line would be refused; a mere name need not have its arguments."""
    command, context = KPI, typer.Context(KPI, info_name="kpi")
    words = [it for it in words if it != "--demo"]
    while isinstance(command, TyperGroup):
        if not words:
            return None
        name, *words = words
        found = command.get_command(context, name)
        if found is None:
            return f"{context.command_path} has no command {name}"
        command, context = found, typer.Context(found, info_name=name, parent=context)
    try:
        command.make_context(context.info_name, list(words), parent=context.parent)
    except typer.Exit:
        return None  # after --help
    except TyperException as error:
        missing = error.format_message().startswith("Missing ")
        wrong = f"{context.command_path}: {error.format_message()}"
        return None if missing and not whole else wrong
    return None


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in _FILES:
        Path(name).touch()


# The changelog names commands as they were.
@pytest.mark.parametrize(
    "document",
    [it for it in DOCUMENTS if it.name != "CHANGELOG.md"],
    ids=lambda path: path.name,
)
def test_each_documented_command_parses(document: Path) -> None:
    text = document.read_text()
    lines = [(it, True) for it in fenced(text)] + [(it, False) for it in inline(text)]
    problems = {" ".join(it): problem_of(it, whole=whole) for it, whole in lines}
    assert {it: problem for it, problem in problems.items() if problem} == {}


def test_the_commands_of_the_runbook_and_the_readme_are_found() -> None:
    assert ["doctor"] in [*fenced(read(RUNBOOK)), *fenced(read("README.md"))]
    assert len(list(fenced(read("README.md")))) >= 7
    assert len(list(inline(read(RUNBOOK)))) > 80


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("kpi clients imprt clients.csv", "kpi clients has no command imprt"),
        ("kpi sync --dat 2026-03-04", "kpi sync: No such option: --dat"),
        ("kpi keys rotate", "kpi keys rotate: Missing argument"),
        ("kpi sync --date 4.3.2026", "kpi sync: Invalid value for '--date'"),
    ],
)
def test_a_command_that_would_be_refused_is_noticed(line: str, problem: str) -> None:
    assert (problem_of(words_of(line), whole=True) or "").startswith(problem)


def test_each_check_stands_beside_a_symptom_of_the_runbook() -> None:
    table = read(RUNBOOK).split("\n| You see | Shown by | What mends it |\n")[1].split("\n\n")[0]
    shown_by = [re.findall(r"`([\w-]+)`", row.split(" | ")[1]) for row in table.splitlines()[1:]]
    named = {name for names in shown_by for name in names}
    assert named == {*Check, *(it.name for it in CHECKS)}
