"""The parts of a running `kpi up`, as a file in the state folder: `parts.json`.

The supervisor writes it whenever a part changes; `kpi status` and alerts read it. It says nothing
about parts on other machines.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import psutil

_FILE = "parts.json"


class PartStatus(StrEnum):
    """What the supervisor does with a part."""

    STARTING = "starting"
    RUNNING = "running"
    # It ended, and is started again after a pause.
    PAUSING = "pausing"
    # It ended too often, or must not run: only a new `kpi up` starts it.
    GIVEN_UP = "given up"


@dataclass(frozen=True)
class PartState:
    """One part: `key` is a stable name such as `gateway`, `name` is for people: "The gateway".

    `restarts` counts those since the start of `kpi up`; `reason` says why the part ended last.
    """

    key: str
    name: str
    status: PartStatus
    since: datetime
    pid: int | None = None
    restarts: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Parts:
    """The parts of the command `command` with process id `pid`, in the order of their start.

    `created` is the start of that process, in seconds, by which a later process with the same id
    is told apart.
    """

    command: str
    pid: int
    created: float
    parts: Sequence[PartState]

    @property
    def is_supervised(self) -> bool:
        """Whether the command still runs: if not, what the parts say is history."""
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.created and (
                process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False

    @property
    def given_up(self) -> Sequence[PartState]:
        """The parts that only a new start of the command starts again."""
        return [it for it in self.parts if it.status is PartStatus.GIVEN_UP]


def read_parts(state_dir: Path) -> Parts | None:
    """What the last `kpi up` or `kpi demo` of this state folder wrote; None if none ever did."""
    try:
        found = json.loads((state_dir / _FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    parts = [
        PartState(
            **{
                **it,
                "status": PartStatus(it["status"]),
                "since": datetime.fromisoformat(it["since"]),
            }
        )
        for it in found["parts"]
    ]
    return Parts(found["command"], found["pid"], found["created"], parts)


def write_parts(state_dir: Path, parts: Parts) -> None:
    """Replace the file; a reader finds the old content or the new."""
    content = asdict(parts)
    for it in content["parts"]:
        it["since"] = it["since"].isoformat()
    file = state_dir / _FILE
    new = file.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:  # noqa: PTH123
        json.dump(content, output)
    new.replace(file)
