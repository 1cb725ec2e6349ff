"""Scans the working tree, and each line that any commit ever added, for secrets."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent
INVENTED = _FOLDER / "invented.txt"
# Packages' hashes are no secrets, and the file of what is none lists them all.
_LEFT_OUT = ("constraints.txt", "requirements.txt", "audit/requirements.txt", "audit/invented.txt")
_HISTORY = "git log --all -m -p -U0 --text --no-color --no-ext-diff --no-renames --format=commit:%h"
# A longer line is generated, and takes the regular expressions minutes.
_LONGEST = 5_000


@dataclass(frozen=True)
class Finding:
    """What may be a secret. Its value is not shown: the output of a build is read by many."""

    kind: str
    path: str
    commit: str
    sha1: str

    def __str__(self) -> str:
        place = self.commit if self.commit else "the working tree"
        return f"{self.path}, added in {place}: {self.kind}"


@dataclass(frozen=True)
class _Line:
    path: str
    commit: str
    text: str


def find_secrets(repository: Path) -> list[Finding]:
    """What may be a secret in the tree or its history, but for the invented ones that are known.

    Raises:
        subprocess.CalledProcessError: if git or detect-secrets fails.
    """
    known = invented()
    return [it for it in _scan(_unique_lines(repository)) if it.sha1 not in known]


def invented() -> set[str]:
    """The SHA-1 of each value in `invented.txt`, by which detect-secrets names its findings."""
    lines = INVENTED.read_text().splitlines()
    values = [it for it in lines if it and not it.startswith("# ")]
    return {hashlib.sha1(it.encode(), usedforsecurity=False).hexdigest() for it in values}


def _unique_lines(repository: Path) -> list[_Line]:
    """Each line once, where it first appears: most lines of a history are repeated in it."""
    found: dict[str, _Line] = {}
    for line in (*_working_tree(repository), *_history(repository)):
        if line.text and len(line.text) <= _LONGEST and line.path not in _LEFT_OUT:
            found.setdefault(line.text, line)
    return list(found.values())


def _working_tree(repository: Path) -> Iterator[_Line]:
    """Files that git tracks or would add, as they are now."""
    names = _git(repository, "git ls-files -z --cached --others --exclude-standard").split("\0")
    for name in filter(None, names):
        path = repository / name
        if path.is_file():
            for text in path.read_bytes().decode(errors="replace").splitlines():
                yield _Line(name, "", text.strip())


def _history(repository: Path) -> Iterator[_Line]:
    commit = path = ""
    for text in _git(repository, _HISTORY).split("\n"):
        if text.startswith("commit:"):
            commit = text.removeprefix("commit:")
        elif text.startswith("+++ "):
            path = text[4:].strip().strip('"').removeprefix("b/")
        elif text.startswith("+"):
            yield _Line(path, commit, text[1:].strip())


def _git(repository: Path, command: str) -> str:
    done = subprocess.run(command.split(), cwd=repository, capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def _scan(lines: list[_Line]) -> Iterator[Finding]:
    """What detect-secrets finds in the lines, put into files of their own names."""
    by_path: dict[str, list[_Line]] = {}
    for line in lines:
        by_path.setdefault(line.path, []).append(line)
    with tempfile.TemporaryDirectory() as folder:
        # A path of the history may be a file of one commit and a folder of another.
        files = {f"{index:05}-{Path(path).name}": path for index, path in enumerate(by_path)}
        for name, path in files.items():
            Path(folder, name).write_text("\n".join(it.text for it in by_path[path]) + "\n")
        # It would try a secret at the service that it seems to be of.
        scan = [sys.executable, "-m", "detect_secrets", "scan", "--all-files", "--no-verify"]
        plugin = str(_FOLDER / "email_bison_key.py")
        done = subprocess.run(
            [*scan, "--plugin", plugin], cwd=folder, capture_output=True, check=True
        )
    for name, results in json.loads(done.stdout)["results"].items():
        for result in results:
            line = by_path[files[name]][result["line_number"] - 1]
            yield Finding(result["type"], line.path, line.commit, result["hashed_secret"])
