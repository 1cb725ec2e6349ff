"""The checks of `kpi doctor`, in their order, and how they are run.

A check names the ones without which it can't be made: where one of those has a problem, it is not
made, and its own line says so. So one cause has one line.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from kpi_pipeline.bison import BisonError
from kpi_pipeline.db.server.engine import reason_of
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.doctor import bison, database, events, machine, work
from kpi_pipeline.services.doctor.examination import Examination
from kpi_pipeline.services.doctor.finding import Finding, not_checked, of_bison, problem


@dataclass(frozen=True)
class DoctorCheck:
    """A check by its name, the checks that it `needs`, and those that it uses the findings of.

    What must hold, the docstring of `make` says.
    """

    name: str
    make: Callable[[Examination], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()

    @property
    def promise(self) -> str:
        """What must hold."""
        return (self.make.__doc__ or "").strip().splitlines()[0]


_OPEN = ("database", "tables")
_ROWS = (*_OPEN, "rights")
_CLIENTS = (*_ROWS, "clients")
_OF_BISON = ("stored-keys", "bison", "workspaces", "keys")

CHECKS = (
    DoctorCheck("settings", machine.settings),
    DoctorCheck("state-folder", machine.state_folder, ("settings",)),
    DoctorCheck("file-modes", machine.file_modes, ("settings", "state-folder")),
    DoctorCheck("disk", machine.disk, ("settings",)),
    DoctorCheck("versions", machine.versions),
    DoctorCheck("secret-key", machine.secret_key, ("settings", "state-folder")),
    DoctorCheck("database", database.database, ("settings", "secret-key")),
    DoctorCheck("tables", database.tables, ("database",)),
    DoctorCheck("rights", database.rights, _OPEN),
    DoctorCheck("exposure", database.exposure, _OPEN),
    DoctorCheck("connections", database.connections, ("database",)),
    DoctorCheck("direct-url", database.direct_url, _OPEN),
    DoctorCheck("clock", database.clock, ("database",)),
    DoctorCheck("dates", database.dates, _ROWS),
    DoctorCheck("stored-keys", database.stored, _ROWS),
    DoctorCheck("dagster", work.dagster, _ROWS),
    DoctorCheck("daemon", work.daemon, ("dagster",)),
    DoctorCheck("parts", work.parts, ("dagster",)),
    DoctorCheck("automation", work.automation, ("dagster", "daemon")),
    DoctorCheck("bison", bison.bison, _ROWS, uses=("stored-keys",)),
    DoctorCheck("clients", bison.clients, _ROWS),
    DoctorCheck("workspaces", bison.workspaces, _ROWS, uses=("bison",)),
    DoctorCheck("keys", bison.keys, _CLIENTS, uses=("stored-keys", "bison", "workspaces")),
    DoctorCheck("targets", bison.targets, _CLIENTS),
    DoctorCheck("partitions", work.partitions, ("dagster", "clients")),
    DoctorCheck("webhooks", events.webhooks, _CLIENTS, uses=_OF_BISON),
    DoctorCheck("endpoint", events.endpoint, _CLIENTS, uses=_OF_BISON),
    DoctorCheck("feed", events.feed, _CLIENTS, uses=_OF_BISON),
    DoctorCheck("alerts", work.alerts, _ROWS, uses=("daemon", "automation")),
    DoctorCheck("backups", work.backups, ("dagster",)),
    DoctorCheck("freshness", work.freshness, ("dagster",)),
    DoctorCheck("syncs", work.syncs, ("dagster",)),
    DoctorCheck("checks", work.checks, ("dagster",)),
)


def examine(
    names: Collection[str] = (),
    *,
    send_alert: bool = False,
    on_finding: Callable[[Finding], None] = lambda _: None,
) -> list[Finding]:
    """Make the checks of these names, or all; `on_finding` gets each finding as it is known.

    What is wrong with those that they need is found, too.

    Nothing is changed, but that a test event is stored, and that a database of ours that is not
    running is started for the time being. With `send_alert`, each receiver gets a message.

    Raises:
        KpiError: if there is no check of a name.
    """
    with ExitStack() as stack:
        examination = Examination(stack, send_alert)
        found = []
        for finding in _made(examination, _with_needs(names)):
            if not names or finding.check in names or finding.is_bad:
                found.append(finding)
                on_finding(finding)
        return found


def examine_and_fix(names: Collection[str], on_fixed: Callable[[Finding, str], None]) -> None:
    """Make the checks, and do what is safe about each finding that has a fix.

    `on_fixed` gets the finding, and what was done, or why it could not be.
    """
    with ExitStack() as stack:
        examination = Examination(stack)
        for finding in list(_made(examination, _with_needs(names))):
            if finding.fix is None or (names and finding.check not in names):
                continue
            try:
                done = finding.fix()
            except (KpiError, BisonError, OSError, SQLAlchemyError) as error:
                done = _of_error(error).text
            on_fixed(finding, done)


def _with_needs(names: Collection[str]) -> Sequence[DoctorCheck]:
    """The checks of these names with all that they need, in the order of the list."""
    known = {it.name: it for it in CHECKS}
    if unknown := sorted(set(names) - known.keys()):
        raise KpiError(f"There is no check {', '.join(unknown)}. Known are {', '.join(known)}.")
    if not names:
        return CHECKS
    wanted, left = set(names), list(names)
    while left:
        check = known[left.pop()]
        needed = {*check.needs, *check.uses} - wanted
        wanted |= needed
        left += needed
    return [it for it in CHECKS if it.name in wanted]


def _made(examination: Examination, chosen: Sequence[DoctorCheck]) -> Iterator[Finding]:
    for check in chosen:
        for found in _of_check(examination, check):
            finding = found.of(check.name)
            examination.findings.append(finding)
            yield finding


def _of_check(examination: Examination, check: DoctorCheck) -> Iterator[Finding]:
    if causes := examination.causes(check.needs):
        examination.not_made[check.name] = causes
        yield not_checked(f"Checked when this is well: {', '.join(causes)}.")
        return
    try:
        yield from check.make(examination)
    except (KpiError, BisonError, OSError, SQLAlchemyError) as error:
        yield _of_error(error)


def _of_error(error: Exception) -> Finding:
    match error:
        case BisonError():
            return of_bison(error)
        case DBAPIError():
            return problem(f"The database answered: {reason_of(error)}.")
        case _:
            return problem(str(error))
