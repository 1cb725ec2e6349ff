"""What a check of the doctor finds: good, not checked, a warning or a problem, with its remedy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from kpi_pipeline.bison import BisonError


class Verdict(StrEnum):
    """How it is, in the order of severity."""

    OK = "ok"
    NOT_CHECKED = "not_checked"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def exit_code(self) -> int:
        """The exit code of a `kpi doctor` whose worst finding this is, as that of `kpi status`."""
        return {Verdict.WARNING: 1, Verdict.PROBLEM: 2}.get(self, 0)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    `text` says how it is, in sentences; `remedy` what to do, where `text` does not say it itself.
    `clients` are those that it concerns, if it is not all. `fix` does what is safe about it, and
    returns a sentence.
    """

    verdict: Verdict
    text: str
    remedy: str = ""
    clients: Sequence[str] = ()
    fix: Callable[[], str] | None = field(default=None, compare=False, repr=False)
    check: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether it is a warning or a problem."""
        return self.verdict in (Verdict.WARNING, Verdict.PROBLEM)

    @property
    def sentence(self) -> str:
        """The text, with the remedy."""
        return f"{self.text} {self.remedy}".strip()

    def of(self, check: str) -> "Finding":
        """The finding, with the name of its check."""
        return replace(self, check=check)


def good(text: str) -> Finding:
    """What holds."""
    return Finding(Verdict.OK, text)


def not_checked(text: str) -> Finding:
    """What cannot be known now, and why."""
    return Finding(Verdict.NOT_CHECKED, text)


def warning(
    text: str,
    remedy: str = "",
    clients: Sequence[str] = (),
    fix: Callable[[], str] | None = None,
) -> Finding:
    """What people should see to; the numbers are right all the same."""
    return Finding(Verdict.WARNING, text, remedy, clients, fix)


def problem(
    text: str,
    remedy: str = "",
    clients: Sequence[str] = (),
    fix: Callable[[], str] | None = None,
) -> Finding:
    """What keeps numbers from being right, safe or seen."""
    return Finding(Verdict.PROBLEM, text, remedy, clients, fix)


def of_bison(error: BisonError, clients: Sequence[str] = ()) -> Finding:
    """The problem that an error of a call is."""
    return problem(f"{error.client}: {error.call} {error.what}.", f"{error.remedy}.", clients)


def worst(findings: Sequence[Finding]) -> Verdict:
    """The verdict on an installation with these findings."""
    return max((it.verdict for it in findings), key=list(Verdict).index, default=Verdict.OK)
