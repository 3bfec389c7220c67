"""How each set is fine-tuned, as data: DNABERT-2's protocol for GUE (its finetune/scripts), and this project's own.

A key is a name in the config of configs/finetune.py. Global batch 32, weight decay 0.01, linear decay and the best
parameters on dev are the same for all and stand in that file.
"""

from collections.abc import Mapping
from typing import Any

_LONG, _SHORT = {"train.total_epochs": 10.0}, {"train.total_epochs": 4.0, "eval.every_steps": 400}
_MOUSE = {"train.total_epochs": 0.0, "train.total_steps": 1000, "optimizer.warmup_steps": 30}
_RECIPES: Mapping[str, Mapping[str, Any]] = {
    "EMP": {"train.total_epochs": 3.0},
    "prom/prom_core_all": _SHORT,
    "prom/prom_core_notata": _SHORT,
    "prom/prom_core_tata": _LONG,
    "prom/prom_300_all": _SHORT,
    "prom/prom_300_notata": _SHORT,
    "prom/prom_300_tata": _LONG,
    "splice": {"train.total_epochs": 5.0},
    "virus": {"train.total_epochs": 8.0},
    "mouse": _MOUSE,
    "tf": {"train.total_epochs": 3.0, "optimizer.warmup_steps": 30},
    "editing": _LONG,  # the paper names neither sets nor protocol: this project's choice
    "species": _LONG,  # HyenaDNA draws its windows anew for 100 epochs of 1,000: this project draws them once
}


def recipe(name: str) -> dict[str, Any]:
    """Config keys and values for the set `name`, "tf/0": its own entry, or its group's."""
    return dict(_RECIPES[name] if name in _RECIPES else _RECIPES[name.split("/")[0]])
