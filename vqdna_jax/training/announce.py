"""What a run says before its first step: what runs where, on what, how much it is, and what has changed."""

import jax
from jax.sharding import Mesh


def _differences(saved: dict, now: dict) -> list[str]:
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


def say_plan(data, mesh: Mesh, stage, state, flops_per_step: float, first_step: int, total_steps: int) -> None:
    """Before the first step: what runs where, on what, and how much it is."""
    if jax.process_index():
        return
    parameters = sum(x.size for x in jax.tree.leaves(state.params)) / 1e6
    shape = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    for line in data.lines:
        print(line)
    print(f"devices    {mesh.size} x {jax.devices()[0].device_kind}{processes}, mesh {shape}")
    print(f"parameters {parameters:.{2 if parameters >= 0.1 else 4}f} M")
    for line in stage.plan(state):
        print(line)
    print(f"step       {flops_per_step / 1e9:.1f} GFLOP; steps {first_step} to {total_steps}", flush=True)
