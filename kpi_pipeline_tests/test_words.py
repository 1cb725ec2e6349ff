"""Names and phrases that the project no longer uses, as others say better what they meant."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpi_pipeline_tests import PROJECT_ROOT

# Hidden folders hold state of tools; these two are part of the project.
HIDDEN = {".ci", ".github"}
GENERATED = {"__pycache__", "build", "dist", "node_modules"}

NAMES = [
    "Rectangle",
    "work_through",
    "through_restarts",
    "to_the_end",
    "LoopLock",
    "fetching_alone",
    "take_up_files",
    "settle_waiting",
    "correspondence",
    "DeploymentResource",
]
PHRASES = [
    "Bears with",
    "in words that cost nothing to import",
    "The backfill that a run is a part of",
    "the sums over any run of them",
    "a stranger's workspace",
    "the watch from outside",
    "everything that needs one is handed it",
    "What came in by itself",
    "Something the person at the keyboard can mend",
    "all that should tick ticks",
    "of them impossible",
]


def _files(root: Path) -> Iterator[Path]:
    """Text and program files of the project: a checkout or an unpacked archive, without state."""
    for folder, folders, names in os.walk(root):
        folders[:] = [
            it
            for it in folders
            if it not in GENERATED
            and not it.endswith(".egg-info")
            and (not it.startswith(".") or it in HIDDEN)
        ]
        for name in names:
            path = Path(folder, name)
            # A settings file is a person's own.
            if path != Path(__file__).resolve() and name != ".env":
                yield path


def _prose(text: str) -> str:
    """The text on one line, joined across line ends, quotes of strings and comment signs."""
    return re.sub(r"[\s\"#]+", " ", text)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    found = {}
    for path in _files(PROJECT_ROOT):
        try:
            found[str(path.relative_to(PROJECT_ROOT))] = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # a picture
    assert {"README.md", "kpi_pipeline/app.py", ".ci/run"} <= found.keys()
    assert len(found) > 200
    return found


@pytest.mark.parametrize("name", NAMES)
def test_no_file_uses_an_old_name(texts: dict[str, str], name: str) -> None:
    word = re.compile(rf"\b{name}\b")
    assert [path for path, text in texts.items() if word.search(text)] == []


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_file_uses_an_old_phrase(texts: dict[str, str], phrase: str) -> None:
    pattern = _prose(phrase).lower()
    assert [path for path, text in texts.items() if pattern in _prose(text).lower()] == []


@pytest.mark.parametrize(
    "text",
    [
        '"""Bears with a server that is away."""',
        "# it bears\n    # with it",
        '"It bears "\n        "with it."',
    ],
    ids=["docstring", "comment", "joined string"],
)
def test_a_phrase_is_found_across_lines(text: str) -> None:
    assert "bears with" in _prose(text).lower()
