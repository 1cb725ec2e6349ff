"""Runs the audit and prints a line for each part; `make audit` prepares what it needs."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from audit import packages
from audit.secret_scan import INVENTED, find_secrets

_REPORTS = Path("dist/audit")
_PINNED = ["constraints.txt", "audit/requirements.txt"]


@dataclass(frozen=True)
class Result:
    """What a part examined, None if it could not, and the problems that it found."""

    examined: str | None
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.examined is None:
            return "NOT EXAMINED, no source of advisories can be reached from here"
        count = len(self.problems)
        return f"{count or 'no'} problem{'' if count == 1 else 's'}, {self.examined}"


def secrets() -> Result:
    """Scan the tree and its history for secrets."""
    found = find_secrets(Path())
    advice = (
        f". Replace each secret where it is in use. One that opens nothing: audit/{INVENTED.name}"
        if found
        else ""
    )
    return Result(f"the working tree and each line of its history{advice}", list(map(str, found)))


def vulnerabilities() -> Result:
    """Ask for known vulnerabilities of all pinned packages, the tools of the audit included."""
    problems, examined = packages.vulnerabilities(_PINNED)
    return Result(examined, problems)


def licences() -> Result:
    """Write the table of licences, and name those that are not agreed to."""
    product = packages.licences(packages.PRODUCT)
    found = packages.licences(packages.EVERYTHING) | product
    target = _REPORTS / "licences.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(packages.table_of(found, product))
    return Result(f"{len(found)} packages, in {target}", packages.not_allowed(found))


def bill_of_materials() -> Result:
    """Write what the product consists of."""
    target = _REPORTS / "sbom.cdx.json"
    return Result(f"{packages.write_sbom(target)} components of the product, in {target}")


_PARTS: dict[str, Callable[[], Result]] = {
    "Secrets": secrets,
    "Vulnerabilities": vulnerabilities,
    "Licences": licences,
    "Bill of materials": bill_of_materials,
}


def main() -> int:
    """Print what each part found; 1 if there is a problem."""
    failed = False
    for name, part in _PARTS.items():
        result = part()
        failed = failed or bool(result.problems)
        print(f"{name}: {result}.")
        for problem in result.problems:
            print(f"  {problem}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
