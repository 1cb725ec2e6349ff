"""What we install is what was pinned, and what `make audit` finds is what it says."""

import re
import subprocess
from pathlib import Path

import pytest

from audit.packages import not_allowed, read_advisories, table_of, with_bundled
from audit.secret_scan import find_secrets
from kpi_pipeline_tests import PROJECT_ROOT

FILES = ["constraints.txt", "requirements.txt", "audit/requirements.txt"]
# A name and its version, perhaps a marker, and its hashes: nothing else, so no address either.
PINNED = re.compile(
    r"([a-z0-9-]+)==([^ ;]+)( ; [^\\]+?)?( \\\n    --hash=sha256:[0-9a-f]{64})+", re.ASCII
)


def pinned(file: str) -> set[tuple[str, str]]:
    """Names and versions; a name may have another version on an older Python."""
    text = (PROJECT_ROOT / file).read_text()
    assert PINNED.sub("", text).strip() == ""
    return {(found[1], found[2]) for found in PINNED.finditer(text)}


@pytest.mark.parametrize("file", FILES)
def test_each_package_is_pinned_with_its_hashes_and_without_an_address(file: str) -> None:
    assert len(pinned(file)) > 30


def test_the_product_has_the_versions_with_which_it_was_tested() -> None:
    everything, product = pinned(FILES[0]), pinned(FILES[1])
    assert product - everything == set()
    assert "pytest" in dict(everything)
    assert "pytest" not in dict(product)


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@agency.example")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_a_secret_is_found_in_the_tree_and_in_a_commit_that_a_later_one_undid(
    tmp_path: Path,
) -> None:
    key, token = f"17|{'Kq7' * 16}", "ghp_" + "a1B2" * 9
    (tmp_path / "notes.txt").write_text(f"use {key} for now\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "Notes")
    (tmp_path / "notes.txt").write_text("see the vault\n")
    git(tmp_path, "commit", "-qam", "No notes")
    (tmp_path / "deploy.sh").write_text(f"TOKEN={token}\nPASSWORD=hunter2\n")

    found = find_secrets(tmp_path)

    assert sorted((it.path, it.kind, bool(it.commit)) for it in found) == [
        ("deploy.sh", "GitHub Token", False),
        ("notes.txt", "API key of Email Bison", True),
    ]
    assert not any(secret in str(it) for it in found for secret in (key, token))


@pytest.mark.parametrize(
    "licence",
    [
        "MIT",
        "BSD 3-Clause OR Apache-2.0",
        "GPL-3.0-only OR MIT",
        "Apache Software License; BSD License",
        "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
        "LGPL-3.0-only",
    ],
)
def test_a_licence_that_lets_us_pass_the_product_on_is_allowed(licence: str) -> None:
    assert not_allowed({"package": licence}) == []


@pytest.mark.parametrize(
    "licence",
    ["GPL-3.0-only", "UNKNOWN", "", "MIT AND AGPL-3.0-only", "Other/Proprietary License"],
)
def test_another_licence_is_named_with_its_package(licence: str) -> None:
    assert not_allowed({"package": licence}) == [f"package: {licence}"]


def test_packages_of_the_product_lead_the_table_of_licences() -> None:
    table = table_of({"a-tool": "MIT", "zlib-ng": "Zlib"}, ["zlib-ng"])
    assert table.splitlines()[2:] == [
        "| zlib-ng | Zlib | product |",
        "| a-tool | MIT | development |",
    ]


def test_packages_that_no_advisory_was_asked_about_do_not_count_as_examined() -> None:
    answer = {
        "dependencies": [
            {"name": "old", "version": "1.0", "vulns": [{"id": "X-1", "fix_versions": ["1.1"]}]},
            {"name": "new", "version": "2.0", "vulns": []},
            {"name": "unlisted", "skip_reason": "Dependency not found"},
        ]
    }
    assert read_advisories(answer) == (["old 1.0: X-1, mended in 1.1"], 2, ["unlisted"])
    assert read_advisories({"dependencies": answer["dependencies"][2:]}) == ([], 0, ["unlisted"])


def test_the_bill_of_materials_has_what_no_package_of_python_declares() -> None:
    document = with_bundled({"components": [{"name": "dagster"}]}, "2.0.11", "18.3")
    assert [it["name"] for it in document["components"]] == ["dagster", "htmx.org", "postgresql"]
