"""Every mesh word of the project: the device mesh, the logical-axis table, the FSDP gather.

Parameters and activations are born with logical axes (`spec("embed", "mlp")`); RULES alone says which mesh axes
those are. All axes are explicit: a sharding mistake is an error while tracing, not a slow program.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh, use_abstract_mesh

from vqdna_jax.errors import InputError

Tree = TypeVar("Tree")  # of arrays
AnyArray = Any  # numpy on the host, jax on devices, of `plan` shapes alone; a union would ask for a cast at every use

AXES = ("data", "fsdp", "tensor", "context")
BATCH = ("data", "fsdp")  # the axes that split the global batch
LENGTH = "context"  # the axis that splits a sequence

# Activations have names of their own, so that a width can be split in a parameter and whole in an activation.
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": BATCH,
    "length": LENGTH,  # not where the axis has one device: of an array that is whole any slice can be taken
    "act_embed": None,
    "act_mlp": "tensor",
    "act_heads": "tensor",
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "layer": None,
    "kernel": None,
    "channel": None,
    "code": None,
}


def spec(*logical: str | None) -> jax.P:
    """Mesh axes, of the mesh that is set, of an array with these logical axes. Raises ValueError when one mesh axis
    would be used twice."""
    rules = RULES if length_shards() > 1 else RULES | {"length": None}
    mesh_axes = [rules[name] if name else None for name in logical]
    used = [axis for entry in mesh_axes if entry for axis in ((entry,) if isinstance(entry, str) else entry)]
    if len(used) != len(set(used)):
        raise ValueError(f"one mesh axis used twice: {logical} -> {mesh_axes}")
    return jax.P(*mesh_axes)


def sharded(init: Callable, *logical: str | None) -> Callable:
    """The initializer `init`, born with the sharding of these logical axes."""
    return functools.partial(init, out_sharding=spec(*logical))


def gathered(w: jax.Array, *logical: str | None) -> jax.Array:
    """The FSDP gather: `w` whole over `fsdp`, still split over `tensor`. Its transpose scatters the gradient back."""
    return jax.reshard(w, jax.P(*(None if axis == "fsdp" else axis for axis in spec(*logical))))


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, context: int = 1, devices=None) -> Mesh:
    """A mesh over AXES; `data=-1` takes all the devices that the other axes leave.

    Of several TPU slices each is a block of whole rows of `data`, the outermost axis: all others lie inside a slice,
    on its fast links, and only sums over `data` cross the network between slices.

    Raises:
        InputError: the sizes do not multiply to the number of devices, a shard would not lie within a host, the axes
            but `data` not within a slice, or the processes are not numbered slice by slice.
    """
    devices = np.asarray(jax.devices() if devices is None else devices)
    others = fsdp * tensor * context
    if min(fsdp, tensor, context) < 1 or (data < 1 and data != -1):
        raise InputError(
            f"config key mesh: found {data=} {fsdp=} {tensor=} {context=}, expected 1 or more (data: or -1)"
        )
    if data == -1:
        data = max(1, devices.size // others)
    if data * others != devices.size:
        raise InputError(
            f"config key mesh: data={data} x fsdp={fsdp} x tensor={tensor} x context={context} is {data * others}"
            f" devices, but there are {devices.size}; set the sizes so that their product is {devices.size}"
        )
    shape = (data, fsdp, tensor, context)
    explicit = (AxisType.Explicit,) * len(AXES)
    by_process = sorted(devices.ravel(), key=lambda device: (device.process_index, device.id))
    per_process = devices.size // len({device.process_index for device in by_process})
    if per_process % (tensor * context):
        raise InputError(
            f"config key mesh: tensor={tensor} x context={context} does not divide the {per_process} devices of a host;"
            " a shard of the batch must lie within one host"
        )
    _check_slices(by_process, fsdp, tensor, context)
    # In the order of the processes, so that process p of n holds rows [p B / n, (p + 1) B / n) of every batch. That
    # fixes the order inside a slice too, where `mesh_utils` would follow the torus; a host is a block of neighbours.
    return Mesh(np.array(by_process).reshape(shape), AXES, axis_types=explicit)


def local_mesh() -> Mesh:
    """This process's first device alone."""
    return make_mesh(devices=jax.local_devices()[:1])


def _check_slices(by_process: Sequence, fsdp: int, tensor: int, context: int) -> None:
    """Raises InputError as `make_mesh`. GPUs call every host a slice: between those any axis may lie."""
    of_device = (getattr(each, "slice_index", 0) if each.platform == "tpu" else 0 for each in by_process)
    slices = [(index, len(list(same))) for index, same in itertools.groupby(of_device)]
    if len(slices) > len(dict(slices)):
        order = ", ".join(str(index) for index, _ in slices[:4])
        raise InputError(
            f"processes: in their order they lie in the slices {order}, ..., expected all of a slice one after the"
            " other; number the processes slice by slice"
        )
    inside, least = fsdp * tensor * context, min(size for _, size in slices)
    if any(size % inside for _, size in slices):
        raise InputError(
            f"config key mesh: fsdp={fsdp} x tensor={tensor} x context={context} is {inside} devices, but a slice has"
            f" {least}, and only data may cross slices; set them so that their product divides {least}"
        )


def is_for_cpu() -> bool:
    """Whether what is traced now is a program for CPUs, those of the mesh that is set. This process's backend does not
    say it: on a CPU programs are compiled for the TPUs of a pod."""
    return _platform() == "cpu"


def is_for_gpu() -> bool:
    """As `is_for_cpu`."""
    return _platform() == "gpu"


def _platform() -> str | None:
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return getattr(device, "platform", None)


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the global batch is split."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH]))


def length_shards() -> int:
    """Among how many devices of the mesh that is set a sequence is split."""
    return jax.sharding.get_abstract_mesh().shape.get(LENGTH, 1)


def split_length(x_BxLxX: AnyArray) -> AnyArray:
    """x with its positions split among the devices that share a sequence, as "length" has them."""
    return _along(x_BxLxX, "length")


def split_evenly(x_BxMxX: AnyArray) -> AnyArray:
    """x as `split_length` has it where that divides, else as it is."""
    return x_BxMxX if x_BxMxX.shape[1] % length_shards() else split_length(x_BxMxX)


def whole_length(x_BxLxX: AnyArray) -> AnyArray:
    """x with all positions on each of the devices that share a sequence."""
    return _along(x_BxLxX, None)


def _along(x_BxLxX: AnyArray, length: str | None) -> AnyArray:
    if length_shards() == 1:
        return x_BxLxX
    return jax.reshard(x_BxLxX, spec("batch", length, *[None] * (x_BxLxX.ndim - 2)))


def first_here(length: int) -> AnyArray:
    """Inside a shard_map: the position of the first of the `length` ones on this device."""
    return lax.axis_index(LENGTH) * length if length_shards() > 1 else 0


def whole_here(x_BxLxX: AnyArray) -> AnyArray:
    """Inside a shard_map: x of all devices that share a sequence, one after the other."""
    return lax.all_gather(x_BxLxX, LENGTH, axis=1, tiled=True) if length_shards() > 1 else x_BxLxX


def by_channels(x_BxLxD: AnyArray) -> AnyArray:
    """Inside a shard_map: of a split sequence all positions of this device's share of the channels."""
    return lax.all_to_all(x_BxLxD, LENGTH, 2, 1, tiled=True) if length_shards() > 1 else x_BxLxD


def by_positions(x_BxLxD: AnyArray) -> AnyArray:
    """Inside a shard_map: what `by_channels` makes, split along the sequence again."""
    return lax.all_to_all(x_BxLxD, LENGTH, 1, 2, tiled=True) if length_shards() > 1 else x_BxLxD


def summed(tree: Tree) -> Tree:
    """Inside a shard_map: sums over all devices that have parts of the batch."""
    return lax.psum(tree, (*BATCH, LENGTH) if length_shards() > 1 else BATCH)


def halo(x_BxLxX: AnyArray, left: int, right: int) -> AnyArray:
    """Inside a shard_map: x with so many positions of the devices before and after, zeros beyond the ends."""
    shards, length = length_shards(), x_BxLxX.shape[1]

    def parts(reach: int, step: int) -> list[AnyArray]:
        """Nearest first."""
        found = []
        for hop in range(1, -(-reach // length) + 1):
            size = min(length, reach - (hop - 1) * length)
            sent = x_BxLxX[:, -size:] if step > 0 else x_BxLxX[:, :size]
            pairs = [(i, i + step * hop) for i in range(shards) if 0 <= i + step * hop < shards]
            found.append(lax.ppermute(sent, LENGTH, pairs))
        return found

    return jnp.concatenate([*reversed(parts(left, 1)), x_BxLxX, *parts(right, -1)], axis=1)


def with_halo(local: Callable[..., AnyArray], reach: int, x_BxLxX: AnyArray, *whole: AnyArray) -> AnyArray:
    """local(x, *whole), of which position l depends on x at l - reach to l + reach; beyond the ends there are zeros."""
    if length_shards() == 1 or not reach:
        return local(x_BxLxX, *whole)

    def on_shard(x: AnyArray, *whole: AnyArray) -> AnyArray:
        length = x.shape[1]
        whole = jax.tree.map(lambda w: lax.pcast(w, (*BATCH, LENGTH), to="varying"), whole)
        return local(halo(x, reach, reach), *whole)[:, reach : reach + length]

    rows = spec("batch", "length", *[None] * (x_BxLxX.ndim - 2))
    return jax.shard_map(on_shard, in_specs=(rows, *[jax.P()] * len(whole)), out_specs=rows)(x_BxLxX, *whole)


def batch_to_devices(batch: Tree, mesh: Mesh, global_batch: int) -> Tree:
    """This process's rows of a global batch, a tree, as global arrays [global_batch, ...], split over BATCH."""

    def put(rows: np.ndarray) -> jax.Array:
        sharding = jax.NamedSharding(mesh, spec("batch", *[None] * (rows.ndim - 1)))
        return jax.make_array_from_process_local_data(sharding, rows, (global_batch, *rows.shape[1:]))

    return jax.tree.map(put, batch)


def whole_on(mesh: Mesh, tree):
    """Host arrays, a tree, whole on every device."""

    def put(x) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, jax.NamedSharding(mesh, jax.P()), lambda index: x[index])

    return jax.tree.map(put, tree)


def placed_as(like: Tree, values: Tree) -> Tree:
    """Host arrays, a tree, on the devices as the arrays of `like` are."""

    def put(array: jax.Array, x: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(x.shape, array.sharding, lambda index: x[index])

    return jax.tree.map(put, like, values)


def split_rows(batch: Tree, parts: int) -> Tree:
    """The batch's rows as [parts, rows / parts, ...], each part as evenly spread over the devices as the whole."""

    def split(x: jax.Array) -> jax.Array:
        split_x = jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)
        return jax.reshard(split_x, spec(None, "batch", *[None] * (x.ndim - 1)))  # reshape drops axes of size 1

    return jax.tree.map(split, batch)


def abstract_mesh(platform: str, kind: str, fsdp: int = 1, tensor: int = 1, context: int = 1) -> AbstractMesh:
    """Of devices that need not be there: what is traced is for this "cpu", "gpu" or "tpu"."""
    device = AbstractDevice(device_kind=kind, num_cores=None, platform=platform)
    explicit = (AxisType.Explicit,) * len(AXES)
    return AbstractMesh((1, fsdp, tensor, context), AXES, axis_types=explicit, abstract_device=device)


def abstract_rows(mesh: Mesh | AbstractMesh, rows: int) -> Callable[[tuple[int, ...], Any], jax.ShapeDtypeStruct]:
    """(shape of a row, dtype) -> so many rows, split among the devices as a batch is."""

    def split(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        sharding = jax.NamedSharding(mesh, spec("batch", *[None] * len(shape)))
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    return split


def abstract_whole(tree: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """Shapes of arrays, or of shapes, whole on every device, as `whole_on` places them."""
    whole = jax.NamedSharding(mesh, jax.P())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree)


def entered(mesh: Mesh | AbstractMesh) -> contextlib.AbstractContextManager:
    """What is traced inside is for this mesh."""
    return use_abstract_mesh(mesh) if isinstance(mesh, AbstractMesh) else jax.set_mesh(mesh)


def abstract_state(init: Callable, mesh: Mesh | AbstractMesh, *arguments):
    """Shapes, dtypes and shardings of `init(*arguments)` on `mesh`, without running it."""

    def on_mesh(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        # Scalars come out of eval_shape with no sharding: say that they are replicated.
        leaf_spec = leaf.sharding.spec if leaf.sharding is not None else jax.P()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=jax.NamedSharding(mesh, leaf_spec))

    with entered(mesh):
        return jax.tree.map(on_mesh, jax.eval_shape(init, *arguments))


def take(x_BxLxX: jax.Array, positions_BxM: jax.Array) -> jax.Array:
    """x, whole along L, at the positions of each window, [B, M, ...], split as these are."""
    at = jax.P(spec("batch")[0], jax.typeof(positions_BxM).sharding.spec[1])
    rows, out = (jax.P(*first, *[None] * (x_BxLxX.ndim - 2)) for first in (spec("batch", None), at))
    local = jax.vmap(lambda x, positions: x[positions])
    return jax.shard_map(local, in_specs=(rows, at), out_specs=out)(x_BxLxX, positions_BxM)


def counts(indices_BxL: jax.Array, counted_BxL: jax.Array, size: int) -> jax.Array:
    """f32 [B, size]: how often each index occurs in a row, of those that are counted; every device has whole rows."""

    def of_row(indices_L: jax.Array, counted_L: jax.Array) -> jax.Array:
        return jnp.zeros(size, jnp.float32).at[indices_L].add(counted_L.astype(jnp.float32))

    rows = spec("batch", None)
    of_rows = jax.shard_map(jax.vmap(of_row), in_specs=(rows, rows), out_specs=rows)
    return of_rows(jax.reshard(indices_BxL, rows), jax.reshard(counted_BxL, rows))


def replicated(tree: Tree) -> Tree:
    """Arrays, a tree, whole on every device."""
    return jax.tree.map(lambda x: jax.reshard(x, jax.P()), tree)
