"""How a released model is made: the stages of its training, as words of the training command."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training.settings import typed


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
    """One stage: its name (``1``, ``2``, ``original``) and the words that train it.

    Attributes:
        name: as the training command knows it.
        words: of that command.
        part: 1, or more for a stage that is trained again with other words.
    """

    name: str
    words: tuple[str, ...]
    part: int = 1

    @property
    def label(self) -> str:
        """What cards and folders call it."""
        return self.name if self.part == 1 else f"{self.name}-part-{self.part}"


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
        names = [_name(path, own) for own in words.stages]
        stages = tuple(
            Stage(name, (*words.all, *own), names[: i + 1].count(name))
            for i, (name, own) in enumerate(zip(names, words.stages, strict=True))
        )
        return cls(path.stem, stages, words.after)

    def until(self, name: str) -> Recipe:
        """The recipe up to a stage, all parts of it.

        Raises:
            ConfigError: it has no such stage.
        """
        last = max((i for i, stage in enumerate(self.stages) if stage.name == name), default=None)
        if last is None:
            raise ConfigError(f"recipe {self.name} has no stage {name} to start from")
        return replace(self, stages=self.stages[: last + 1])


def list_recipes() -> list[str]:
    """The names of the recipes in ``conf/recipe``."""
    return sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml"))


def _name(path: Path, words: list[str]) -> str:
    for word in words:
        key, sign, value = word.partition("=")
        if key == "stage" and sign and value:
            return value
    raise ConfigError(f"{path}: a stage without stage=NAME among its words: {words}")
