#!/bin/sh
# Puts into .venv what the Makefile's targets need, unless it is there already.
#
#   scripts/install.sh core    this library, editable, and what it depends on
#   scripts/install.sh demo    the same with the extra "demo", for the demo page
#   scripts/install.sh dev     the same with the tools of the extra "dev", which holds "demo"
#
# PYTHON, TORCH and PIP_ARGS: see the Makefile.
#
# A stamp in .venv, written last and taken away while pip works, says what was installed. So an
# install that was cut short leaves no stamp, and the next one starts again from nothing. A .venv
# that was not made here (no file .made-by-make) is never touched.
set -eu
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf 'install: %s\n' "$1" >&2; }
die() { say "$1"; exit 1; }

case ${1:-} in
    core) target=. ;;
    demo) target='.[demo]' ;;
    dev) target='.[dev]' ;;
    *) die "usage: $0 core|demo|dev" ;;
esac
cd -- "$(dirname -- "$0")/.."
stamp=.venv/.installed-$1

# Prints the interpreter behind $1: itself, or the one a virtual environment was made from.
# Fails with a reason where it is too old or cannot make a virtual environment.
base_python() {
    "$1" - <<'EOF'
import sys
if sys.version_info < (3, 11):
    sys.exit("%s is Python %d.%d" % ((sys.executable,) + sys.version_info[:2]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit(sys.executable + " lacks the modules venv and ensurepip (Debian: package python3-venv)")
print(getattr(sys, "_base_executable", None) or sys.executable)
EOF
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        base_python "$PYTHON" || die "Python 3.11 or newer is needed, and PYTHON=$PYTHON will not do."
        return
    fi
    for name in python3.11 python3 python3.12 python3.13 python; do
        if command -v "$name" >/dev/null 2>&1 && base_python "$name" 2>/dev/null; then return; fi
    done
    for name in python3.11 python3; do
        if command -v "$name" >/dev/null 2>&1; then base_python "$name" || true; fi
    done
    die "no usable Python 3.11 or newer on PATH. Install one, or name it: make PYTHON=/path/to/python3.11"
}

# What tells one interpreter from another.
identity() { "$1" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)'; }

# Why .venv cannot be built upon, or nothing where it can.
flaw() {
    if [ ! -e .venv ]; then
        echo "there was none"
    elif [ ! -f .venv/.installed-core ]; then
        echo "an earlier install did not finish"
    elif ! .venv/bin/python -c '' 2>/dev/null; then
        echo "its interpreter is gone"
    elif [ "$(sed -n 1p .venv/.installed-core)" != "$(pwd -P)" ]; then
        echo "this checkout has moved"
    elif [ -n "${PYTHON:-}" ] && [ "$(identity "$PYTHON")" != "$(identity .venv/bin/python)" ]; then
        echo "it was made with another interpreter than PYTHON=$PYTHON"
    fi
}

# On a terminal pip shows what it fetches, which may take minutes; in a log only what went wrong.
if [ -t 1 ]; then quiet=; else quiet=-qq; fi

pip_install() {
    # PIP_ARGS is several words
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install $quiet --disable-pip-version-check ${PIP_ARGS:-} "$@"
}

install_torch() {
    # First and by itself: a build that is there satisfies every other package's "torch", and pip
    # takes the CPU build of this release wherever it is offered one.
    torch=${TORCH:-torch==2.13.0}
    say "installing $torch"
    # shellcheck disable=SC2086
    if [ -z "${TORCH:-}" ] && [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1 &&
        ! .venv/bin/python -m pip index versions torch ${PIP_ARGS:-} 2>/dev/null | grep -q '2\.13\.0+cpu'
    then
        say "no NVIDIA GPU is seen here, nor a CPU build of PyTorch in pip's sources: this may fetch"
        say "several GB of CUDA packages. PyTorch's install page names the index of its CPU builds:"
        say "to use that, stop here and add PIP_ARGS='--extra-index-url THAT_INDEX' to the command."
    fi
    pip_install "$torch"
}

# One install at a time, where the system can say so.
if command -v flock >/dev/null 2>&1; then
    exec 9<pyproject.toml
    flock --nonblock 9 || { say "waiting for another install to end"; flock 9; }
fi

wanted=$(pwd -P; cksum <pyproject.toml)
if [ -e .venv ] && [ ! -f .venv/.made-by-make ] && ! rmdir .venv 2>/dev/null; then
    die "$(pwd)/.venv was made by something else. Move it away, or delete it, and run this again."
fi
why=$(flaw)
if [ -n "$why" ]; then
    python=$(choose_python)
    say "making .venv with $("$python" --version) ($why)"
    rm -rf .venv.discarded
    if [ -e .venv ]; then mv .venv .venv.discarded && rm -rf .venv.discarded; fi
    mkdir .venv
    : >.venv/.made-by-make
    "$python" -m venv .venv
    install_torch
elif [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
elif [ "$1" = demo ] && [ "$(cat .venv/.installed-dev 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

say "installing pcsr_lightning ($1)"
before=$(cat .venv/.installed-core 2>/dev/null || true)
rm -f .venv/.installed-core .venv/.installed-demo .venv/.installed-dev
if ! pip_install --editable "$target"; then
    # pip has put things back as they were: what was sound before still is
    if [ -n "$before" ]; then printf '%s\n' "$before" >.venv/.installed-core; fi
    die "pip failed (above). Nothing else was done."
fi
if [ "$1" != core ]; then printf '%s\n' "$wanted" >"$stamp"; fi
printf '%s\n' "$wanted" >.venv/.installed-core
