"""Models as folders of the Hugging Face Hub: saved, loaded, published and downloaded.

A folder holds ``model.safetensors``, ``config.json`` (with the same content as the JSON beside any
model file of this library) and a model card, ``README.md``. Nothing in it is ever executed.

``huggingface_hub`` is imported only where there is a connection: to publish a model, and to
download one. Local folders never lead to a connection, and nothing here sends telemetry.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import ConfigError, ModelFileError, single_line
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.weights.files import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_model_file,
    of_full_images,
    write_model,
)

CARD_NAME = "README.md"
_REPO_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)

_CARD = """\
---
library_name: pcsr_lightning
pipeline_tag: image-to-image
tags:
- pcsr
- super-resolution
---

# {name}

A super-resolution network of [PCSR](https://arxiv.org/abs/2407.21448), saved by `pcsr_lightning`.

```python
import pcsr_lightning
{import_backbone}
model = pcsr_lightning.load("this folder")
```

- Parameters: {parameters:,}
- Architecture: `{network}`
- Trained on, licence of the training pictures, measured quality, limits: not recorded. Say so here
  before you publish it.
"""


def save_pretrained(
    model: PCSR | Original,
    save_directory: str | Path,
    *,
    push_to_hub: bool = False,
    repo_id: str | None = None,
    **publishing: Any,
) -> str | None:
    """Writes a model to a folder, and publishes it if asked to. Also a method of the networks.

    Args:
        model: the network.
        save_directory: created if missing; a ``README.md`` in it is kept.
        push_to_hub: publish the model; the only case in which there is a connection.
        repo_id: ``owner/name`` to publish it as; by default the folder's name, under your account.
        publishing: further arguments of :func:`push_to_hub`.

    Returns:
        The commit's address if it was published.

    Raises:
        ConfigError: arguments of publishing without ``push_to_hub``.
        ModelFileError: the path is a file, or the folder holds a run's ``model.json``.
    """
    folder = Path(save_directory)
    if not push_to_hub and (publishing or repo_id is not None):
        extra = sorted([*publishing, *(["repo_id"] if repo_id is not None else [])])
        raise ConfigError(
            f"save_pretrained takes {', '.join(extra)} only together with push_to_hub=True"
        )
    if folder.exists() and not folder.is_dir():
        raise ModelFileError(f"{folder}: a file; save_pretrained writes to a folder")
    if folder.joinpath(WEIGHTS_NAME).with_suffix(".json").exists():
        # One of the two JSON files would describe the other's weights.
        raise ModelFileError(
            f"{folder}: already holds a model.json, as the run folder of a training does; "
            "give save_pretrained another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_model(model, folder / CONFIG_NAME, folder / WEIGHTS_NAME)
    if not (folder / CARD_NAME).exists():
        atomic_write(folder / CARD_NAME, model_card(model).encode())
    return _publish(model, repo_id or folder.name, **publishing) if push_to_hub else None


def push_to_hub(
    model: PCSR | Original,
    repo_id: str,
    *,
    commit_message: str = "Push a model of pcsr_lightning",
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    **upload: Any,
) -> str:
    """Publishes a model on the Hub. Also a method of the networks.

    Args:
        model: the network.
        repo_id: ``owner/name``; the repository is created if missing.
        commit_message: of the commit.
        private: whether a new repository is private; by default as your account says.
        token: access token; by default the one you are logged in with.
        branch: to commit to; by default the main one.
        upload: further arguments of ``huggingface_hub.HfApi.upload_folder``.

    Returns:
        The commit's address.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: the Hub refuses it.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=branch,
            **upload,
        )
    return str(commit)


_publish = push_to_hub  # under this name where an argument hides it


def from_pretrained(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
    map_location: torch.device | str = "cpu",
) -> PCSR | Original:
    """The model that :func:`save_pretrained` wrote, in evaluation mode.

    ``PCSR.from_pretrained`` and ``Original.from_pretrained`` take the same arguments and refuse a
    model of the other class.

    Args:
        name_or_folder: a folder, or a model on the Hub (see :func:`is_repo_id`); the arguments
            below except ``map_location`` are for the Hub.
        revision: branch, tag or commit.
        cache_dir: where downloads are kept.
        force_download: download it again although it is in the cache.
        local_files_only: take it from the cache, without a connection.
        token: access token.
        map_location: the device to put it on.

    Raises:
        ModelFileError: the folder or a file in it is missing or damaged, or the Hub has no such
            model.
    """
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        if not is_repo_id(name_or_folder):
            raise ModelFileError(
                f"{name_or_folder}: no such folder; expected one that save_pretrained wrote, or "
                "owner/name on the Hugging Face Hub, where there is no folder owner here"
            )
        folder = download(
            str(name_or_folder),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
    if not (folder / WEIGHTS_NAME).is_file():
        raise ModelFileError(f"{folder}: a folder without {WEIGHTS_NAME} in it")
    model, _ = load_model_file(folder / WEIGHTS_NAME)
    return of_full_images(model, name_or_folder).to(map_location)


def is_repo_id(name: str | Path) -> bool:
    """Whether a name is looked up on the Hub.

    It is a string ``owner/name`` without a file's suffix, and there is no file or folder of that
    name here. If there is a folder ``owner``, it is taken for a mistyped path, as ``runs/x``.
    """
    return (
        isinstance(name, str)
        and _REPO_ID.fullmatch(name) is not None
        and re.search(r"\.[A-Za-z]\w*$", name) is None
        and not Path(name).exists()
        and not Path(name).parent.is_dir()
    )


def download(repo_id: str, **options: Any) -> Path:
    """The folder in the Hub's cache that holds a model; downloaded first if needed.

    Args:
        repo_id: ``owner/name``.
        options: arguments of ``huggingface_hub.snapshot_download``.

    Raises:
        ModelFileError: there is no such model, or no connection.
    """
    from huggingface_hub import snapshot_download

    try:
        # One snapshot: the two files are then of the same commit.
        return Path(
            snapshot_download(repo_id, allow_patterns=[WEIGHTS_NAME, CONFIG_NAME], **options)
        )
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{repo_id}: no such file or folder here, and no such model was found on the Hugging "
            f"Face Hub: {single_line(str(error))}"
        ) from None


def model_card(model: PCSR | Original) -> str:
    """The model card that :func:`save_pretrained` writes where there is none yet."""
    config = model.config()
    outside = config["backbone"].get("class")
    # A class from outside the library is never imported because a file names it; the user does.
    how = f'from pcsr_lightning.networks import import_backbone\n\nimport_backbone("{outside}")'
    return _CARD.format(
        name=f"{type(model).__name__} on {config['backbone']['name']}",
        import_backbone="" if outside is None else how,
        parameters=sum(p.numel() for p in model.parameters()),
        network=json.dumps(config),
    )


def _of_class(cls: Any, /, name: str | Path, **options: Any) -> Any:
    model = from_pretrained(name, **options)
    if not isinstance(model, cls):
        found = type(model).__name__
        raise ModelFileError(
            f"{name}: holds {found}, not {cls.__name__}; use {found}.from_pretrained or "
            "pcsr_lightning.load"
        )
    return model


# The Hub's customary methods. They are added here because networks know nothing of the Hub.
for _network in (PCSR, Original):
    for _name, _method in (
        ("save_pretrained", save_pretrained),
        ("push_to_hub", push_to_hub),
        ("from_pretrained", classmethod(_of_class)),
    ):
        setattr(_network, _name, _method)
