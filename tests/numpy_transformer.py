"""The masked-code transformer and its head for bases written out in NumPy, a window at a time: slow, and obvious."""

import numpy as np

from vqdna_jax.inference.pretrained import Pretrained


def normalised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)


def turned(x_LxHxC: np.ndarray, base: float) -> np.ndarray:
    length, _, channels = x_LxHxC.shape
    angle = np.exp(1j * np.outer(np.arange(length), base ** (-np.arange(0, channels, 2) / channels)))[:, None]
    pairs = (x_LxHxC[..., : channels // 2] + 1j * x_LxHxC[..., channels // 2 :]) * angle
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def context(model: Pretrained, codes_LxN: np.ndarray, masked_L: np.ndarray) -> np.ndarray:
    """Context vectors [L, D] of a window's codes, hidden bases in those that are masked."""
    config, w = model.transformer, {name: np.asarray(x, float) for name, x in model.weights["transformer"].items()}
    x = masked_L[:, None] * w["mask"]
    for n, codes_KxE in enumerate(map(np.asarray, model.codes_KxE)):
        centred_KxE = codes_KxE - codes_KxE.mean(axis=0)
        x = x + (centred_KxE / np.sqrt((centred_KxE**2).mean()))[codes_LxN[:, n]] @ w["project"][n]
    x = np.concatenate([w["cls"][None], x])
    for i in range(config.layers):
        h = normalised(x) * w["attention_norm"][i]
        q, k, v = np.moveaxis(np.tensordot(h, w["qkv"][i], 1), 1, 0)
        q, k = turned(q, config.rope_base), turned(k, config.rope_base)
        scores = softmax(np.einsum("lhc,mhc->hlm", q, k) / np.sqrt(q.shape[-1]))
        x = x + np.tensordot(np.einsum("hlm,mhc->lhc", scores, v), w["out"][i], 2)
        h = normalised(x) * w["mlp_norm"][i]
        x = x + gelu(h @ w["up"][i][:, 0]) @ w["down"][i]
    return (normalised(x) * w["norm"])[1:]


def log_probabilities(model: Pretrained, windows: list[np.ndarray], hidden: list[list[int]]) -> list[np.ndarray]:
    """ln p of A C G T at the hidden bases of each window, [M, 4]; they are as training cuts them, or to where the
    sequence ends."""
    seen = [window_S.copy() for window_S in windows]
    for seen_S, of_window in zip(seen, hidden):
        seen_S[of_window] = 4
    codes = [codes_LxN[: model.length] for codes_LxN in model.tokenizer.encode(seen)]
    return [_of_window(model, *each) for each in zip(codes, hidden)]


def _of_window(model: Pretrained, codes_LxN: np.ndarray, hidden: list[int]) -> np.ndarray:
    r, head = model.tokenizer.bases_per_code, model.weights["heads"]
    base_DxRx4, bias_Rx4 = np.asarray(head["base"], float), np.asarray(head["base_bias"])
    h_LxD = context(model, codes_LxN, np.isin(np.arange(len(codes_LxN)), [at // r for at in hidden]))
    return np.log(softmax(np.stack([h_LxD[at // r] @ base_DxRx4[:, at % r] + bias_Rx4[at % r] for at in hidden])))
