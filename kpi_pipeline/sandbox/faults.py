from dataclasses import dataclass

from kpi_pipeline.sandbox.fault_kinds import Fault


@dataclass
class Standing:
    """A fault that is in force: how many calls it let pass, and how many it has struck."""

    id: int
    fault: Fault
    passed: int = 0
    struck: int = 0


class Faults:
    """The faults in force, in the order in which they were made; the first that fits strikes.

    A call that one fault has struck is not seen by those behind it.
    """

    def __init__(self) -> None:
        self._last_id = 0
        self._all: dict[int, Standing] = {}

    def add(self, fault: Fault) -> Standing:
        """Put a fault in force; an id is never used twice."""
        self._last_id += 1
        standing = Standing(self._last_id, fault)
        self._all[standing.id] = standing
        return standing

    def all(self) -> list[Standing]:
        """Those in force, and those that have struck often enough."""
        return list(self._all.values())

    def remove(self, fault_id: int) -> bool:
        """Forget one; says whether there was one."""
        return self._all.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Forget all."""
        self._all.clear()

    def strike(
        self, method: str, path: str, workspace_id: int | None, *, master: bool
    ) -> Standing | None:
        """The fault that strikes this call, counted; None where it is spared."""
        for standing in self._all.values():
            fault = standing.fault
            fits = (
                fault.path in path
                and fault.method in (None, method)
                and fault.workspace_id in (None, workspace_id)
                and fault.key in (None, "master" if master else "workspace")
            )
            if not fits or standing.struck == fault.times:
                continue
            if standing.passed < fault.after:
                standing.passed += 1
                continue
            standing.struck += 1
            return standing
        return None
