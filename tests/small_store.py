"""An object store in memory that fails, stands still and cuts what is written, as often as it is told to."""

import threading

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class PluginError(Exception):
    """What an object store's library raises: none of Python's own errors."""


class Shaky(MemoryFileSystem):
    """shaky://. `fails`, `stalls` and `cuts`: how many of the next writes do so, of names that `of` is a part of."""

    protocol = "shaky"
    store, pseudo_dirs = {}, [""]
    fails = stalls = cuts = 0
    of = ""
    released = threading.Event()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("shaky://", "memory://"))

    @classmethod
    def anew(cls) -> None:
        cls.fails, cls.stalls, cls.cuts, cls.of = 0, 0, 0, ""
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.released = threading.Event()

    def pipe_file(self, path, value, mode="overwrite", **options):
        super().pipe_file(path, self._struck(path, value), mode, **options)

    def put_file(self, local, remote, **options):
        with open(local, "rb") as file:
            self.pipe_file(remote, file.read())

    def _struck(self, path: str, value: bytes) -> bytes:
        if Shaky.of not in path:
            return value
        if Shaky.fails:
            Shaky.fails -= 1
            raise PluginError("503 Slow Down")
        if Shaky.stalls:
            Shaky.stalls -= 1
            Shaky.released.wait(60)
            raise PluginError("reset by peer, at last")
        if Shaky.cuts:
            Shaky.cuts -= 1
            return value[: len(value) // 2]
        return value


fsspec.register_implementation("shaky", Shaky, clobber=True)


def objects(below: str) -> dict[str, bytes]:
    """All that is in shaky://`below`, by the names there."""
    above = f"/{below}/"
    return {name.removeprefix(above): file.getvalue() for name, file in Shaky.store.items() if name.startswith(above)}
