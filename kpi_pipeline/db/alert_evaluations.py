"""When alerts were last evaluated; for readers that warn where alerts do not go out."""

from datetime import datetime

from sqlalchemy import Connection, select

from kpi_pipeline.db.tables import alert_evaluations
from kpi_pipeline.db.upsert import upsert


def store_evaluation(connection: Connection, ended_at: datetime) -> None:
    """Note that an evaluation of the alerts ended, whatever the receivers accepted."""
    upsert(connection, alert_evaluations, [{"id": 1, "ended_at": ended_at}])


def last_evaluation(connection: Connection) -> datetime | None:
    """When the last evaluation ended; before the first one, when the table was created."""
    found: datetime | None = connection.scalar(select(alert_evaluations.c.ended_at))
    return found
