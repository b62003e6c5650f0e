"""Where the value of each setting comes from."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from pdp.settings.base import Loaded

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in effect."""

    name: str
    """`listen`, `clerk.secret_key`, `issuers[0].issuer`."""
    value: Any
    """May be a secret: `pydantic.SecretStr` does not show it."""
    origin: str
    """`variable PDP_LISTEN`, the path of a file, or `default`."""


def settings_in_effect(
    program: type[Loaded], file: Path | None = None
) -> tuple[Loaded, list[Setting]]:
    """The settings of a program, as an object and one by one.

    Raises:
        pydantic.ValidationError, ValueError, FileNotFoundError: As `Loaded.load`.
    """
    settings = program.load(file)
    path = program.source_file(file)
    variables = EnvSettingsSource(program)()
    content = TomlConfigSettingsSource(program, toml_file=path)()
    prefix = program.model_config["env_prefix"]

    def origin(keys: tuple[str, ...]) -> str:
        if _holds(variables, keys):
            return f"variable {_variable(prefix, keys)}"
        return str(path) if _holds(content, keys) else DEFAULT

    return settings, [
        Setting(name, value, origin(keys)) for name, keys, value in _leaves(settings, "", ())
    ]


def _leaves(
    table: BaseModel, name: str, keys: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Name, keys in the sources, and value of each setting. A list comes from one source."""
    for field in type(table).model_fields:
        value = getattr(table, field)
        own, path = f"{name}{field}", (*keys, field)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{own}.", path)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for index, item in enumerate(value):
                for inner, _, leaf in _leaves(item, f"{own}[{index}].", path):
                    if leaf not in (None, ()):
                        yield inner, path, leaf
        else:
            yield own, path, value


def _holds(values: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    found: Any = values
    for key in keys:
        if not isinstance(found, Mapping):
            return True  # the text of the whole table or list
        if key not in found:
            return False
        found = found[key]
    return True


def _variable(prefix: str, keys: tuple[str, ...]) -> str:
    """The variable that is set: of the setting itself, or of the table around it."""
    names = {name.upper(): name for name in os.environ}  # noqa: TID251
    for count in range(len(keys), 0, -1):
        name = (prefix + "__".join(keys[:count])).upper()
        if name in names:
            return names[name]
    raise AssertionError(keys)
