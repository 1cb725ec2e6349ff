"""How a process writes its log lines: as text, or as JSON for a collector of logs."""

import json
import logging
from datetime import UTC, datetime

_TEXT = "%(asctime)s %(levelname)s %(message)s"


class JsonLines(logging.Formatter):
    """Each record as one line of JSON, with the names that Dagster's own JSON has."""

    def format(self, record: logging.LogRecord) -> str:
        """The line: `event` is the message, and `exception` the traceback, if there is one."""
        entry = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def formatter(log_format: str) -> logging.Formatter:
    """How a log in the format of KPI_LOG_FORMAT shows a record."""
    return JsonLines() if log_format == "json" else logging.Formatter(_TEXT)


def log_to_standard_error(log_format: str, name: str | None = None) -> None:
    """Have this process write warnings and errors to its standard error.

    With `name`, those of this logger alone: in Dagster's processes, its own have another handler.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format))
    if name is None:
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
    else:
        logging.getLogger(name).addHandler(handler)
