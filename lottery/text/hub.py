"""Use the Hugging Face hub without output from its client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the hub's client from printing a line per attempt. The caller reports the final failure."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
