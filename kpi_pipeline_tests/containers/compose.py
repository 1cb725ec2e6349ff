"""Runs the services of compose.yaml with podman, as docker compose would; each key has a meaning.

In networks of podman on Debian 12 no names are served: each container gets an address, and knows
those of all. Health checks, which podman leaves to systemd, are carried out while a test waits.
"""

import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.containers.podman import PREFIX, run, succeeds

COMPOSE_FILE = PROJECT_ROOT / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
# Those that `podman run` has no option for, or that are read elsewhere in this file.
_ELSEWHERE = {
    *("image", "command", "healthcheck", "depends_on", "profiles", "networks"),
    *("build", "ports", "init"),
}


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The content of compose.yaml with these variables, in place of those of .env.

    Raises:
        KeyError: if a variable that has to be set is not.
    """

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if name in variables:
            return variables[name]
        if kind == "-":
            return str(rest)
        raise KeyError(name)

    content: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, COMPOSE_FILE.read_text()))
    return content


@dataclass
class Composed:
    """The services of compose.yaml on a network of their own.

    `images`, `commands` and `options` are those of servers whose own images are not to be had.
    `aliases` are further names of a service. A container `sandbox` gets an address as well.
    """

    variables: Mapping[str, str]
    env_file: Path
    images: Mapping[str, str]
    commands: Mapping[str, Sequence[str]]
    more_options: Mapping[str, Sequence[str]]
    aliases: Mapping[str, str]
    network: str = f"{PREFIX}net"
    addresses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services: dict[str, Any] = compose(self.variables)["services"]
        first = self.variables["SUBNET"].rpartition(".")[0]
        for number, name in enumerate([*self.services, "sandbox"], start=10):
            self.addresses[name] = f"{first}.{number}"
        self._started: set[str] = set()

    def create_network(self) -> None:
        """Create the network, with the subnet of compose.yaml."""
        run("podman", "network", "create", "--subnet", self.variables["SUBNET"], self.network)

    def name(self, service: str) -> str:
        """The container's name."""
        return f"{PREFIX}{service}"

    def start(self, service: str) -> None:
        """Start a service in the background; of one that ends, wait for its success."""
        words = ["podman", "run", "--name", self.name(service), *self._options(service)]
        if self.is_server(service):
            run(*words, "-d", *self._image_and_command(service), seconds=60)
        else:
            run(*words, "--rm", *self._image_and_command(service), seconds=180)
        self._started.add(service)

    def is_server(self, service: str) -> bool:
        """Whether a service stays up."""
        return bool(self.services[service]["restart"] != "no")

    def command(self, *words: str, stdin: str | None = None) -> str:
        """What `docker compose run --rm kpi` prints for these words."""
        image = self.services["kpi"]["image"]
        return run(
            *("podman", "run", "--rm", "-i", *self._options("kpi"), image, *words),
            stdin=stdin,
            seconds=180,
        )

    def inside(self, service: str, *words: str) -> str:
        """What `docker compose exec` prints for these words."""
        return run("podman", "exec", self.name(service), *words, seconds=600, both=True)

    def has_file(self, service: str, path: str) -> bool:
        """Whether a file is in the container of a service."""
        return succeeds("podman", "exec", self.name(service), "test", "-e", path)

    def listens(self, service: str, port: int) -> bool:
        """Whether a server listens at this port."""
        try:
            socket.create_connection((self.addresses[service], port), 1).close()
        except OSError:
            return False
        return True

    def network_of(self, service: str) -> list[str]:
        """The options that give a container its network, its address, and the names of all."""
        words = ["--network", self.network]
        if service != "kpi":
            words += ["--ip", self.addresses[service]]
        named = {**self.addresses, **{it: self.addresses[of] for it, of in self.aliases.items()}}
        for name, address in named.items():
            words += ["--add-host", f"{name}:{address}"]
        return words

    def _options(self, service: str) -> list[str]:
        """The options of `podman run` for a service."""
        words = [*self.network_of(service), *self.more_options.get(service, ())]
        for key, value in self.services[service].items():
            words += self._option(key, value)
        if check := self.services[service].get("healthcheck"):
            words += ["--health-cmd", json.dumps(check["test"][1:]), "--health-interval", "disable"]
            words += ["--health-timeout", check["timeout"]]
        return words

    def _option(self, key: str, value: Any) -> list[str]:
        match key:
            case "environment":
                return [word for name, it in value.items() for word in ("-e", f"{name}={it}")]
            case "env_file":
                return ["--env-file", str(self.env_file)]
            case "restart":
                # podman has no daemon that would know what a person stopped.
                return ["--restart", "always"] if value == "unless-stopped" else []
            case "read_only":
                return ["--read-only", "--read-only-tmpfs=false"] if value else []
            case "tmpfs":
                return [word for it in value for word in ("--tmpfs", f"{it}:mode=1777")]
            case "cap_drop" | "cap_add" | "security_opt":
                return [word for it in value for word in (f"--{key.replace('_', '-')}", it)]
            case "volumes":
                return [word for it in value for word in ("-v", self._volume(it))]
            case "logging":
                assert value["driver"] == "json-file"
                options = {name: it for name, it in value["options"].items() if name == "max-size"}
                made = [word for it in options.items() for word in ("--log-opt", "=".join(it))]
                return ["--log-driver", "k8s-file", *made]
            case "shm_size":
                return ["--shm-size", value]
            case "stop_grace_period":
                return ["--stop-timeout", str(_seconds(value))]
            case _ if key in _ELSEWHERE:
                return []
        raise AssertionError(f"compose.yaml has the key {key!r}, which this test does not know")

    def _volume(self, text: str) -> str:
        source, rest = text.split(":", 1)
        if source.startswith("."):
            return f"{PROJECT_ROOT / source}:{rest}"
        return f"{PREFIX}{source}:{rest}"

    def _image_and_command(self, service: str) -> list[str]:
        described = self.services[service]
        image = self.images.get(service, described["image"])
        return [image, *self.commands.get(service, described.get("command", []))]

    def is_healthy(self, service: str) -> bool:
        """Whether the health check of compose.yaml succeeds now."""
        return succeeds("podman", "healthcheck", "run", self.name(service))

    def await_healthy(self, *services: str, seconds: float = 300) -> None:
        """Wait until the services are healthy."""
        deadline = time.monotonic() + seconds
        for service in services:
            while not self.is_healthy(service):
                if time.monotonic() > deadline:
                    raise AssertionError(f"{service} is not healthy:\n{self.logs(service)[-4000:]}")
                time.sleep(0.5)

    def start_when_ready(self, service: str) -> None:
        """Start a service when what it depends on is ready, as compose.yaml says."""
        for needed, condition in self._needs(service).items():
            if condition == "service_healthy":
                self.await_healthy(needed)
        self.start(service)

    def up(self) -> None:
        """Start all services that are not started, in the order of their needs."""
        while wanted := self._all() - self._started:
            ready = [
                it for it in self.services if it in wanted and not self._needs(it).keys() & wanted
            ]
            assert ready, "compose.yaml has services that wait for each other"
            for service in ready:
                self.start_when_ready(service)

    def _all(self) -> set[str]:
        return {name for name, it in self.services.items() if "profiles" not in it}

    def _needs(self, service: str) -> dict[str, str]:
        needed = self.services[service].get("depends_on", {})
        return {name: it["condition"] for name, it in needed.items()}

    def logs(self, service: str) -> str:
        """What a service has printed."""
        return run("podman", "logs", self.name(service), both=True)

    def pid(self, service: str) -> int:
        """The first process of a container, as this machine sees it."""
        return int(run("podman", "inspect", "-f", "{{.State.Pid}}", self.name(service)))

    def kill(self, service: str) -> None:
        """End a container's processes at once, as the kernel does that is out of memory."""
        os.kill(self.pid(service), 9)


def _seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]
