"""Whether a folder of pickles may be loaded: whoever can write there runs code here."""

from __future__ import annotations

import stat
from pathlib import Path

from zoo.errors import InputError

__all__ = ["refuse_open_folder"]


def refuse_open_folder(folder: Path) -> None:
    """Refuse pickles that any user of this machine could have put there.

    Args:
        folder: What `save_pickle` wrote.

    Raises:
        InputError: Everybody may write to the folder or to a file of it, or may put another folder
            in its place.
    """
    place = folder.resolve()
    for inside in [place, *(place.iterdir() if place.is_dir() else ())]:
        if inside.stat().st_mode & stat.S_IWOTH:
            raise _refusal(folder, inside)
    for above in place.parents:
        # In a sticky folder, such as /tmp, nobody replaces what is another's.
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise _refusal(folder, above)


def _refusal(folder: Path, place: Path) -> InputError:
    return InputError(
        "pickles where not everybody can write, for to load them is to run the code in them",
        f"{folder}, while {place} is open to all users",
        f"Close it (chmod o-w {place}) after a look at what is there. Pass trusted=True where "
        "permissions say nothing, as on some mounted volumes. XShards.load runs no code.",
    )
