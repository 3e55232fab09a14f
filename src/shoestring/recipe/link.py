"""`RUN/model`: a link to the newest checkpoint of a run, so that its model has a path that a person can type."""

from __future__ import annotations

import os
from pathlib import Path

MODEL = "model"
"""The link's name in a run's folder."""


def link_model(out: Path, checkpoint: Path) -> str:
    """Let `out/model` lead to a checkpoint, in place of the link to an earlier one.

    Returns:
        A note when that is not possible, because something of the user's has the name or links are not supported; else "".
    """
    link = out / MODEL
    if os.path.lexists(link) and not _ours(link, checkpoint.parent):
        return f"{link}: is not this run's link and stays as it is; the model is {checkpoint}"
    draft = out / f".{MODEL}.link"
    try:
        draft.unlink(missing_ok=True)
        draft.symlink_to(os.path.relpath(checkpoint.resolve(), out.resolve()))
        draft.replace(link)
    except OSError as error:
        return f"{link}: can't be made ({error.strerror}); the model is {checkpoint}"
    return ""


def _ours(link: Path, store: Path) -> bool:
    """A link to an entry of the store, there or not."""
    return link.is_symlink() and (link.parent / link.readlink()).parent.resolve() == store.resolve()
