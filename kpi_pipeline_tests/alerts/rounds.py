"""Evaluations of the rules alone: receivers, and what each evaluation sends them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from kpi_pipeline.alerts.problem import Problem
from kpi_pipeline.alerts.rules import (
    Notice,
    NoticeKind,
    after_notice,
    due_notices,
)
from kpi_pipeline.alerts.states import update_states
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, Mute
from kpi_pipeline_tests.alerts.support import START, problem

REMIND_AFTER = timedelta(hours=12)
Notices = list[tuple[NoticeKind, str]]


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def warn(cause: str, *clients: str, **changed: Any) -> Problem:
    return problem(cause, *clients, severity=Severity.WARN, **changed)


def kinds(notices: Notices) -> list[NoticeKind]:
    return [kind for kind, _ in notices]


class Rounds:
    """Receivers that accept every message, and what each evaluation sends them."""

    def __init__(self, *receivers: str) -> None:
        self.receivers = receivers or ("chat",)
        self.states: Mapping[str, AlertState] = {}
        self.notices: list[Notice] = []

    def evaluate(
        self,
        hours: float,
        *problems: Problem,
        down: tuple[str, ...] = (),
        mutes: Mapping[str, float] | None = None,
        severity: Severity | None = None,
        muted_at: float = 0,
    ) -> dict[str, Notices]:
        """Evaluate so many hours after START; `mutes` are until when, made at `muted_at`."""
        now = START + timedelta(hours=hours)
        current = update_states(
            problems,
            self.states,
            mutes={
                name: Mute(name, START + timedelta(hours=until), at(muted_at), severity)
                for name, until in (mutes or {}).items()
                if until > hours
            },
            receivers=self.receivers,
            now=now,
        )
        self.states = current.states
        sent: dict[str, Notices] = {}
        for receiver in self.receivers:
            due = due_notices(current, receiver, remind_after=REMIND_AFTER, now=now)
            if receiver not in down:
                self.notices += due
                sent[receiver] = [(it.kind, it.state.cause) for it in due]
                after = {it.state.cause: after_notice(it, receiver, now) for it in due}
                current = replace(current, states={**current.states, **after})
        self.states = current.states
        return sent

    def gets(self, hours: float, *problems: Problem, **more: object) -> Notices:
        return self.evaluate(hours, *problems, **more)["chat"]  # type: ignore[arg-type]


def old_numbers(*clients: str, **changed: Any) -> Problem:
    """Stale numbers because of a failing sync, until a check run sees the next sync."""
    minutes = timedelta(minutes=20)
    return problem("freshness", *clients, follows="sync", hold=minutes, **changed)
