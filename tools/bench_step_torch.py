"""The PyTorch half of tools/bench_step.py: the masked-code transformer once more, with its training step.

It shares no code with vqdna_jax and needs only torch and numpy. It reads one JSON command per line from stdin and
answers each with one JSON line on stdout; arrays come as .npz files without pickle.

Matrices are [outputs, inputs], as F.linear wants them.
"""

import json
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNKNOWN, EPSILON, WARM_STEPS = 4, 1e-6, 2
INPUT_AXES = {"out": 2, "project": 2}  # leading axes of a JAX weight that are summed over; else one
LAYER = ("attention_norm", "qkv", "out", "mlp_norm", "up", "down")


def register(module: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """JAX weights as parameters of the same names, those of matrices reshaped and turned."""
    for name, array in weights.items():
        inputs = int(np.prod(array.shape[: INPUT_AXES.get(name, 1)]))
        is_vector = array.ndim == 1 or name.endswith("bias")
        array = array.reshape(-1) if is_vector else array.reshape(inputs, -1).T
        module.register_parameter(name, nn.Parameter(torch.from_numpy(np.ascontiguousarray(array))))


class Layer(nn.Module):
    def __init__(self, c: dict, weights: dict[str, np.ndarray]):
        super().__init__()
        self.c, self.dtype = c, getattr(torch, c["dtype"])
        register(self, weights)

    def forward(self, x_BxLxD: Tensor, sin_LxC: Tensor, cos_LxC: Tensor) -> Tensor:
        heads = self.c["heads"]
        qkv = F.linear(norm(x_BxLxD, self.attention_norm), self.qkv.to(self.dtype)).unflatten(-1, (3, heads, -1))
        q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))
        q, k = (rotate(x, sin_LxC, cos_LxC) for x in (q, k))
        a_BxHxLxC = F.scaled_dot_product_attention(q, k, v)
        x_BxLxD = x_BxLxD + F.linear(a_BxHxLxC.transpose(1, 2).flatten(2), self.out.to(self.dtype))
        h = F.linear(norm(x_BxLxD, self.mlp_norm), self.up.to(self.dtype))
        gate, *linear = h.chunk(2 if self.c["activation"] == "geglu" else 1, dim=-1)
        h = F.gelu(gate, approximate="tanh")
        h = h * linear[0] if linear else h
        return x_BxLxD + F.linear(h, self.down.to(self.dtype))


class Heads(nn.Module):
    def __init__(self, c: dict, weights: dict[str, np.ndarray]):
        super().__init__()
        self.c = c
        register(self, weights)

    def forward(self, h_BxMxD: Tensor, tables: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        logits = []
        for n, e_KxE in enumerate(tables, start=1):
            to_code, bias_K = getattr(self, f"code_{n}"), getattr(self, f"code_{n}_bias")
            u_BxMxE = F.linear(h_BxMxD, to_code.to(e_KxE.dtype)) * e_KxE.shape[1] ** -0.5
            logits.append(F.linear(u_BxMxE, e_KxE).float() + bias_K)
        h_BxMxD = h_BxMxD if self.c["base_weight"] else h_BxMxD.detach()
        return logits, F.linear(h_BxMxD.float(), self.base, self.base_bias).unflatten(-1, (-1, 4))


class MaskedCodes(nn.Module):
    """forward: (loss, accuracies) of a batch; masks are drawn here unless given."""

    def __init__(self, c: dict, arrays: dict[str, np.ndarray]):
        super().__init__()
        self.c, self.dtype = c, getattr(torch, c["dtype"])
        w, heads = under("params/transformer/", arrays), under("params/heads/", arrays)
        self.layers = nn.ModuleList(Layer(c, {n: w[n][i] for n in LAYER}) for i in range(c["layers"]))
        register(self, {name: array for name, array in w.items() if name not in LAYER})
        self.heads = Heads(c, heads)
        tables = under("codes/", arrays)
        for n, codes_KxE in tables.items():
            self.register_buffer(f"table_{n}", standardised(torch.from_numpy(codes_KxE)).to(self.dtype))
        self.levels = len(tables)
        half = torch.arange(0, c["width"] // c["heads"], 2) / (c["width"] // c["heads"])
        turns_LxC = torch.arange(c["codes"] + c["cls"])[:, None] * c["rope_base"] ** -half
        self.register_buffer("sin_LxC", turns_LxC.sin())
        self.register_buffer("cos_LxC", turns_LxC.cos())

    def forward(self, bases_BxS: Tensor, inputs_BxLxN: Tensor, targets_BxLxN: Tensor, masks: dict | None = None):
        if masks is None:
            bases_BxS = random_strand(bases_BxS)
            masks = draw(self.c, len(bases_BxS), bases_BxS.device)
        bases_BxLxR = bases_BxS.unflatten(1, (-1, self.c["bases_per_code"]))[:, : self.c["codes"]]
        positions, replaced_B = masks["positions_BxM"], masks["replaced_B"]
        h_BxMxD = take(self.context(inputs_BxLxN, masks["masked_BxL"], replaced_B), positions)
        logits, base_logits = self.heads(h_BxMxD, [getattr(self, f"table_{n}") for n in range(self.levels)])
        base_BxMxR, target_BxMxN = take(bases_BxLxR, positions).long(), take(targets_BxLxN, positions)
        scored_BxM = masks["scored_BxM"] & (base_BxMxR < UNKNOWN).all(-1)
        code = [score(x, target_BxMxN[..., n], scored_BxM) for n, x in enumerate(logits)]
        counted = take(masks["hidden_BxLxR"] | replaced_B[:, None, None], positions) & scored_BxM[..., None]
        base_loss, base_hits = score(base_logits, base_BxMxR.clamp(max=UNKNOWN - 1), counted)
        loss = sum(x for x, _ in code) / len(code) + (self.c["base_weight"] or 1.0) * base_loss
        return loss, torch.stack([hits for _, hits in code] + [base_hits])

    def context(self, inputs_BxLxN: Tensor, masked_BxL: Tensor, replaced_B: Tensor) -> Tensor:
        vectors = [F.embedding(inputs_BxLxN[..., n], getattr(self, f"table_{n}")) for n in range(self.levels)]
        x_BxLxD = F.linear(torch.cat(vectors, dim=-1), self.project.to(self.dtype))
        x_BxLxD = torch.where((masked_BxL & replaced_B[:, None])[..., None], 0, x_BxLxD)
        x_BxLxD = x_BxLxD + masked_BxL[..., None].to(self.dtype) * self.mask.to(self.dtype)
        if self.c["cls"]:
            cls_Bx1xD = self.cls.to(self.dtype).expand(len(x_BxLxD), 1, -1)
            x_BxLxD = torch.cat([cls_Bx1xD, x_BxLxD], dim=1)
        for layer in self.layers:
            x_BxLxD = layer(x_BxLxD, self.sin_LxC, self.cos_LxC)
        return norm(x_BxLxD, self.norm)[:, int(self.c["cls"]) :]


def norm(x_BxLxD: Tensor, scale_D: Tensor) -> Tensor:
    return F.layer_norm(x_BxLxD, scale_D.shape, scale_D.to(x_BxLxD.dtype), None, EPSILON)


def rotate(x_BxHxLxC: Tensor, sin_LxC: Tensor, cos_LxC: Tensor) -> Tensor:
    a, b = x_BxHxLxC.float().chunk(2, dim=-1)
    return torch.cat([a * cos_LxC - b * sin_LxC, b * cos_LxC + a * sin_LxC], dim=-1).to(x_BxHxLxC.dtype)


def standardised(codes_KxE: Tensor) -> Tensor:
    centred = codes_KxE - codes_KxE.mean(0)
    return centred / (centred.square().mean() + 1e-12).sqrt()


def take(x_BxLxX: Tensor, positions_BxM: Tensor) -> Tensor:
    return x_BxLxX[torch.arange(len(x_BxLxX), device=x_BxLxX.device)[:, None], positions_BxM]


def score(logits: Tensor, labels: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """(mean cross-entropy, share of hits) of what counts."""
    loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)
    total = counted.sum().clamp(min=1)
    return (loss * counted).sum() / total, ((logits.detach().argmax(-1) == labels) & counted).sum() / total


def random_strand(bases_BxS: Tensor) -> Tensor:
    reverse_B = torch.rand(len(bases_BxS), device=bases_BxS.device) < 0.5
    complement = torch.where(bases_BxS < UNKNOWN, 3 - bases_BxS, bases_BxS).flip(1)
    return torch.where(reverse_B[:, None], complement, bases_BxS)


def draw(c: dict, windows: int, device: torch.device) -> dict[str, Tensor]:
    """Single codes, as vqdna_jax.tasks.masking draws them for the kinds "bases" and "codes"."""
    positions_BxM = torch.rand(windows, c["codes"], device=device).argsort(1)[:, : c["masked"]].sort(1).values
    masked_BxL = torch.zeros(windows, c["codes"], dtype=torch.bool, device=device).scatter(1, positions_BxM, True)
    base_BxL = torch.randint(c["bases_per_code"], masked_BxL.shape, device=device)
    chosen_BxLxR = base_BxL[..., None] == torch.arange(c["bases_per_code"], device=device)
    return {
        "positions_BxM": positions_BxM,
        "masked_BxL": masked_BxL,
        "replaced_B": torch.full((windows,), c["kind"] == "codes", device=device),
        "scored_BxM": torch.ones_like(positions_BxM, dtype=torch.bool),
        "hidden_BxLxR": masked_BxL[..., None] & chosen_BxLxR & (c["kind"] != "codes"),
    }


def under(prefix: str, arrays: dict) -> dict:
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


class Trainer:
    """The model, its batch, AdamW, and a count of steps."""

    def __init__(self, c: dict, path: str, compile_mode: str | None):
        arrays = dict(np.load(path, allow_pickle=False))
        self.c, self.device, self.done = c, torch.device(c["device"]), 0
        self.model = MaskedCodes(c, arrays).to(self.device)
        self.forward = torch.compile(self.model, mode=compile_mode, dynamic=False) if compile_mode else self.model
        self.data = {n: torch.from_numpy(x).to(self.device) for n, x in arrays.items() if not n.startswith("params/")}
        self.codes = [self.data[f"batch/{name}_BxLxN"].long() for name in ("inputs", "targets")]
        groups = {True: [], False: []}
        for name, p in self.model.named_parameters():
            jax_name = name.replace(".", "/") if name.startswith("heads") else "transformer/" + name.split(".")[-1]
            groups[c["decay"][jax_name]].append(p)
        self.optimizer = torch.optim.AdamW(
            [{"params": p, "weight_decay": c["weight_decay"] * decays} for decays, p in groups.items()],
            betas=(c["b1"], c["b2"]),
            eps=1e-8,
            fused=True,
        )

    def step(self, bases_BxS: Tensor, masks: dict | None = None) -> list[Tensor]:
        """[loss], and with given masks the squared norm of each gradient, in f64: on a CPU torch's norm is 1e-4 off."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, _ = self.forward(bases_BxS, *self.codes, masks)
        loss.backward()
        squares = [p.grad.double().square().sum() for p in self.model.parameters()] if masks else []
        nn.utils.clip_grad_norm_(self.model.parameters(), self.c["clip_norm"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.c["learning_rates"][min(self.done, len(self.c["learning_rates"]) - 1)]
        self.optimizer.step()
        self.done += 1
        return [loss.detach(), *squares]

    def block(self, steps: int) -> dict[str, float]:
        is_cuda = self.device.type == "cuda"
        wait = torch.cuda.synchronize if is_cuda else lambda: None
        torch.set_float32_matmul_precision("high" if is_cuda else "highest")  # f32 is TF32 there, as in JAX
        for i in range(WARM_STEPS + steps):
            if i == WARM_STEPS:
                wait()
                start, start_cpu = time.perf_counter(), time.process_time()
            loss, *_ = self.step(self.data["batch/bases_BxS"])
        wait()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        return {"seconds": seconds / steps, "cpu_seconds": cpu_seconds / steps, "loss": float(loss)}

    def check(self, steps: int) -> dict[str, list]:
        """Loss and gradient norm of every step, on the strands and masks that came with the batch."""
        torch.set_float32_matmul_precision("highest")
        rows = [self.step(self.data[f"{i}/rows/bases_BxS"], under(f"{i}/masks/", self.data)) for i in range(steps)]
        return {"losses_norms": [[float(loss), float(sum(squares)) ** 0.5] for loss, *squares in rows]}


def hello(device: str | None) -> dict[str, str]:
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise RuntimeError(f"torch {torch.__version__} does not find the device that JAX uses")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return {"torch": torch.__version__}


def answer(trainers: dict[str, Trainer], do: str, name: str = "", **command) -> dict:
    if do == "hello":
        return hello(**command)
    if do == "block":
        return trainers[name].block(command["steps"])
    trainers[name] = Trainer(command["config"], command["path"], command["compile_mode"])
    return trainers[name].check(command["steps"]) if do == "check" else trainers[name].block(1)


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not be taken for an answer
    trainers: dict[str, Trainer] = {}
    for line in sys.stdin:
        try:
            reply = answer(trainers, **json.loads(line))
        except Exception as error:  # the other half tells what did not run
            reply = {"error": f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # JAX has its turn on the same device now
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
