"""Programs that jax compiled stay for the next process: its persistent cache, on by default in what is a program.

jax is told by its variables of the environment, before it is imported; so child processes are told, too. What the user
says by them counts: JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=0 keeps nothing.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
import tempfile
import time
import warnings
from typing import Any

BYTES = 1 << 30  # what has not been used for longest makes room
FREE_BYTES = 64 << 20  # on a disk with less nothing is kept
STALE_S = 30 * 86_400.0  # since the last start with another jax or on another machine
_CACHE = "persistent compilation cache"  # in the words of jax's warnings
_FOLDER, _ENABLED = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"


def keep() -> None:
    """Tells jax to keep compiled programs in a folder of this user's, unless the environment says something else.

    Call it before jax is imported; afterwards it does nothing. Where the folder cannot be used there is one warning.
    """
    off = os.environ.get(_ENABLED, "1").lower() in ("0", "false", "no", "off", "f", "n")
    if off or _FOLDER in os.environ or "jax" in sys.modules:
        return
    warn_once()
    try:
        os.environ[_FOLDER] = str(prepared())
    except (OSError, RuntimeError) as error:
        warnings.warn(f"no {_CACHE}: {error}", stacklevel=2)
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(BYTES))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # many little programs take long, too


def prepared() -> pathlib.Path:
    """The folder, made and mended. Raises OSError or RuntimeError where it cannot be used.

    It is named after the versions of jax and the kind of this machine's processor, for which programs are compiled: a
    home directory may be that of several machines. Only its owner may write there, for what lies there is executed.
    """
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = home / "vqdna_jax" / "compiled" / _kind()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"others may write to {folder}, and what lies there is executed")
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"x")
        probe.flush()
    if (free := shutil.disk_usage(folder).free) < FREE_BYTES:
        raise OSError(f"{folder}: {free >> 20} MiB are free, fewer than {FREE_BYTES >> 20}")
    os.utime(folder)
    _mend(folder)
    for other in folder.parent.iterdir():
        if time.time() - other.stat().st_mtime > STALE_S:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _kind() -> str:
    """jax's own keys hold its versions and options, but not what instructions the processor has."""
    versions = "-".join(importlib.metadata.version(name) for name in ("jax", "jaxlib"))
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line for line in lines if line.startswith(("flags", "Features"))), processor)
    return f"{versions}-{platform.machine()}-{hashlib.sha256(processor.encode()).hexdigest()[:8]}"


def _mend(folder: pathlib.Path) -> None:
    """Removes what a process left that was killed while it wrote: jax writes a program, then the time of its use, and
    stumbles over one without the other."""
    with open(folder / ".lockfile", "ab") as lock:  # jax's; it is held while a program is written
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        names = {path.name for path in folder.iterdir()}
        for name in names:
            whole, _, part = name.rpartition("-")
            if {"cache": f"{whole}-atime", "atime": f"{whole}-cache"}.get(part, name) not in names:
                (folder / name).unlink()


def warn_once() -> None:
    """One line on stderr where programs cannot be kept, not one for every program."""
    show, said = warnings.showwarning, set[str]()

    def shorter(message: Warning | str, *rest: Any, **more: Any) -> None:
        if _CACHE not in str(message).lower():
            show(message, *rest, **more)
        elif not said:
            said.add(str(message))
            advice = f"XDG_CACHE_HOME names another folder, {_ENABLED}=0 turns this off"
            print(f"warning: compiled programs are not kept for the next start ({message}); {advice}", file=sys.stderr)

    warnings.showwarning = shorter
