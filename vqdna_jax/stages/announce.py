"""What a run says before its first step: what runs where, on what, how much it is, and what has changed."""

import jax
from jax.sharding import Mesh

from vqdna_jax.stages.base import Stage
from vqdna_jax.training.step import TrainState


def differences(saved: dict, now: dict) -> list[str]:
    """What may differ from the run that is gone on with, and is worth a line."""
    lines, was = [], saved["versions"]
    changed = [f"{name} {was.get(name)} -> {is_}" for name, is_ in now["versions"].items() if was.get(name) != is_]
    if changed:
        lines.append(f"warning: versions changed since the checkpoint, results may too: {', '.join(changed)}")
    topology = saved.get("topology", now["topology"])
    if topology != now["topology"]:
        lines.append(
            f"the checkpoint is of {topology['processes']} processes and {topology['devices']} devices: same batches on"
            " other devices, losses agree to rounding only"
        )
    return lines


def plan_lines(stage: Stage, state: TrainState, mesh: Mesh, total_steps: int) -> list[str]:
    """What runs where, on what, and how much it is."""
    parameters = sum(x.size for x in jax.tree.leaves(state.params)) / 1e6
    shape = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return [
        *stage.data.lines,
        f"devices    {mesh.size} x {mesh.devices.flat[0].device_kind}{processes}, mesh {shape}",
        f"parameters {parameters:.{2 if parameters >= 0.1 else 4}f} M",
        *stage.plan_lines(state),
        f"step       {stage.flops_per_step() / 1e9:.1f} GFLOP; steps {int(state.step)} to {total_steps}",
    ]
