"""What the checks of one examination share: the opened installation, and what was found so far."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import Workspace
from kpi_pipeline.db.registry.api_keys import StoredKey
from kpi_pipeline.db.registry.clients import Client, active_clients, all_clients
from kpi_pipeline.services.doctor.finding import Finding, Verdict
from kpi_pipeline.services.status import Area, Facts, StatusProblem, judge
from kpi_pipeline.settings import Settings

# A call that gets no answer is tried once more, and not for minutes.
_ATTEMPTS = 2


@dataclass
class Examination:
    """One examination. A check finds here what those that it needs have opened and read.

    `settings` are there for a check that needs `settings`, `app` for one that needs `database`,
    and `facts`, which `kpi status` reads, for one that needs `dagster`.
    `stack` closes at the end. With `send_alert`, receivers get a message. `listed` holds the
    workspaces of each instance that was listed, and `answering` the instances that answer. `keys`
    are the stored API keys by client, `partitions` the clients that Dagster has as such, and
    `not_made` the checks that were not made, with those whose problems are the cause.
    """

    stack: ExitStack
    send_alert: bool = False
    settings: Settings = field(init=False)
    app: AppContext = field(init=False)
    facts: Facts = field(init=False)
    findings: list[Finding] = field(default_factory=list)
    listed: dict[str, list[Workspace]] = field(default_factory=dict)
    answering: set[str] = field(default_factory=set)
    keys: dict[str, StoredKey] = field(default_factory=dict)
    partitions: list[str] = field(default_factory=list)
    not_made: dict[str, list[str]] = field(default_factory=dict)

    def opened(self, app: AppContext) -> None:
        """Work on this installation; its calls are tried twice at most."""
        attempts = min(_ATTEMPTS, app.settings.bison_attempts)
        self.settings = app.settings.model_copy(update={"bison_attempts": attempts})
        self.app = replace(app, settings=self.settings)

    @cached_property
    def clients(self) -> list[Client]:
        """The active clients."""
        with self.app.engine.connect() as connection:
            return active_clients(connection)

    @cached_property
    def every_client(self) -> list[Client]:
        """The clients, active or not."""
        with self.app.engine.connect() as connection:
            return all_clients(connection)

    @cached_property
    def _judged(self) -> list[StatusProblem]:
        return judge(self.facts)

    def status(self, *areas: Area) -> list[StatusProblem]:
        """What `kpi status` finds wrong in these areas."""
        return [it for it in self._judged if it.area in areas]

    def of(self, *checks: str) -> list[Finding]:
        """What these checks found."""
        return [it for it in self.findings if it.check in checks]

    def has_problem(self, *checks: str) -> bool:
        """Whether one of these checks found a problem that is not one of single clients."""
        return any(it.verdict is Verdict.PROBLEM and not it.clients for it in self.of(*checks))

    def causes(self, checks: Iterable[str]) -> list[str]:
        """The checks whose problems keep what needs `checks` from being checked."""
        found = [
            cause
            for it in checks
            for cause in self.not_made.get(it, [it] if self.has_problem(it) else [])
        ]
        return list(dict.fromkeys(found))

    def named(self, checks: Iterable[str]) -> set[str]:
        """The clients that these checks found something wrong with."""
        return {client for it in self.of(*checks) if it.is_bad for client in it.clients}

    def served(self, clients: Sequence[Client]) -> list[Client]:
        """Those whose instance answers."""
        return [it for it in clients if it.instance in self.answering]
