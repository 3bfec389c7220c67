"""The copy, in the cache directory, of an export that is in an object store: models are read from disks."""

import hashlib
import json
import pathlib
import shutil

from vqdna_jax.errors import InputError, cannot_write
from vqdna_jax.runtime.remote.cache import cache_directory, one_at_a_time
from vqdna_jax.runtime.remote.store import Store

_CONFIG = "config.json"
_KINDS = {".json", ".safetensors", ".md"}  # of files that an export may have


def copied(url: str) -> pathlib.Path:
    """A directory with the files of the export that is at `url` now.

    Its name is made of what config.json says, with the digest of all weights in it, so that another model is another
    copy. Raises as the store, InputError where there is no export, StorageError where there is no room.
    """
    store = Store(url)
    config = store.read(_CONFIG)
    if config is None:
        raise InputError(f"{url}: there is no {_CONFIG}; expected the export directory of a run, like {url}/export")
    sizes = {name: size for name, size in store.sizes().items() if pathlib.PurePath(name).suffix in _KINDS}
    sizes = {name: size for name, size in sorted(sizes.items()) if "/" not in name}
    told = hashlib.sha256(json.dumps([store.url, config.hex(), sizes]).encode()).hexdigest()[:16]
    copy = cache_directory() / f"model-{told}"
    try:
        with one_at_a_time(copy):
            if not copy.exists():
                _copy(store, sizes, copy)
    except OSError as error:
        raise cannot_write(copy, error) from error
    return copy


def _copy(store: Store, sizes: dict[str, int], copy: pathlib.Path) -> None:
    new = copy.with_name(f".{copy.name}")
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    for name, size in sizes.items():
        store.download(name, new / name, size)
    new.rename(copy)
