"""TLS of the address is obeyed and verified by both drivers."""

import ipaddress
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import OperationalError

from kpi_pipeline.db.server.engine import open_engine, pooled_engine
from kpi_pipeline.db.server.urls import for_dagster, parse_url
from kpi_pipeline_tests.guard import RUN
from kpi_pipeline_tests.pgbouncer import Pooler, pooling


@dataclass(frozen=True)
class Encrypted:
    """A pooler that takes TLS alone, its own authority, and another one."""

    pooler: Pooler
    authority: Path
    stranger: Path

    def engines(self, database: URL, options: str) -> list[Engine]:
        plain = self.pooler.through(database).set(drivername="postgresql")
        address = f"{plain.render_as_string(hide_password=False)}?{options}"
        url = parse_url(address, "KPI_DATABASE_URL")
        return [open_engine(url, refused_seconds=0), pooled_engine(for_dagster(url), 1, {})]


@pytest.fixture(scope="module")
def encrypted(postgres: URL) -> Iterator[Encrypted]:
    with tempfile.TemporaryDirectory(dir=os.environ[RUN]) as name:
        folder = Path(name)
        folder.chmod(0o755)
        for subject in ("authority", "stranger"):
            key = ec.generate_private_key(ec.SECP256R1())
            (folder / f"{subject}.crt").write_bytes(_certificate(key))
            (folder / f"{subject}.key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        lines = {
            "client_tls_sslmode": "require",
            "client_tls_key_file": folder / "authority.key",
            "client_tls_cert_file": folder / "authority.crt",
        }
        with pooling(postgres, **lines) as pooler:
            yield Encrypted(pooler, folder / "authority.crt", folder / "stranger.crt")


def _certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate of 127.0.0.1 that signs itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of these tests")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def test_a_verified_server_is_used(encrypted: Encrypted, database: URL) -> None:
    for engine in encrypted.engines(
        database, f"sslmode=verify-full&sslrootcert={encrypted.authority}"
    ):
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        engine.dispose()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("sslmode=verify-full&sslrootcert={stranger}", "certificate verify failed"),
        ("sslmode=disable", "SSL required"),
        ("sslmode=verify-full&sslrootcert=/nowhere.crt", "does not exist"),
    ],
)
def test_another_server_is_refused_by_both_drivers(
    encrypted: Encrypted, database: URL, options: str, reason: str
) -> None:
    for engine in encrypted.engines(database, options.format(stranger=encrypted.stranger)):
        with pytest.raises(OperationalError, match=reason):
            engine.connect()
        engine.dispose()


def test_a_server_of_another_name_is_refused_by_both_drivers(
    encrypted: Encrypted, database: URL
) -> None:
    options = f"sslmode=verify-full&sslrootcert={encrypted.authority}"
    for engine in encrypted.engines(database, options):
        other = engine.url.set(host="localhost")
        engine.dispose()
        again = (
            open_engine(other, refused_seconds=0)
            if other.drivername == "postgresql+psycopg"
            else pooled_engine(other.render_as_string(hide_password=False), 1, {})
        )
        with pytest.raises(OperationalError, match="does not match host name"):
            again.connect()
        again.dispose()
