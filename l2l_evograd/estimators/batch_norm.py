"""Batch normalisation for forward over reverse, by torch's fused kernels.

torch takes the tangent of batch normalisation, and of its backward pass, apart into
some thirty elementwise operations. Both are sums of a few results of fused kernels.

With mean m, r = 1/√(var + eps) and x̂ = (x − m) r per channel, let

    P(u) = u − mean(u) − x̂ · mean(u x̂),

so that the fused backward kernel returns w r P(g), and ẋ̂ = r P(ẋ). Then

    y  = w x̂ + b                 ẏ  = w r P(ẋ) + ẇ x̂ + ḃ
    gx = w r P(g)                ġx = w r P(ġ) + (w r)˙ P(g) − w r [a ẋ̂ + e x̂]
    gw = Σ g x̂                   ġw = Σ (ġ x̂ + g ẋ̂)

with a = mean(g x̂), e = mean(g ẋ̂) and ṙ = −r² mean(x̂ ẋ).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_aten = torch.ops.aten


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    """Return what ``aten::native_batch_norm`` returns, the statistics left out.

    Cost: in training mode, one fused kernel. Its tangent takes one fused kernel and two
    sweeps, the backward pass one fused kernel, and the tangent of that three fused
    kernels and seven sweeps.
    """
    if not training:
        given = (x, weight, bias, running_mean, running_var)
        y, *_ = _aten.native_batch_norm.default(*given, False, momentum, eps)
        return (y,)
    channels = x.shape[1]
    dtype = x.dtype if weight is None else weight.dtype
    ones = torch.ones(channels, dtype=dtype, device=x.device)
    scale = ones if weight is None else weight
    shift = torch.zeros_like(ones) if bias is None else bias
    y, *_ = _Forward.apply(x, scale, shift, running_mean, running_var, momentum, eps)
    return (y,)


class _Forward(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w: Tensor,
        b: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        given = (x, w, b, running_mean, running_var)
        y, mean, r = _aten.native_batch_norm.default(*given, True, momentum, eps)
        ctx.mark_non_differentiable(mean, r)
        ctx.save_for_backward(x, w, mean, r)
        ctx.save_for_forward(x, w, mean, r)
        ctx.eps = eps
        return y, mean, r

    @staticmethod
    def jvp(
        ctx: Any, dx: Tensor | None, dw: Tensor | None, db: Tensor | None, *_: Any
    ) -> tuple[Tensor, None, None]:
        x, w, mean, r = ctx.saved_tensors
        dy = torch.zeros_like(x) if dx is None else _projected(dx, x, w, mean, r)
        if dw is not None:
            dy.addcmul_(x, _spread(dw * r, x)).sub_(_spread(dw * r * mean, x))
        if db is not None:
            dy.add_(_spread(db, x))
        return dy, None, None

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Any, ...]:
        x, w, mean, r = ctx.saved_tensors
        return *_Backward.apply(g, x, w, mean, r), None, None, None, None


class _Backward(Function):
    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        gx, gw, gb = _kernel(g, x, w, mean, r)
        ctx.save_for_forward(g, x, w, mean, r, gw)
        return gx, gw, gb

    @staticmethod
    def jvp(
        ctx: Any, dg: Tensor | None, dx: Tensor | None, dw: Tensor | None, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        g, x, w, mean, r, gw = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        dgx, dgw, dgb = torch.zeros_like(g), torch.zeros_like(gw), torch.zeros_like(gw)
        if dg is not None:
            dgx, dgw, dgb = _kernel(dg, x, w, mean, r)
        change = torch.zeros_like(r) if dw is None else dw * r  # (w r)˙
        if dx is not None:
            ones = torch.ones_like(w)
            dhat, along, _ = _kernel(dx, x, ones, mean, r)  # ẋ̂, and Σ ẋ x̂
            change = change - w * r * r * along / count
            both = (g * dhat).sum([d for d in range(x.dim()) if d != 1], dtype=r.dtype)
            dgw = dgw + both
            dgx.sub_(dhat.mul_(_spread(w * r * gw / count, x)))
            factor = w * r * r * both / count
            dgx.sub_(_spread(-factor * mean, x)).addcmul_(x, _spread(-factor, x))
        if dx is not None or dw is not None:
            # The kernel multiplies by r once more.
            dgx.add_(_projected(g, x, change / r, mean, r))
        return dgx, dgw, dgb


def _kernel(
    g: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return w r P(g), Σ g x̂ and Σ g, by the fused kernel."""
    found: tuple[Tensor, Tensor, Tensor] = _aten.native_batch_norm_backward.default(
        g, x, w, None, None, mean, r, True, 0.0, [True, True, True]
    )
    return found


def _projected(g: Tensor, x: Tensor, w: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """Return w r P(g)."""
    return _kernel(g, x, w, mean, r)[0]


def _spread(channels: Tensor, x: Tensor) -> Tensor:
    """Return numbers of channels in the shape that multiplies activations."""
    return channels.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2))


#: What stands in for a call of a replay by forward mode.
INSTEAD = {
    _aten.native_batch_norm.default: batch_norm,
    _aten.cudnn_batch_norm.default: batch_norm,
}
