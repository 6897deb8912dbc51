"""Policy of an agent: the rights that an entry of the ``config`` topic may use on this device.

The device's owner writes ``agent.toml`` and the site file. An entry of the ``config`` topic has a right if
``agent.toml`` or the site file grants the right. Anyone who can write to the ``config`` topic may change cameras and
sensors within the rights that the device grants, but cannot gain other rights.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from ingest.exceptions import ConfigError
from ingest.runtime.text import decode_text
from ingest.site import CameraConfig, ConfigEntry, SensorConfig, Site
from ingest.site.entry import ConfigSection
from ingest.site.file import config_error

E = TypeVar("E", bound=ConfigEntry)

POLICY_FILE = "agent.toml"
SECRETS_FOLDER = Path("/etc/sightline/secrets")
NETWORK = ("rtsp", "rtsps", "http", "https")
_CAMERA_KINDS = (*NETWORK, "device", "images", "simulated")
_SAFE = (*NETWORK, "device", "images", "file", "host", "mqtt", "serial", "modbus")
"""Kinds of sources that are allowed by default. Sources of the kinds ``file`` and ``images`` also need an allowed
folder."""
_DEVICES = Path("/dev")
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
"""Pattern of a plain host name or IP address, without variables and without characters that URL parsers interpret
differently."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_NAME = re.compile(r"(?!\.{1,2}$)[^/\0]+")
_WRITABLE_BY_OTHERS = 0o022
_FILES = ("password_file", "ca_file", "cert_file", "key_file")


class AgentPolicy(ConfigSection):
    """Contents of ``agent.toml``.

    Without ``agent.toml``, the defaults allow no commands, no secrets and no folders.
    """

    sources: tuple[str, ...] = _SAFE
    """Allowed kinds of sources; the kind ``file`` means a video file. A source of the kind ``command`` is allowed by
    its name in ``commands`` instead."""
    hosts: tuple[str, ...] = ("*",)
    """Hosts to which cameras and sensors may connect, as IP addresses, networks such as 10.0.0.0/24, or host names
    with ``*`` as a wildcard."""
    folders: tuple[Path, ...] = ()
    """Folders from which the agent may read videos, images and detector models."""
    commands: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Program and arguments of each command source, by the NAME in the source ``command:NAME``."""
    secrets: dict[str, tuple[str, ...]] = {}
    """Hosts to which the agent may send a secret, by the name of the secret. A secret is a file in
    ``secrets_folder``, or an environment variable that an entry uses as ``${NAME}``."""
    secrets_folder: Path = SECRETS_FOLDER
    config_public_key_file: Path | None = None
    """File with the public key of the people who may change the configuration. If this file is set, the agent refuses
    entries of the ``config`` topic that are not signed with this key."""


def load_policy(site_file: Path, given: Path | None = None) -> AgentPolicy:
    """Read the policy from the path ``given``, or from ``agent.toml`` in the folder of the site file.

    Raise ConfigError if the file is unreadable, invalid, or writable by other users.
    """
    path = given or site_file.parent / POLICY_FILE
    try:
        with path.open("rb") as file:
            _require_owner(path, os.fstat(file.fileno()))
            values = tomllib.loads(decode_text(file.read()))
        return AgentPolicy.model_validate(values)
    except FileNotFoundError:
        if given is None:
            return AgentPolicy()
        raise ConfigError("agent", "--policy", str(path), "an existing TOML file") from None
    except OSError as error:
        raise ConfigError(str(path), "file", error.strerror, "a TOML file that the agent can read") from None
    except ValidationError as error:
        raise config_error(str(path), error) from None
    except ValueError as error:  # from decode_text or tomllib
        raise ConfigError(str(path), "file", str(error), "valid TOML") from None


def _require_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(str(path), "owner", found.st_uid, f"root or the agent's user. Run `chown root {path}`")
    if found.st_mode & _WRITABLE_BY_OTHERS:
        mode = f"{found.st_mode & 0o7777:04o}"
        raise ConfigError(str(path), "mode", mode, f"no write access for others. Run `chmod 644 {path}`")


class _Need(NamedTuple):
    """One right that a ``config`` entry needs: the policy field that grants the right, and the value that the field
    must allow.
    """

    right: str
    value: str
    host: str = ""
    """For a right to use a secret, the host that receives the secret; empty for all other rights."""
    use: str = ""
    """Exact connection or command for which the entry needs the right. An entry of the topic may reuse a connection
    of the site file only with the same settings; for example, the entry must not turn off TLS."""


class Rights:
    """Checks entries of the ``config`` topic against the rights that ``agent.toml`` and the site file grant."""

    def __init__(self, policy: AgentPolicy, site: Site) -> None:
        self._policy = policy
        self._owned = frozenset(need for entry in (*site.cameras, *site.sensors) for need in _needs(entry))

    def local(self, entry: E) -> E:
        """Return a copy of an entry that has local paths instead of secret names, and a program instead of a command
        name.

        Raise ConfigError if a right is missing; the error names the line to add to ``agent.toml``.
        """
        named = set()
        for need in _needs(entry):
            if need not in self._owned:
                if not self._allows(need):
                    raise _refusal(entry, need)
                named.add(need.value)
        if isinstance(entry, CameraConfig):
            files = self._paths(named, {name: getattr(entry.stream, name, None) for name in _FILES})
            return entry.model_copy(update={"stream": entry.stream.model_copy(update=files)}) if files else entry
        if isinstance(entry, SensorConfig):
            files = self._paths(named, {name: entry.options.get(name) for name in _FILES})
            options = {name: str(path) for name, path in files.items()} | self._command(entry)
            return entry.model_copy(update={"options": {**entry.options, **options}}) if options else entry
        return entry

    def _paths(self, named: set[str], files: dict[str, Any]) -> dict[str, Path]:
        return {name: self._policy.secrets_folder / str(file) for name, file in files.items() if str(file) in named}

    def _command(self, sensor: SensorConfig) -> dict[str, tuple[str, ...]]:
        if sensor.kind != "command" or sensor.options.get("argv"):
            return {}
        if sensor.address not in self._policy.commands:
            raise _refusal(sensor, _Need("commands", sensor.address))
        return {"argv": self._policy.commands[sensor.address]}

    def _allows(self, need: _Need) -> bool:
        policy = self._policy
        match need.right:
            case "sources":
                return need.value in policy.sources
            case "hosts":
                return _matches(need.value, policy.hosts)
            case "folders":
                return _is_within(need.value, policy.folders)
            case "devices":
                return _is_within(need.value, (_DEVICES, *policy.folders))
            case "commands":
                argv = policy.commands.get(need.value)
                return argv is not None and need.use in ("", repr(argv))
        allowed = policy.secrets.get(need.value, ())
        return _SECRET_NAME.fullmatch(need.value) is not None and _matches(need.host, allowed)


def _needs(entry: ConfigEntry) -> Iterator[_Need]:
    """Yield the rights that an entry needs."""
    if isinstance(entry, CameraConfig):
        yield from _camera_needs(entry)
    elif isinstance(entry, SensorConfig):
        yield from _sensor_needs(entry)


def _camera_needs(camera: CameraConfig) -> Iterator[_Need]:
    scheme, _, rest = camera.source.partition(":")
    kind = scheme.lower() if scheme.lower() in _CAMERA_KINDS else "file"
    yield _Need("sources", kind)
    if kind in NETWORK:
        stream = camera.stream
        host, port = _place(camera)
        weak = (" unverified" if not stream.verify else "") + (" legacy" if stream.tls == "legacy" else "")
        use = f"{kind}://{host}:{port}{weak}"
        yield _Need("hosts", host)
        for secret in (stream.password_file, stream.ca_file, *_VARIABLE.findall(camera.source)):
            if secret:
                yield _Need("secrets", str(secret), host, use)
    elif kind in ("file", "images"):
        yield _Need("folders", rest if kind == "images" else camera.source)
    for detector in (camera.redact.faces, camera.redact.plates):
        if detector and detector.model and not (detector.decoder == "haar" and "/" not in detector.model):
            yield _Need("folders", detector.model)


def _place(camera: CameraConfig) -> tuple[str, int | None]:
    """Return host and port of a camera's address.

    A variable such as ``${NAME}`` in the host is not replaced by the variable's value.
    """
    try:
        parts = urlsplit(camera.source)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    return host, port


def _sensor_needs(sensor: SensorConfig) -> Iterator[_Need]:
    options, address = sensor.parsed, sensor.address
    if sensor.kind == "command":
        argv = tuple(getattr(options, "argv", ()))
        yield _Need("commands", address, use=repr(argv) if argv else "")
        return
    yield _Need("sources", sensor.kind)
    if sensor.kind in ("serial", "modbus") and address.startswith("/"):
        yield _Need("devices", address)
    elif sensor.kind == "modbus":
        yield _Need("hosts", address[1:].partition("]")[0] if address.startswith("[") else address.partition(":")[0])
    elif sensor.kind == "mqtt":
        host = str(getattr(options, "host", "")).lower()
        use = f"mqtt {host}:{getattr(options, 'port', 0)} tls={getattr(options, 'tls', False)}"
        yield _Need("hosts", host)
        for name in _FILES:
            if secret := getattr(options, name, None):
                yield _Need("secrets", str(secret), host, use)


def _matches(host: str, patterns: Sequence[str]) -> bool:
    """Return whether a host name or IP address matches a pattern: a name with ``*``, an address, or a network."""
    if not _HOST.fullmatch(host):
        return False
    host = host.lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return any(fnmatchcase(host, pattern.lower()) for pattern in patterns)
    return any(pattern == "*" or _contains(pattern, address) for pattern in patterns)


def _contains(pattern: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False


def _is_within(path: str, folders: Sequence[Path]) -> bool:
    """Return whether a path is absolute and inside one of the folders, after all symbolic links are resolved."""
    real = Path(os.path.realpath(path))
    return Path(path).is_absolute() and any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)


def _refusal(entry: ConfigEntry, need: _Need) -> ConfigError:
    """Return the error for a missing right; the error names the line to add to ``agent.toml``."""
    value = need.value
    if need.right == "hosts" and not _HOST.fullmatch(value):
        return ConfigError(
            f"config topic, {entry.key}",
            "host",
            value,
            "a host name or IP address. Only the site file may use variables here",
        )
    parent = str(Path(value).parent) if need.right in ("folders", "devices") else ""
    key, added = {
        "sources": ("source", f'"{value}" in sources'),
        "hosts": ("host", f'"{value}" in hosts'),
        "folders": ("file", f'"{parent}" in folders'),
        "devices": ("source", f'"{parent}" in folders'),
        "commands": ("source", f'{value} = ["PROGRAM", "ARGUMENT"] under [commands]'),
        "secrets": ("secret", f'"{Path(value).name}" = ["{need.host}"] under [secrets], and use that name'),
    }[need.right]
    return ConfigError(
        f"config topic, {entry.key}",
        key,
        value,
        f"a right that this device grants. To grant it, write {added}, in {POLICY_FILE}",
    )
