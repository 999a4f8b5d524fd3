"""What an adapter adds to the weights of one module, by its algorithm: runs in a worker process.

As A1111 and ComfyUI compute it, so that an adapter does here what people saw it do there: scaled by alpha / rank, once, and
linear in its weight, down to nothing at 0. All in 32 bits. Shapes are checked before anything is multiplied: what a file
says may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch

Parts = Mapping[str, torch.Tensor]
Change = tuple[torch.Tensor | None, torch.Tensor | None]
"""What is added to a module's weight, and to its bias."""


class Unfit(Exception):
    """The parts do not fit the module, or each other."""


def change(
    kind: str, parts: Parts, weight: torch.Tensor, bias: torch.Tensor | None, scale: float | None = None
) -> Change:
    """At weight 1. ``weight``, ``bias``: of the module as it came; ``scale`` in place of alpha / rank, where a file says so.

    Raises:
        Unfit.
    """
    more = parts.get("b_norm" if kind == "norm" else "diff_b")
    _must(more is None or (bias is not None and more.shape == bias.shape))
    if kind in {"full", "norm"}:
        whole = parts.get("w_norm" if kind == "norm" else "diff")
        return (None if whole is None else _shaped(whole, weight)), more
    _must(weight.dim() >= 2)
    delta = _shaped(_ADDED[kind](parts, weight, scale), weight)
    if "dora" in parts:
        delta = _decomposed(weight + delta, parts["dora"]) - weight
    return delta, more


def _shaped(delta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    _must(delta.numel() == weight.numel())
    return delta.reshape(weight.shape)


def _must(fits: bool) -> None:
    if not fits:
        raise Unfit


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    _must(tensor.dim() >= 2 and tensor.numel() > 0)
    return tensor.flatten(1)


def _scale(parts: Parts, rank: int, scale: float | None) -> float:
    if scale is not None:
        return scale
    alpha = parts.get("alpha")
    if alpha is None:
        return 1.0
    _must(alpha.numel() == 1)
    return float(alpha) / rank or 1.0  # trainers mean by 0: not scaled


def _product(left: torch.Tensor, right: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    left, right = _flat(left), _flat(right)
    _must(left.shape[1] == right.shape[0] and left.shape[0] * right.shape[1] == weight.numel())
    return left @ right


def _tucker(middle: torch.Tensor, out: torch.Tensor, into: torch.Tensor, size: int) -> torch.Tensor:
    """``middle`` of (rank, rank, ...), ``out`` of (rank, outputs), ``into`` of (rank, inputs)."""
    out, into = _flat(out), _flat(into)
    _must(middle.dim() >= 2 and middle.shape[:2] == (out.shape[0], into.shape[0]))
    _must(out.shape[1] * into.shape[1] * prod(middle.shape[2:]) == size)
    return torch.einsum("ij...,ip,jr->pr...", middle, out, into)


def _lora(parts: Parts, weight: torch.Tensor, scale: float | None) -> torch.Tensor:
    up, down = parts["up"], parts["down"]
    middle = parts.get("mid")
    down = down * _scale(parts, down.shape[0], scale)  # the smallest that there is to be scaled
    return _product(up, down, weight) if middle is None else _tucker(middle, _flat(up).t(), down, weight.numel())


def _loha(parts: Parts, weight: torch.Tensor, scale: float | None) -> torch.Tensor:
    halves = []
    for half in "12":
        a, b, t = (parts.get(name) for name in (f"hada_w{half}_a", f"hada_w{half}_b", f"hada_t{half}"))
        if a is None or b is None:
            raise Unfit
        halves.append(_product(a, b, weight) if t is None else _tucker(t, a, b, weight.numel()))
    _must(halves[0].shape == halves[1].shape)
    return halves[0].mul_(halves[1]).mul_(_scale(parts, parts["hada_w1_b"].shape[0], scale))


def _lokr(parts: Parts, weight: torch.Tensor, scale: float | None) -> torch.Tensor:
    size = weight.numel()
    rank = 0
    halves = []
    for half in "12":
        whole, a, b = (parts.get(f"lokr_w{half}{end}") for end in ("", "_a", "_b"))
        if whole is None:
            if a is None or b is None:
                raise Unfit
            rank = b.shape[0]
            if half == "2" and "lokr_t2" in parts:
                a, b = _flat(a), _flat(b)
                made = a.shape[1] * b.shape[1] * prod(parts["lokr_t2"].shape[2:])
                _must(made <= size)
                whole = _tucker(parts["lokr_t2"], a, b, made)
            else:
                a, flat = _flat(a), _flat(b)
                _must(a.shape[1] == flat.shape[0] and a.shape[0] * flat.shape[1] <= size)
                whole = (a @ flat).reshape(a.shape[0], *b.shape[1:])
        halves.append(whole)
    first, second = halves
    _must(first.dim() == 2 and second.dim() >= 2 and first.numel() * second.numel() == size)
    first = first.reshape(*first.shape, *(1 for _ in second.shape[2:]))
    return torch.kron(first, second.contiguous()) * (_scale(parts, rank, scale) if rank else 1.0)


def _oft(parts: Parts, weight: torch.Tensor, scale: float | None) -> torch.Tensor:
    """Rotations of blocks of the outputs; butterflies of several (BOFT) are four-dimensional."""
    del scale
    blocks = parts["oft_blocks"]
    _must(blocks.dim() in {3, 4} and blocks.shape[-1] == blocks.shape[-2] and blocks.numel() > 0)
    size = blocks.shape[-1]
    _must(blocks.shape[-3] * size == weight.shape[0])
    skew = blocks - blocks.transpose(-1, -2)
    most = float(parts["alpha"]) * weight.shape[0] if "alpha" in parts and parts["alpha"].numel() == 1 else 0.0
    norm = float(skew.norm()) + 1e-8
    if 0 < most < norm:
        skew = skew * (most / norm)
    unit = torch.eye(size, device=weight.device)
    rotations = (unit + skew) @ torch.linalg.inv(unit - skew)
    turned = weight
    if blocks.dim() == 3:
        split = turned.reshape(blocks.shape[0], size, -1)
        turned = torch.einsum("knm,kni->kmi", rotations, split).reshape(weight.shape)
    else:
        rows, width = weight.shape[0], weight.flatten(1).shape[1]
        for stage, rotation in enumerate(rotations):
            half = 2**stage * (size // 2)
            _must(half > 0 and rows % (2 * half) == 0)
            mixed = turned.reshape(-1, 2, half, width).transpose(1, 2).reshape(-1, size, width)
            mixed = torch.einsum("bij,bjk->bik", rotation, mixed)
            turned = mixed.reshape(-1, half, 2, width).transpose(1, 2)
        turned = turned.reshape(weight.shape)
    if "rescale" in parts:
        _must(parts["rescale"].numel() == weight.shape[0])
        turned = turned * parts["rescale"].reshape(-1, *(1 for _ in weight.shape[1:]))
    return turned - weight


def _glora(parts: Parts, weight: torch.Tensor, scale: float | None) -> torch.Tensor:
    if not {"a1", "a2", "b1", "b2"} <= parts.keys() or "bm" in parts:
        raise Unfit
    a1, a2 = _flat(parts["a1"]), _flat(parts["a2"])
    _must(a1.shape[0] == weight.shape[1] == a2.shape[1] and a1.shape[1] == a2.shape[0])
    added = _product(parts["b1"], parts["b2"], weight).reshape(weight.shape)
    through = torch.einsum("oi...,ij,jk->ok...", weight, a1, a2)
    return (added + through) * _scale(parts, a2.shape[0], scale)


def _ia3(parts: Parts, weight: torch.Tensor, scale: float | None) -> torch.Tensor:
    del scale
    on_input = bool(parts["on_input"].flatten()[0]) if parts["on_input"].numel() else False
    sides = (1, -1) if on_input else (-1, 1)
    _must(parts["weight"].numel() == weight.shape[1 if on_input else 0])
    return weight * parts["weight"].reshape(*sides, *(1 for _ in weight.shape[2:]))


def _decomposed(merged: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """DoRA: the directions of ``merged``, as long as the file says, by outputs or by inputs."""
    by_output = magnitude.dim() < 2 or magnitude.shape[0] == merged.shape[0] != 1
    if by_output:
        _must(magnitude.numel() == merged.shape[0])
        sides = (-1, *(1 for _ in merged.shape[1:]))
        length = merged.flatten(1).norm(dim=1)
    else:
        _must(magnitude.numel() == merged.shape[1])
        sides = (1, -1, *(1 for _ in merged.shape[2:]))
        length = merged.transpose(0, 1).flatten(1).norm(dim=1)
    grown: torch.Tensor = magnitude.flatten() / (length + torch.finfo(merged.dtype).eps)
    return merged * grown.reshape(sides)


_ADDED: dict[str, Callable[[Parts, torch.Tensor, float | None], torch.Tensor]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "oft": _oft,
    "glora": _glora,
    "ia3": _ia3,
}
