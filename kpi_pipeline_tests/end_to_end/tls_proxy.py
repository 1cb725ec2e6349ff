"""A reverse proxy with TLS: what nginx does between a browser and a page, and no more."""

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@contextmanager
def tls_proxy(port: int, folder: Path) -> Iterator[str]:
    """Passes https://localhost:… on to a port of this machine; the address of the proxy.

    As nginx does unless told otherwise, it gives the page another Host. It says which one the
    browser used in X-Forwarded-Host.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder))

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as browser:
                head = b""
                while b"\r\n\r\n" not in head:
                    part = browser.recv(65_536)
                    if not part:
                        return
                    head += part
                head, _, body = head.partition(b"\r\n\r\n")
                with socket.create_connection(("127.0.0.1", port)) as page:
                    page.sendall(_passed_on(head, port) + body)
                    back = threading.Thread(target=_pump, args=(page, browser))
                    back.start()
                    _pump(browser, page)
                    back.join()

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"https://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()


def _passed_on(head: bytes, port: int) -> bytes:
    """The head of a request as the page gets it; each has a connection of its own."""
    lines = head.split(b"\r\n")
    host = next(it for it in lines if it.lower().startswith(b"host:")).partition(b":")[2].strip()
    kept = [it for it in lines if not re.match(rb"(host|x-forwarded-\w+):", it, re.IGNORECASE)]
    if not any(it.lower().startswith(b"upgrade:") for it in kept):
        kept = [it for it in kept if not it.lower().startswith(b"connection:")]
        kept.append(b"Connection: close")
    kept += [
        f"Host: 127.0.0.1:{port}".encode(),
        b"X-Forwarded-Host: " + host,
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-For: 192.0.2.7",
    ]
    return b"\r\n".join(kept) + b"\r\n\r\n"


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what one side sends, until it ends."""
    with suppress(OSError):
        while part := source.recv(65_536):
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def _certificate(folder: Path) -> Path:
    """A certificate for localhost, which nobody vouches for, together with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "localhost.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file
