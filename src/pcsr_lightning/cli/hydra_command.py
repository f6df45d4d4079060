"""Runs a function as a Hydra command in which every mistake of the user's is one line on stderr."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError, PCSRError, exit_on_error
from pcsr_lightning.settings.known_keys import check_given, in_one_line
from pcsr_lightning.settings.overrides import (
    renamed,
    split_options,
    with_logger_names,
    with_plus,
    without_null_choices,
)

FULL_ERROR = "HYDRA_FULL_ERROR"


def run_hydra_command(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Runs ``task`` on the config that ``sys.argv`` and ``conf/<config_name>.yaml`` compose.

    A :class:`PCSRError` of the task, an unknown key, an unknown choice of a group, an override
    that cannot be read, an empty value, a config file that is no YAML, a launcher or sweeper that
    fails, or a run folder that cannot be made end the process with one line on stderr and status 1;
    with ``debug=true`` or ``HYDRA_FULL_ERROR=1``, with the whole trace. Paths of existing files and
    folders are taken literally, whatever characters they hold; options and settings may be mixed.

    Args:
        task: gets the composed config, which has a key ``debug``; a sweeper sees what it returns.
        config_name: without ``.yaml``.
    """
    trace = os.environ.get(FULL_ERROR) == "1" or "debug=true" in [a.lower() for a in sys.argv[1:]]
    of_task: list[Exception] = []

    @functools.wraps(task)  # Hydra names the job after the file that the task stands in
    def report_errors(cfg: DictConfig) -> object:
        if not trace:
            # Composition is over. What the task starts must not inherit the setting made below.
            os.environ.pop(FULL_ERROR, None)
        with exit_on_error(debug=trace):
            try:
                return task(cfg)
            except Exception as error:
                of_task.append(error)
                raise

    with exit_on_error(debug=trace):
        check_given(sys.argv[1:])
        sys.argv[1:] = hydra_words(sys.argv[1:], config_name)
        before, logging.raiseExceptions = os.environ.get(FULL_ERROR), trace
        # A log file on a full disk would print a traceback for each of its lines.
        # Hydra prints errors of composition itself, on many lines, unless told to let them through.
        os.environ[FULL_ERROR] = "1"
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(
                report_errors
            )()
        except Exception as error:
            known = isinstance(error, HydraException | OmegaConfBaseException | OSError)
            if trace or isinstance(error, PCSRError) or (error in of_task and not known):
                raise
            if isinstance(error, OSError) and not isinstance(error, HydraException):
                where = error.filename or "the run folder cannot be written"  # by Hydra itself
                raise ConfigError(f"{where}: {error.strerror or error}") from None
            raise ConfigError(in_one_line(error, config_name, sys.argv[1:])) from None
        finally:
            logging.raiseExceptions = True
            os.environ.pop(FULL_ERROR, None)
            if before is not None:
                os.environ[FULL_ERROR] = before


def hydra_words(words: Sequence[str], config_name: str) -> list[str]:
    """A command's words as Hydra is to read them, see :mod:`pcsr_lightning.settings.overrides`."""
    options, settings = split_options(words)
    settings = [literal_path(renamed(word)) for word in settings]
    settings = with_logger_names(without_null_choices(settings, config_name), config_name)
    return [*options, *with_plus(settings, config_name, options)]


def literal_path(argument: str) -> str:
    """``key=VALUE`` with the value quoted if it names an existing file or folder.

    Unquoted, Hydra would stumble over ``=``, ``(`` and the like. A plain word or number stays as it
    is: ``scale=4`` must not become a word because there is a folder called 4.
    """
    key, sign, value = argument.partition("=")
    if not sign or key.startswith("-") or re.fullmatch(r"[\w.+-]*", value) or not _exists(value):
        return argument
    escaped = re.sub(r"(\\+)(?=$|')", r"\1\1", value).replace("'", r"\'")
    return f"{key}='{escaped}'"


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a null character
        return False
