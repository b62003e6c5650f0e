"""How settings are read: once, frozen, from variables and a TOML file. No other package reads the
environment.

Sources, strongest first: variables (lists and tables as JSON), then the TOML file that the variable
`<prefix>CONFIG` names (or `default_file` in the working directory, if it exists).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)


class Frozen(BaseModel):
    """Base of all tables of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Loaded(BaseSettings):
    """Settings that are read from variables and a file."""

    model_config = SettingsConfigDict(
        env_prefix="PDP_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )
    default_file: ClassVar[str] = "pdp.toml"

    @classmethod
    def load(cls, file: Path | None = None, **overrides: Any) -> Self:
        """Reads the settings.

        Args:
            file: A TOML file; None: the default.
            overrides: Settings that take precedence.

        Raises:
            pydantic.ValidationError: Settings are invalid; it names each of them.
            ValueError: A variable is not valid JSON.
            FileNotFoundError: The named file does not exist.
        """
        path = cls.source_file(file)

        class FromFile(cls):  # type: ignore[valid-type, misc]
            model_config = SettingsConfigDict(toml_file=path)

        try:
            settings: Self = FromFile(**overrides)
        except SettingsError as error:
            # Its text names the setting; its cause contains the value.
            raise ValueError(f"settings: {error}: in variables lists and tables are JSON") from None
        return settings

    @classmethod
    def source_file(cls, named: Path | None = None) -> Path:
        """The TOML file that is read. The default one may not exist.

        Raises FileNotFoundError if there is none and it was named.
        """
        variable = f"{cls.model_config['env_prefix']}CONFIG"
        found = named or os.environ.get(variable)  # noqa: TID251
        path = Path(found or cls.default_file)
        if found is not None and not path.is_file():
            raise FileNotFoundError(f"there is no settings file {path}")
        return path

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment variables, the TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def listed(text: str) -> Sequence[Any]:
    """The list in a variable: a JSON list, or texts separated by commas. Raises ValueError."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        found: Sequence[Any] = json.loads(text)
    except ValueError:
        raise ValueError("begins as a JSON list, and is none") from None
    return found


def secret_text(value: SecretStr | None, file: Path | None) -> str | None:
    """The secret of a setting, or of the file that another setting names. Raises OSError."""
    if file is not None:
        return file.read_text().strip()
    return None if value is None else value.get_secret_value()
