"""Sections of a Frigate configuration, and a record of the keys that the conversion read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ingest.exceptions import ConfigError

MAX_BYTES = 1024 * 1024
"""Maximum size of a configuration in bytes."""
MAX_NUMBER = 1e9
"""Limit of the absolute value of a number. Infinity, NaN and numbers above the limit are no sizes, rates or times."""
MAX_KEYS = 20_000
"""Maximum number of keys of a configuration. A few lines of YAML with nested aliases can stand for billions of
keys."""

Path = tuple[str, ...]


class FrigateSection:
    """One mapping (section) of a Frigate configuration.

    A camera's section may leave out keys that the section of the same name for all cameras has. For a key that a
    camera's section leaves out, ``value`` returns the value for all cameras. All sections of a configuration share
    ``read``, the set of the paths of all keys that were read.
    """

    def __init__(
        self, values: Mapping[str, Any], path: Path, read: set[Path], inherited: FrigateSection | None = None
    ) -> None:
        self._values, self.path, self._read, self._inherited = values, path, read, inherited

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def value(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, else the inherited value, else ``default``."""
        inherited = self._inherited.value(key) if self._inherited else None
        if key in self._values:
            self._read.add((*self.path, key))
        found = self._values.get(key)
        found = inherited if found is None else found
        return default if found is None else found

    def number(self, key: str, default: float = 0.0) -> float:
        """Return the number of a key. Raise ConfigError if the value is no number."""
        found = self.value(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < MAX_NUMBER:
            raise self.error(key, found, f"a number below {MAX_NUMBER:.0e}")
        return float(found)

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the list of texts of a key. A single text counts as a list with one element."""
        found = self.value(key)
        if found is None:
            return default
        listed = found if isinstance(found, list) else [found]
        if not all(isinstance(text, str) for text in listed):
            raise self.error(key, found, "a list of texts")
        return tuple(listed)

    def is_on(self, key: str = "enabled") -> bool:
        """Return whether a switch is on. A switch that is not in the configuration is on."""
        return bool(self.value(key, True))

    def section(self, key: str, inherited: FrigateSection | None = None) -> FrigateSection:
        """Return the section of a key, or an empty section. Raise ConfigError if the value is no mapping."""
        found = self._values.get(key)
        if found is not None and not isinstance(found, Mapping):
            raise self.error(key, found, "a mapping of keys and values")
        values = {str(name): value for name, value in (found or {}).items()}
        parent = inherited or (self._inherited.section(key) if self._inherited else None)
        return FrigateSection(values, (*self.path, key), self._read, parent)

    def sections(self) -> Iterator[tuple[str, FrigateSection]]:
        """Yield the name and the section of each key."""
        for name in self._values:
            yield name, self.section(name)

    def error(self, key: str, value: Any, expected: str) -> ConfigError:
        """Return the error about a key with a wrong value."""
        return ConfigError("Frigate configuration", ".".join((*self.path, key)), str(value)[:200], expected)


def parse(text: str) -> FrigateSection:
    """Return the whole configuration. Raise ConfigError if the text is too large, or is no YAML mapping."""
    where = "Frigate configuration"
    if len(text) > MAX_BYTES:
        raise ConfigError(where, "file", f"{len(text)} characters", f"at most {MAX_BYTES} characters")
    try:
        values = yaml.safe_load(text)
        count = sum(1 for _ in itertools.islice(_paths(values, ()), MAX_KEYS + 1))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(where, "file", " ".join(str(error).split()) or type(error).__name__, "valid YAML") from None
    if not isinstance(values, Mapping):
        raise ConfigError(where, "file", type(values).__name__, "a mapping with the key cameras")
    if count > MAX_KEYS:
        raise ConfigError(where, "file", f"more than {MAX_KEYS} keys", f"at most {MAX_KEYS} keys")
    return FrigateSection({str(key): value for key, value in values.items()}, (), set())


def unread(root: FrigateSection) -> list[Path]:
    """Return the paths that the conversion did not read, each as short as possible."""
    inner = {path[:length] for path in root._read for length in range(1, len(path))}
    return list(_unread(root._values, (), root._read, inner))


def _unread(values: Mapping[str, Any], path: Path, read: set[Path], inner: set[Path]) -> Iterator[Path]:
    for key, value in values.items():
        at = (*path, str(key))
        if at in read:
            continue
        if at in inner and isinstance(value, Mapping):
            yield from _unread(value, at, read, inner)
        else:
            yield at


def _paths(values: Any, path: Path) -> Iterator[Path]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield (*path, str(key))
            yield from _paths(value, (*path, str(key)))
    elif isinstance(values, list):
        for value in values:
            yield path
            yield from _paths(value, path)
