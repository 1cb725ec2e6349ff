"""Whether a server of this pipeline answers: the health checks of containers, in 40 ms.

`python -m kpi_pipeline.probe ADDRESS` ends with 0 if it does, else with 1 and a sentence. ADDRESS
is `http://HOST:PORT/PATH`, or `grpc://HOST:PORT` of a code server. Standard library alone, as a
health check runs every few seconds; and a slim image has no curl.
"""

import http.client
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

# A Unix socket, or host and port.
Address = Path | tuple[str, int]

# What a client of gRPC sends first: HTTP/2's preface, and empty settings.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_ANSWER_SECONDS = 5.0


def parsed_address(text: str) -> Address:
    """The address in a command line: HOST:PORT, else the path of a Unix socket.

    Raises:
        ValueError: if the port is no number.
    """
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon and "/" not in text else Path(text)


def speaks_grpc(address: Address) -> bool:
    """Whether a gRPC server answers there: one that is stopped only lets others connect."""
    try:
        with _connected(address) as probe:
            probe.sendall(_HELLO)
            return probe.recv(1) != b""
    except OSError:
        return False


def _connected(address: Address) -> socket.socket:
    if isinstance(address, tuple):
        return socket.create_connection(address, _ANSWER_SECONDS)
    probe = socket.socket(socket.AF_UNIX)
    try:
        probe.settimeout(_ANSWER_SECONDS)
        probe.connect(str(address))
    except BaseException:
        probe.close()
        raise
    return probe


def problem_at(address: str) -> str | None:
    """Why the server at this address is not healthy; None if it is.

    Raises:
        ValueError: if it is no such address.
    """
    url = urlsplit(address)
    if url.scheme not in ("http", "grpc") or url.hostname is None or url.port is None:
        raise ValueError(f"{address} is neither http://HOST:PORT/PATH nor grpc://HOST:PORT")
    if url.scheme == "grpc":
        answers = speaks_grpc((url.hostname, url.port))
        return None if answers else f"{address} does not speak gRPC"
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=_ANSWER_SECONDS)
    try:
        # A page answers to localhost whatever else it is called.
        connection.request("GET", url.path or "/", headers={"Host": "localhost"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{address} does not answer: {type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{address} answers {status}"


if __name__ == "__main__":
    sys.exit(problem_at(sys.argv[1]))
