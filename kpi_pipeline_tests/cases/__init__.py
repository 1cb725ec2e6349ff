"""Answers and events that were once read wrong, as JSON, and how tests load them."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

# The moment at which the times in the events were written down.
_WRITTEN_AT = datetime.fromisoformat("2026-11-27T16:51:48Z")


def load_case(name: str) -> Any:
    """The JSON of a case."""
    return json.loads((Path(__file__).parent / f"{name}.json").read_text("utf-8"))


def load_event(name: str, workspace_id: int, now: datetime) -> dict[str, Any]:
    """An event of that workspace, with its times as long before `now` as they were then."""

    def shifted(value: str) -> str:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return value
        if at.tzinfo is None:
            return value
        return (at + (now - _WRITTEN_AT)).isoformat()

    event: dict[str, Any] = _replaced(load_case(name), shifted)
    payload = event.get("payload", event)
    payload["event"]["workspace_id"] = workspace_id
    return event


def _replaced(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(it, change) for name, it in value.items()}
    if isinstance(value, list):
        return [_replaced(it, change) for it in value]
    return change(value) if isinstance(value, str) else value
