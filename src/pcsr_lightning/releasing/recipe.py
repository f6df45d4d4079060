"""How a released model is made: the stages of its training, as words of the training command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings import conf_dir, typed


@dataclass
class After:
    """A stage of another recipe that this one starts from."""

    recipe: str
    stage: str


@dataclass
class _Words:
    """What a recipe's file may hold."""

    stages: list[list[str]]
    all: list[str] = field(default_factory=list)
    after: After | None = None


@dataclass(frozen=True)
class Stage:
    """One stage: its name (``1``, ``2``, ``original``) and the words that train it."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """The stages of a model, in order.

    Attributes:
        name: the model's.
        stages: at least one; each starts from the one before.
        after: what the first stage starts from, if not from nothing.
    """

    name: str
    stages: tuple[Stage, ...]
    after: After | None

    @classmethod
    def read(cls, name_or_file: str) -> Recipe:
        """A recipe of ``conf/recipe`` by its name, or any YAML file of that form.

        Raises:
            ConfigError: there is none, or it cannot be used; the message says what is wrong.
        """
        path = Path(name_or_file)
        if path.suffix != ".yaml":
            path = conf_dir() / "recipe" / f"{name_or_file}.yaml"
        if not path.is_file():
            raise ConfigError(
                f"no recipe is called {name_or_file!r} and no such file exists; there are "
                f"{', '.join(list_recipes())}; or give a .yaml file"
            )
        try:
            content = OmegaConf.load(path)
        except (OSError, ValueError, OmegaConfBaseException) as error:
            raise ConfigError(f"{path}: cannot be read as YAML ({error})") from None
        if not isinstance(content, DictConfig):
            raise ConfigError(f"{path}: expected a mapping with the keys all, stages and after")
        words = typed(content, _Words)
        if not words.stages:
            raise ConfigError(f"{path}: stages is empty; expected a list of words for each stage")
        stages = tuple(Stage(_name(path, own), (*words.all, *own)) for own in words.stages)
        return cls(path.stem, stages, words.after)


def list_recipes() -> list[str]:
    """The names of the recipes in ``conf/recipe``."""
    return sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml"))


def _name(path: Path, words: list[str]) -> str:
    for word in words:
        key, sign, value = word.partition("=")
        if key == "stage" and sign and value:
            return value
    raise ConfigError(f"{path}: a stage without stage=NAME among its words: {words}")
