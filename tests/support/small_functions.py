"""Functions of a matrix (4, 4) and a vector (4,) that are computed in many ways."""

import torch
from torch.nn import functional as F


def arithmetic(w, v):
    return ((w @ w.T).tanh() * v[0] + 2 / (1 + v.square())).mean()


def several_results(w, v):
    values, places = w.max(dim=0)
    first, second = w.split(2)
    top = torch.topk(v, 2)
    a, b, c, d = w.unbind()
    chosen = w.T.gather(1, places[:, None]).sum() + top.values.prod()
    return (values * v).sum() + (first * second).mean() + chosen + (a * b - c / d).sum()


def lists_of_tensors(w, v):
    sums = torch._foreach_add([w, w.T], [w * v, w * 2])
    torch._foreach_mul_(sums, [v, v.exp()])
    joined = torch.cat([torch.stack(sums).flatten(), v])
    return (joined * joined.roll(1)).mean() + torch.einsum("ij,j,i->", w, v, v)


def writes_to_results(w, v):
    out = w * 1
    out.mul_(v).add_(w, alpha=0.5)
    out[0] = out[1] * 2
    out[out > 0.5] = 0.5
    out.index_add_(0, torch.tensor([0, 2]), w[:2])
    out.masked_fill_(out < -0.5, -1.0)
    return out.square().mean() + out.sum()


def writes_through_views(w, v):
    out = w * 1
    row, column = out[0], out.t()[1]
    before = column.exp()
    row.mul_(v)
    out.view(-1)[::2].add_(1)
    out[1:3][:, 1:].diagonal().copy_(v[:2])
    return (before * column).mean() + out.square().sum() + row.prod()


def writes_to_fresh_tensors(w, v):
    losses = torch.zeros(3)
    for i in range(3):
        losses[i] = (w[i] * v).sum().tanh()
        losses[i] += v[i]
    total = torch.zeros(())
    total += losses.prod()
    total -= w.mean()
    return total + losses.square().sum()


def a_view_older_than_the_write_to_its_base(w, v):
    buffer = torch.ones(4, 4)
    half = buffer[:2]
    half += v
    corner = half[:, 2:]
    buffer *= w
    corner += 1
    return half.square().mean() + corner.prod() + buffer.sum()


def an_older_view_that_a_write_reads_first(w, v):
    buffer = torch.zeros(4, 4)
    row = buffer[1]
    buffer += w
    out = w * v
    out[2] = row
    return out.tanh().mean()


def a_base_that_is_gone(w, v):
    out = w * 1
    row = out[0]
    del out
    row.mul_(v)
    return row._base.square().mean() + row.sum()


def complex_numbers(w, v):
    spectrum = torch.fft.rfft(w * v)
    return torch.view_as_real(spectrum * spectrum.conj()).square().mean().sqrt()


def a_gradient_inside(w, v):
    inputs = (w * 1).tanh()
    value = (inputs * v).square().sum()
    (slope,) = torch.autograd.grad(value, inputs, create_graph=True)
    return slope.norm() + value * 0.1


def keyword_arguments(w, v):
    scaled = F.linear(input=w, weight=w, bias=v)
    return (
        F.layer_norm(scaled, (4,), weight=v, bias=v).square().mean()
        + torch.where(condition=w > 0, input=w, other=v).sum()
    )


CASES = [
    arithmetic,
    several_results,
    lists_of_tensors,
    writes_to_results,
    writes_through_views,
    writes_to_fresh_tensors,
    a_view_older_than_the_write_to_its_base,
    an_older_view_that_a_write_reads_first,
    a_base_that_is_gone,
    complex_numbers,
    a_gradient_inside,
    keyword_arguments,
]
# Their masks and places are constants to autograd, and held where those are.
WITH_KINKS = [several_results, writes_to_results, keyword_arguments]
