"""A study: data sets x models x seeds from one checked YAML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cvi_widgets.config import RunConfig
from cvi_widgets.errors import ConfigError
from cvi_widgets.names import unknown


class StudyConfig(BaseModel):
    """What the YAML says; `models` maps each model to the settings that are its own."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    datasets: list[str] = Field(min_length=1)
    models: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of every run")

    def runs(self) -> Iterator[RunConfig]:
        """Every run's checked configuration, seed fastest."""
        for dataset in self.datasets:
            for model, own in self.models.items():
                for seed in self.seeds:
                    yield RunConfig.of(dataset, model, **{**self.settings, **own, "seed": seed, "study": self.name})


def shipped_studies() -> dict[str, Path]:
    """Studies that come with the package, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def load_study(source: str | Path) -> StudyConfig:
    """Read a study from a YAML file or by the name of a shipped one.

    Raises
    ------
    ConfigError
        One sentence naming the field, its value and what is allowed; every run of the grid is checked too.
    """
    path = Path(source)
    if not path.suffix:
        shipped = shipped_studies()
        if str(source) not in shipped:
            raise ConfigError(unknown("study", str(source), shipped))
        path = shipped[str(source)]
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"study {str(source)!r} is no readable YAML file ({type(error).__name__}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"study {str(source)!r} does not hold a mapping of settings.")
    try:
        study = StudyConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(unknown("study field", field, StudyConfig.model_fields)) from error
        raise ConfigError(f"study field {field!r}: {first['msg'][0].lower()}{first['msg'][1:]}.") from error
    list(study.runs())
    return study
