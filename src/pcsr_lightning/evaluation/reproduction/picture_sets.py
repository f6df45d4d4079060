"""The paper's sets of pictures: where they come from, how they are cut, whether they are right."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from pcsr_lightning.errors import ConfigError, PictureError
from pcsr_lightning.evaluation.pairs import Protocol
from pcsr_lightning.evaluation.published import published_points
from pcsr_lightning.images import Picture, bicubic, list_pictures, read_rgb8, write
from pcsr_lightning.inference.flops import original_flops
from pcsr_lightning.networks import Original, build_network, default_config

_log = logging.getLogger(__name__)

_SELFEXSR = "the folder data of https://github.com/jbhuang0604/SelfExSR, HR pictures of x4"
_CLASSSR = (
    "https://github.com/XPixelGroup/ClassSR, whose README links it ready-made; or data.DIV8K=DIR "
    "makes it from DIV8K (NTIRE 2020, https://competitions.codalab.org/competitions/22217)"
)
DIV8K = "DIV8K"


@dataclass(frozen=True)
class PictureSet:
    """A set of HR pictures as the paper uses it.

    Attributes:
        name: as printed.
        pictures: how many it has.
        source: where to get it.
        multiple: each side is cut to a multiple of this, at the bottom and the right. 12 fits x2,
            x3 and x4: the paper's cost on Set14 is that of pictures cut so.
        div8k: the first of its pictures in DIV8K; ``None`` if it is not made from DIV8K.
        shrunk: how many times smaller than there, by bicubic resizing, as ClassSR's authors say.
    """

    name: str
    pictures: int
    source: str
    multiple: int = 12
    div8k: int | None = None
    shrunk: int = 1


SETS: Mapping[str, PictureSet] = {
    each.name: each
    for each in (
        PictureSet("Set5", 5, _SELFEXSR),
        PictureSet("Set14", 14, _SELFEXSR),
        PictureSet("B100", 100, f"{_SELFEXSR} (there BSD100)"),
        PictureSet("Urban100", 100, _SELFEXSR),
        PictureSet("Manga109", 109, "http://www.manga109.org, on request"),
        PictureSet("Test2K", 100, _CLASSSR, 1, 1201, 4),
        PictureSet("Test4K", 100, _CLASSSR, 1, 1301, 2),
        PictureSet("Test8K", 100, _CLASSSR, 1, 1401, 1),
    )
}


def known_set(name: str) -> PictureSet:
    """The set of that name; one that the paper does not use is taken as it is.

    Args:
        name: capitals do not matter.
    """
    by_name = {each.name.lower(): each for each in SETS.values()}
    return by_name.get(name.lower()) or PictureSet(name, 0, f"data.{name}=DIR", 1)


def prepare_set(chosen: PictureSet, data: Mapping[str, str], into: Path) -> Path | None:
    """The folder of a set, ready to be measured.

    Pictures that have to be cut or shrunk are written below ``into`` once, as PNG.

    Args:
        chosen: the set.
        data: a folder for each set by its name, for ``DIV8K``, or as ``root`` the folder in which
            they all are.
        into: for the pictures that are written.

    Returns:
        ``None`` where there is no such folder.

    Raises:
        ConfigError: a folder that was named is not there.
        PictureError: a picture cannot be read.
    """
    folder = _folder(chosen.name, data)
    if folder is not None:
        files = list_pictures(folder)
        return folder if chosen.multiple == 1 else _written(chosen, files, into / chosen.name, 1)
    folder = None if chosen.div8k is None else _folder(DIV8K, data)
    if folder is None:
        return None
    files = _of_div8k(chosen, list_pictures(folder))
    return _written(chosen, files, into / chosen.name, chosen.shrunk)


def _folder(name: str, data: Mapping[str, str]) -> Path | None:
    given = next((path for key, path in data.items() if key.lower() == name.lower()), None)
    if given is not None:
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"data.{name}={given}: no such folder; name one of pictures")
    else:
        root = Path(data["root"]).expanduser() if "root" in data else None
        if root is not None and not root.is_dir():
            raise ConfigError(f"data.root={root}: no such folder; name the one that has the sets")
        inside = [] if root is None else sorted(root.iterdir())
        found = [p for p in inside if p.name.lower() == name.lower() and p.is_dir()]
        if not found:
            return None
        folder = found[0]
    # Ready-made sets have the small pictures beside it.
    return folder / "HR" if (folder / "HR").is_dir() else folder


def _of_div8k(chosen: PictureSet, files: Sequence[Path]) -> list[Path]:
    assert chosen.div8k is not None
    wanted = range(chosen.div8k, chosen.div8k + chosen.pictures)
    numbers = {int(m[0]): p for p in files if (m := re.search(r"\d+$", p.stem))}
    found = [numbers[n] for n in wanted if n in numbers]
    if not found:
        raise PictureError(
            f"data.{DIV8K}: has none of the pictures {wanted[0]} to {wanted[-1]}, of which "
            f"{chosen.name} is made"
        )
    return found


def _written(chosen: PictureSet, files: Sequence[Path], into: Path, shrunk: int) -> Path:
    """The pictures, shrunk and cut, as PNG; those that are there already are not written again."""
    into.mkdir(parents=True, exist_ok=True)
    for path in files:
        unchanged = chosen.multiple == shrunk == 1
        target = into / (path.name if unchanged else f"{path.stem}.png")
        if unchanged and not target.exists():
            target.symlink_to(path.resolve())
        elif not target.is_file():
            write(Picture(_ready(read_rgb8(path), chosen.multiple, shrunk)), target)
    return into


def _ready(hr_3HW: Tensor, multiple: int, shrunk: int) -> Tensor:
    """uint8, shrunk and cut."""
    H, W = (n - n % (multiple * shrunk) for n in hr_3HW.shape[-2:])
    hr_3HW = hr_3HW[:, :H, :W]
    if shrunk == 1:
        return hr_3HW.contiguous()
    small = bicubic(hr_3HW.float(), (H // shrunk, W // shrunk))
    return small.round_().clamp_(0, 255).byte()


def check_set(chosen: PictureSet, folder: Path) -> list[str]:
    """What is wrong with a set, each in one sentence; empty if nothing is.

    Besides the number of pictures it compares their sizes with the paper's: what the original CARN
    costs on them, which the paper prints, depends on nothing else.
    """
    files, wrong = list_pictures(folder), []
    if chosen.pictures and len(files) != chosen.pictures:
        wrong.append(f"{chosen.name} has {chosen.pictures} pictures, this folder {len(files)}")
    costs = {
        p.gflops
        for table in ("Table 1", "Appendix Table 1")
        for p in published_points(chosen.name, "CARN", table=table)
        if p.method == "original" and p.gflops is not None
    }
    if costs and not wrong:
        [expected], found = costs, mean_cost(files)
        if abs(found - expected) > 0.002 * expected:
            wrong.append(
                f"{chosen.name}: the original CARN costs {found:.2f} GFLOPs on pictures of these "
                f"sizes, in the paper {expected:g}: they are other pictures, or cut otherwise"
            )
    return wrong


def mean_cost(files: Sequence[Path]) -> float:
    """GFLOPs of the original CARN x4 by the published count, on the pixels of the paper's tables.

    Args:
        files: HR pictures, of which only the headers are read.
    """
    carn = build_network(default_config("carn", original=True))
    assert isinstance(carn, Original)
    pixels = 0
    for path in files:
        with Image.open(path) as picture:
            w, h = (Protocol.PUBLISHED.cut(n // carn.scale) for n in picture.size)
        pixels += h * w
    return original_flops(carn, pixels).gflops_published / len(files)
