"""What Spark needs of the machine around it, asked before Spark stumbles over it."""

from __future__ import annotations

import codecs
import locale
import os
import pwd
import tempfile
from collections.abc import Iterable

from zoo.errors import ClusterError

__all__ = ["locale_for_java", "require_room", "require_user_name"]

# A disk that has less than this left is full for Spark.
_ROOM_BYTES = 1 << 20


def require_user_name() -> None:
    """Refuse to start Java for a user without a name: its login would fail.

    Raises:
        ClusterError: The user id has no name.
    """
    uid = os.getuid()
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise ClusterError(
            "a name for the user that runs this program; the login of Java needs one",
            f"the user id {uid} without an entry in /etc/passwd, as in containers started with "
            "a number for the user",
            "Add a line to /etc/passwd of the image, such as "
            f"zoo:x:{uid}:{os.getgid()}::/tmp:/bin/sh; or preload libnss_wrapper.so with a file "
            "that has that line (LD_PRELOAD, NSS_WRAPPER_PASSWD, NSS_WRAPPER_GROUP).",
        ) from None


def locale_for_java() -> dict[str, str]:
    """Variables with which Java can open all files; empty where it can already.

    In the plain C locale Java takes no file name that is not ASCII; Python does.
    """
    ascii_only = codecs.lookup(locale.getencoding()).name == "ascii"
    return {"LC_ALL": "C.UTF-8"} if ascii_only else {}


def require_room(places: Iterable[str], setting: str) -> None:
    """Refuse folders for temporary files that Spark could not use.

    Args:
        places: The folders; those that do not exist are made, as Spark would.
        setting: What names them, for the message.

    Raises:
        ClusterError: One cannot be made, not be written to, or is full.
    """
    for place in (name.removeprefix("file:") for name in places):
        try:
            os.makedirs(place, exist_ok=True)
            with tempfile.TemporaryFile(dir=place, buffering=0) as file:
                left = memoryview(bytes(_ROOM_BYTES))
                while left:
                    left = left[file.write(left) :]
        except OSError as exc:
            raise ClusterError(
                "folders with room for Spark's temporary files",
                f"{place}: {exc.strerror} ({setting})",
                f"Make room there, or name other folders in {setting}.",
            ) from exc
