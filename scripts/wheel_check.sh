#!/usr/bin/env bash
# Does what a user gets work? Builds the sdist and from it the wheel, installs that into a virtual
# environment away from the checkout, and runs the three commands there, from a folder of their own.
#
# Only the heavy dependencies are borrowed, from the checkout's .venv, to save their installation.
# Right after `scripts/install.sh core` they are just the declared ones, so a missing one shows.
set -euo pipefail

checkout=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
base=$checkout/.venv/bin/python
[ -x "$base" ] || { echo "wheel check: run 'make wheel-check', which makes .venv first" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/pcsr-wheel-check.XXXXXX")
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 WANDB_MODE=offline MPLBACKEND=Agg
export XDG_CACHE_HOME=$work/cache # nothing that an earlier run left behind may help

step() { printf '\n--- wheel check: %s\n' "$1"; }

step "build"
"$base" -m venv "$work/tools"
# PIP_ARGS is several words
# shellcheck disable=SC2086
"$work/tools/bin/python" -m pip install -qq ${PIP_ARGS:-} build
"$work/tools/bin/python" -m build --outdir "$work/dist" "$checkout" >"$work/build.log" 2>&1 ||
    { cat "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
[ -f "$wheel" ] || { echo "wheel check: not one wheel: $wheel" >&2; exit 1; }

step "contents of $(basename "$wheel")"
"$base" - "$wheel" <<'EOF'
import sys
import zipfile
from collections import Counter
from fnmatch import fnmatch

with zipfile.ZipFile(sys.argv[1]) as wheel:
    files = {info.filename: info.file_size for info in wheel.infolist() if not info.is_dir()}
needed = [
    "pcsr_lightning/__init__.py",
    "pcsr_lightning/py.typed",
    "pcsr_lightning/train.py",
    "pcsr_lightning/evaluate.py",
    "pcsr_lightning/upscale.py",
    "pcsr_lightning/conf/train.yaml",
    "pcsr_lightning/conf/evaluate.yaml",
    "pcsr_lightning/app/page.css",
    "pcsr_lightning/app/viewer.*",
    "pcsr_lightning/weights/released/*.safetensors",
    "pcsr_lightning/weights/released/*.json",
    "pcsr_lightning/data/sample/*.png",
    "*.dist-info/licenses/LICENSE",
]
missing = [pattern for pattern in needed if not any(fnmatch(name, pattern) for name in files)]
strange = [
    name
    for name in files
    if not fnmatch(name.split("/")[0], "pcsr_lightning*") or name.endswith((".pyc", ".ckpt"))
]
for suffix, count in Counter(name.rpartition(".")[2] for name in files).most_common():
    print(f"{count:5d} .{suffix}")
print(f"{sum(files.values()) / 1e6:.1f} MB unpacked")
if missing or strange:
    sys.exit(f"wheel check: missing {missing}, strange {strange}")
EOF

step "install"
"$base" -m venv --without-pip "$work/venv"
python=$work/venv/bin/python
"$base" -m pip --python "$python" install -qq --no-deps --no-index "$wheel"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$base" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/borrowed.pth"
"$base" -m pip --python "$python" check # every declared bound holds for what the tests run on
mkdir "$work/away"
cd "$work/away"
"$python" - <<'EOF'
import sys

import pcsr_lightning

print(pcsr_lightning.__file__)
if not pcsr_lightning.__file__.startswith(sys.prefix):
    sys.exit("wheel check: the package does not come from the wheel")
EOF
fingerprint() { find "$site/pcsr_lightning" -type f ! -name '*.pyc' -exec cksum {} + | sort; }
fingerprint >"$work/before"

step "python -m pcsr_lightning.train"
"$python" -m pcsr_lightning.train stage=1 backbone=fsrcnn data=sample trainer.max_steps=2
[ -n "$(find . -name '*.ckpt')" ] || { echo "wheel check: no checkpoint was written" >&2; exit 1; }

step "python -m pcsr_lightning.evaluate"
"$python" - "$site/pcsr_lightning/data/sample" <<'EOF'
import sys
from pathlib import Path

from PIL import Image

photograph = min(Path(sys.argv[1]).rglob("*.png"))
Path("pictures").mkdir()
with Image.open(photograph) as image:
    image.convert("RGB").crop((0, 0, 192, 128)).save("pictures/crop.png")
    image.convert("RGB").crop((0, 0, 48, 32)).save("small.png")
EOF
"$python" -m pcsr_lightning.evaluate model=fsrcnn-pcsr-x4 data.root=pictures scale=4 \
    routing.mode=k routing.k=0
"$python" - <<'EOF'
import json
import math
import sys
from pathlib import Path

found = sorted(Path.cwd().rglob("metrics.json"))
if len(found) != 1:
    sys.exit(f"wheel check: metrics.json is wanted once, found {found}")
metrics = json.loads(found[0].read_text())
figures = [metrics[key] for key in ("psnr", "gmacs", "seconds")] + [metrics["bicubic"]["psnr"]]
figures += metrics["share"]
if not all(map(math.isfinite, figures)) or len(metrics["images"]) != 1:
    sys.exit(f"wheel check: metrics.json is not what it should be: {metrics}")
EOF

step "python -m pcsr_lightning.upscale"
"$python" -m pcsr_lightning.upscale small.png large.png
"$python" - <<'EOF'
import sys

from PIL import Image

with Image.open("large.png") as large:
    print("large.png", large.size)
    if large.size != (192, 128):
        sys.exit("wheel check: 48 x 32 enlarged four times is 192 x 128")
EOF

step "what was installed is as it was"
fingerprint | diff "$work/before" -
printf '\nwheel check: all is well\n'
