"""Completion in bash: shtab for commands with options, Hydra's own for those with KEY=VALUE."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from pcsr_lightning import conf_dir
from pcsr_lightning.cli import main
from pcsr_lightning.cli.command import path_argument
from pcsr_lightning.errors import ConfigError

_HYDRA = """
_pcsr() {
  local name="${COMP_WORDS[1]}"
  case "$COMP_CWORD $name" in
    1\\ *) _shtab_pcsr ;;
    *\\ train | *\\ evaluate)
      compopt -o nospace -o default
      local choices=$(COMP_LINE="pcsr${COMP_LINE#*$name}" "${COMP_WORDS[0]}" $name -sc query=bash)
      COMPREPLY=($(compgen -W "$choices" -- "${COMP_WORDS[COMP_CWORD]}")) ;;
    *) _shtab_pcsr ;;
  esac
}
complete -o bashdefault -o default -F _pcsr pcsr
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
"""


def bash_script() -> str:
    """What ``eval`` makes known to bash.

    Raises:
        ConfigError: shtab is not installed.
    """
    if find_spec("shtab") is None:
        raise ConfigError("completion needs shtab, which is not installed: pip install shtab")
    import shtab

    p = argparse.ArgumentParser(prog="pcsr")
    p.add_argument("--version", action="store_true")
    p.add_argument("--completion", choices=["bash"])
    commands = p.add_subparsers()
    for name, what in main.COMMANDS.items():
        own = [] if name in main.HYDRA_COMMANDS else [_own_parser(name)]
        command = commands.add_parser(name, help=what, parents=own, add_help=not own)
        for action in command._actions:
            file = "FILE" in str(action.metavar) or action.dest == "paths"
            if file or action.type is path_argument:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(p, "bash") + _HYDRA


def _own_parser(name: str) -> argparse.ArgumentParser:
    own: argparse.ArgumentParser = import_module(f"pcsr_lightning.cli.{name}").parser()
    return own


def complete_hydra(config_name: str, words: Sequence[str]) -> None:
    """Prints what may follow, as Hydra does for ``-sc query=bash``, without importing a command."""
    import hydra

    from pcsr_lightning.cli.routing_group import register_routing

    register_routing()

    def nothing(_: object) -> None:
        """Completion ends before the command would begin."""

    sys.argv[1:] = words
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(nothing)()
