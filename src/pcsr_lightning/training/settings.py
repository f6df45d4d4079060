"""What the Hydra doors share: typed checking of a config."""

from __future__ import annotations

from typing import TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pcsr_lightning.errors import ConfigError

Schema = TypeVar("Schema")


def typed(cfg: DictConfig, schema: type[Schema]) -> Schema:
    """``cfg`` as an instance of the dataclass ``schema``, with every key and type checked.

    Raises:
        ConfigError: names the first key that is unknown, missing or of the wrong type, what was
            given and what was expected.
    """
    bare = OmegaConf.create(
        {key: cfg._get_node(key) for key in cfg if str(key) != "hydra"}  # no interpolation yet
    )
    bare._set_parent(None)
    missing = sorted(OmegaConf.missing_keys(bare))
    if missing:
        raise ConfigError(
            f"{missing[0]} has no default: give it on the command line as {missing[0]}=VALUE"
        )
    try:
        checked = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), bare))
    except (ConfigKeyError, ConfigAttributeError) as error:
        raise ConfigError(f"{error.full_key}: there is no such setting") from None
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise ConfigError(f"{error.full_key}: {reason}") from None
    assert isinstance(checked, schema)
    return checked
