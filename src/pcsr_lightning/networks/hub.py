"""What makes the networks ``huggingface_hub`` models: folders to save to, load from and publish.

A folder holds ``model.safetensors``, ``config.json`` (the same content as the JSON beside any model
file of this library) and a model card, ``README.md``. Nothing in it is ever executed.

The mixin is a true base class, so ``isinstance`` and ``issubclass`` hold from the start. That costs
the import of ``huggingface_hub`` with the networks; ``import pcsr_lightning`` itself stays free of
both. Local folders cause no connection, and nothing here sends telemetry.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import nn

from pcsr_lightning.errors import ConfigError, ModelFileError

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)

_CARD = """\
---
{{ card_data }}
---

# {{ model_name }}

A super-resolution network of [PCSR]({{ paper_url }}), saved by `pcsr_lightning`.

```python
import pcsr_lightning
{{ backbone_import }}
model = pcsr_lightning.load("this folder")
```

- Parameters: {{ parameters }}
- Architecture: `{{ network }}`
- Trained on, licence of the training pictures, measured quality, limits: not recorded. Say so here
  before you publish it.
"""


class HubModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="pcsr_lightning",
    tags=["super-resolution", "pcsr"],
    pipeline_tag="image-to-image",
    paper_url="https://arxiv.org/abs/2407.21448",
    model_card_template=_CARD,
):
    """A network with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Example:
        >>> model.save_pretrained("folder")
        >>> again = PCSR.from_pretrained("folder")
    """

    # Not None: the mixin then leaves the constructor's arguments alone. The architecture is in
    # `config()`, which knows it whole; the arguments are modules and would be kept only in part.
    _hub_mixin_config: dict[str, Any] = {}  # noqa: RUF012  (the mixin's own declaration)

    def config(self) -> dict[str, Any]:
        """The architecture in plain values, as ``build_network`` takes it."""
        raise NotImplementedError

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Writes the network to a folder, and publishes it from there if asked to.

        Args:
            save_directory: made if it is missing; a ``README.md`` already in it is kept.
            config: must be empty. It is here for the mixin, the network knows its architecture.
            repo_id: ``owner/name`` to publish under; the folder's name if ``None``.
            push_to_hub: publish it; the only case in which there is a connection.
            model_card_kwargs: values for the model card's template.
            push_to_hub_kwargs: passed on to ``push_to_hub``.

        Returns:
            The commit's address if it was published.

        Raises:
            ConfigError: ``config`` is given, or arguments of publishing without ``push_to_hub``.
            ModelFileError: the place is a file, or holds a model saved under another layout.
        """
        folder = Path(save_directory)
        if config:
            raise ConfigError("save_pretrained takes no config: the network writes its own")
        if not push_to_hub and (push_to_hub_kwargs or repo_id is not None):
            odd = sorted([*push_to_hub_kwargs, *(["repo_id"] if repo_id is not None else [])])
            raise ConfigError(
                f"save_pretrained takes {', '.join(odd)} only together with push_to_hub=True"
            )
        if folder.exists() and not folder.is_dir():
            raise ModelFileError(f"{folder}: a file; save_pretrained writes to a folder")
        if folder.joinpath(WEIGHTS_NAME).with_suffix(".json").exists():
            # One of the two JSON files would describe the other's weights.
            raise ModelFileError(
                f"{folder}: already holds a model.json, as the run folder of a training does; "
                "give save_pretrained another folder"
            )
        written: str | None = super().save_pretrained(
            folder,
            repo_id=repo_id,
            push_to_hub=push_to_hub,
            model_card_kwargs=model_card_kwargs,
            **push_to_hub_kwargs,
        )
        return written

    def _save_pretrained(self, save_directory: Path) -> None:
        # Imported late: model files are written in terms of networks.
        from pcsr_lightning.weights.files import write_model

        write_model(self, save_directory / CONFIG_NAME, save_directory / WEIGHTS_NAME)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str = "cpu",
        **model_kwargs: Any,
    ) -> Self:
        """The network that ``save_pretrained`` wrote, in evaluation mode.

        Args:
            pretrained_model_name_or_path: a folder. Only a string ``owner/name`` that does not
                exist here is looked up on the Hub, and a ``Path`` never; the arguments below are
                for that case.
            force_download: fetch it again although it is in the cache.
            token: access token.
            cache_dir: where fetched files are kept.
            local_files_only: take it from the cache or fail, without a connection.
            revision: branch, tag or commit.
            map_location: the device to put it on.
            model_kwargs: none. They are here for the mixin; ``config.json`` alone decides.

        Raises:
            ConfigError: ``model_kwargs`` are given.
            ModelFileError: the folder or a file in it is missing, damaged, or of another class.
        """
        place = pretrained_model_name_or_path
        if isinstance(place, Path) and not place.expanduser().is_dir():
            raise _no_folder(place)
        return cls._from_pretrained(
            model_id=str(place),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            map_location=map_location,
            **model_kwargs,
        )

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        **model_kwargs: Any,
    ) -> Self:
        from pcsr_lightning.weights.files import load_model_file

        if model_kwargs:
            raise ConfigError(
                f"from_pretrained does not take {', '.join(sorted(model_kwargs))}: the "
                f"architecture comes from {CONFIG_NAME} alone"
            )
        folder = Path(model_id).expanduser()
        if not folder.is_dir():
            folder = _fetch(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        weights = folder / WEIGHTS_NAME
        if not weights.is_file():
            raise ModelFileError(f"{folder}: a folder without {WEIGHTS_NAME} in it")
        model, _ = load_model_file(weights)
        if not isinstance(model, cls):
            found = type(model).__name__
            raise ModelFileError(
                f"{folder}: holds {found}, not {cls.__name__}; use {found}.from_pretrained or "
                "pcsr_lightning.load"
            )
        return model.to(map_location)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model card that ``save_pretrained`` writes where there is none yet."""
        outside = self.config()["backbone"].get("class")
        facts = {
            # Whoever loads it has to have its class, and says so himself.
            "backbone_import": ""
            if outside is None
            else "from pcsr_lightning.networks import import_backbone\n\n"
            f'import_backbone("{outside}")',
            "model_name": f"{type(self).__name__} on {self.config()['backbone']['name']}",
            "parameters": f"{sum(p.numel() for p in self.parameters()):,}",
            "network": json.dumps(self.config()),
        }
        return super().generate_model_card(*args, **{**facts, **kwargs})


def _no_folder(place: str | Path) -> ModelFileError:
    return ModelFileError(f"{place}: no such folder; expected one that save_pretrained wrote")


def _fetch(model_id: str, **options: Any) -> Path:
    """The cached copy of ``owner/name`` on the Hub, fetched first where that is allowed."""
    if _HUB_NAME.fullmatch(model_id) is None or Path(model_id).exists():
        raise _no_folder(model_id)
    from huggingface_hub import snapshot_download

    try:
        # One snapshot: the two files are then of the same commit.
        return Path(
            snapshot_download(model_id, allow_patterns=[WEIGHTS_NAME, CONFIG_NAME], **options)
        )
    except (OSError, ValueError) as error:
        first = " ".join(str(error).split())
        raise ModelFileError(
            f"{model_id}: no such folder here, and no such model could be had from the Hub: {first}"
        ) from None
