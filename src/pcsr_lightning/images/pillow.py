"""Pillow's errors and warnings of damaged files, as one kind."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pcsr_lightning.errors import PictureError


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Whatever Pillow raises for a damaged file comes out as `ValueError`; it warns of nothing.

    Its decoders meet such files with errors of many kinds: SyntaxError, struct.error, KeyError.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        try:
            yield
        except (PictureError, ValueError, OSError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
