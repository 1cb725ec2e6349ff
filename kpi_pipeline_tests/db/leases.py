from sqlalchemy import Engine, text

from kpi_pipeline.db.lease import MasterKeyLease


def leases(engine: Engine) -> list[str]:
    """The instances whose master key is held."""
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT instance FROM bison_master_key_leases")))


async def take(engine: Engine) -> None:
    async with MasterKeyLease(engine).held("main"):
        pass
