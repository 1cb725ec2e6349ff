"""What Email Bison's answers hold that no document names: counted, and reported once."""

import logging
from collections.abc import Mapping

from sqlalchemy.exc import SQLAlchemyError

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.unknown_fields import note_unknown_fields

_log = logging.getLogger(__name__)


def report_unknown_fields(
    app: AppContext, instance: str, seen: Mapping[tuple[str, str], int]
) -> None:
    """Count the unknown members that stood in answers, and warn of those that are new.

    `seen` is (call, member) → number of answers. Trouble with the database is logged and no more:
    the numbers of a run do not hang on this.
    """
    if not seen:
        return
    try:
        with app.engine.begin() as connection:
            new = note_unknown_fields(connection, instance, seen, app.now())
    except SQLAlchemyError:
        _log.exception("The unknown fields of instance %s could not be counted", instance)
        return
    if new:
        _log.warning(
            "instance %s: answers hold members that this version does not know, and takes nothing "
            "from: %s. They are told of once, and counted in the table bison_unknown_fields.",
            instance,
            "; ".join(f"{call}: {field}" for call, field in new),
        )
