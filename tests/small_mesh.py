"""Meshes of some of the devices that tests run on."""

import jax
from jax.sharding import Mesh

from vqdna_jax import partition


def mesh_of(data: int = 1, fsdp: int = 1, tensor: int = 1, context: int = 1) -> Mesh:
    """Of the first devices."""
    count = data * fsdp * tensor * context
    return partition.make_mesh(data, fsdp, tensor, context, devices=jax.devices()[:count])
