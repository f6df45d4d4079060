"""What every command writes: through links, with the old file's permissions, and after ``--``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.commands import run_command

from pcsr_lightning.networks import build_network, default_config
from pcsr_lightning.weights import save

MODEL = "-small.safetensors"
"""Names that begin with a dash are no options behind ``--`` or ``=``."""

# Words, with a place for the folder, and files that they write there.
COMMANDS: dict[str, tuple[str, list[str]]] = {
    "export": (f"--scale 2 --force -- {MODEL} {{out}}/-net.onnx", ["-net.onnx"]),
    "convert": (f"--force -- {MODEL} {{out}}/-net", ["-net.safetensors", "-net.json"]),
    "demo": (
        f"--picture=-photo.png --model={MODEL} --out={{out}}",
        ["input.png", "k0.png", "class_map.png", "side_by_side.png"],
    ),
    "figures": (
        f"--picture=-photo.png --model={MODEL} --out={{out}}",
        ["psnr_flops.png", "difficulty.png", "refinement.png", "class_map.png"],
    ),
    "release": (
        f"mine --weights={MODEL} --made=made.md --test pictures --out={{out}} --allow-unsound",
        ["mine/mine.md", "mine/mine.safetensors", "mine/mine.json", "mine/pictures-x4.png"],
    ),
    "evaluate": (
        f"model={MODEL} data.root=pictures save_images=true hydra.run.dir={{out}}",
        ["pictures/one.png", "pictures/one.classes.png"],
    ),
    "evaluate sweep": (
        f"model={MODEL} data.root=pictures sweep=k hydra.run.dir={{out}}",
        ["psnr_flops.png", "psnr_flops.pdf"],
    ),
    "upscale": (
        f"--model={MODEL} --overwrite --class-map={{out}}/-map.png -- -photo.png {{out}}/-x4.png",
        ["-x4.png", "-map.png"],
    ),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture and a model, and pictures to measure."""
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    save(build_network(default_config("fsrcnn", 2)), folder / "-small")
    coarse = torch.randint(0, 256, (9, 13, 3), dtype=torch.uint8).numpy()
    (folder / "pictures").mkdir()
    for path in (folder / "-photo.png", folder / "pictures" / "one.png"):
        Image.fromarray(coarse).resize((144, 128), Image.Resampling.BICUBIC).save(path)
    (folder / "made.md").write_text("By hand.")
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_links_are_written_through_and_permissions_stay(
    name: str, inputs: Path, tmp_path: Path
) -> None:
    """Even of files that may only be read: a new file takes their place."""
    words, names = COMMANDS[name]
    out, store = tmp_path / "out", tmp_path / "store"
    store.mkdir()
    for i, part in enumerate(names):
        link, real = out / part, store / str(i)
        link.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(b"old")
        real.chmod(0o440)
        link.symlink_to(os.path.relpath(real, link.parent))
    inodes = [(store / str(i)).stat().st_ino for i in range(len(names))]
    run_command(name.split()[0], *words.format(out=out).split(), cwd=inputs, code=0)
    for i, part in enumerate(names):
        link, real = out / part, store / str(i)
        assert link.is_symlink(), part
        assert link.resolve() == real, part
        assert real.stat().st_size > 100, part
        assert real.stat().st_mode & 0o777 == 0o440, part
        # The old file was never half overwritten.
        assert real.stat().st_ino != inodes[i], part
    left = [path.name for path in store.iterdir() if path.suffix != ".jsonl"]
    assert sorted(left) == [str(i) for i in range(len(names))]
