import math

import pytest
import torch
from small_heads import SUPPORT_Y, WAYS, small_head, small_maps

pytestmark = pytest.mark.usefixtures("float64")


def normed(vector, norm):
    """Batch norm of one vector in evaluation."""
    return [
        (x - float(m)) / math.sqrt(float(v) + norm.eps) * float(w) + float(b)
        for x, m, v, w, b in zip(
            vector,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            strict=True,
        )
    ]


def leaky(vector):
    return [x if x > 0 else 0.01 * x for x in vector]


def times(matrix, vector):
    return (matrix @ torch.tensor(vector)).tolist()


def new_numbers(layer, nodes):
    """W [x, A x] of every node, one pair of nodes after the other."""
    parts = list(layer.compare)
    rows = []
    for i, node in enumerate(nodes):
        alike = []
        for j, other in enumerate(nodes):
            if i == j:
                alike.append(None)
                continue
            vector = [abs(a - b) for a, b in zip(node, other, strict=True)]
            for k in range(0, len(parts) - 1, 3):
                vector = times(parts[k].weight[:, :, 0, 0], vector)
                vector = leaky(normed(vector, parts[k + 1]))
            alike.append(times(parts[-1].weight[:, :, 0, 0], vector)[0])
        total = sum(math.exp(value) for value in alike if value is not None)
        near = [0.0] * len(node)
        for value, other in zip(alike, nodes, strict=True):
            if value is not None:
                share = math.exp(value) / total
                near = [n + share * x for n, x in zip(near, other, strict=True)]
        bias = layer.mix.bias
        row = times(layer.mix.weight, node + near)
        if bias is not None:
            row = [x + float(b) for x, b in zip(row, bias, strict=True)]
        rows.append(row)
    return rows


def transcribed(head, support, query):
    linear, norm = head.project
    images = [
        normed(times(linear.weight, maps.flatten().tolist()), norm)
        for maps in [*support, *query]
    ]
    known = [
        image + [1.0 if label == c else 0.0 for c in range(WAYS)]
        for image, label in zip(images[:6], SUPPORT_Y.tolist(), strict=True)
    ]
    scores = []
    for image in images[6:]:
        nodes = [*known, image + [1 / WAYS] * WAYS]
        for layer, norm in zip(head.layers, head.norms, strict=True):
            new = new_numbers(layer, nodes)
            nodes = [
                node + leaky(normed(row, norm))
                for node, row in zip(nodes, new, strict=True)
            ]
        scores.append(new_numbers(head.last, nodes)[-1])
    return torch.tensor(scores)


def test_scores_equal_loops_over_queries_nodes_and_pairs():
    head = small_head("gnn").eval()
    support, query = small_maps(1, 6), small_maps(2, 2)
    with torch.no_grad():
        got = head(support, SUPPORT_Y, query, WAYS)
        expected = transcribed(head, support, query)
    assert torch.allclose(got, expected, rtol=1e-10, atol=1e-10)
    assert expected.std() > 1e-3


def test_nodes_know_the_classes_of_the_support_images_alone():
    head = small_head("gnn")
    nodes = head.first_nodes(small_maps(1, 6), SUPPORT_Y, small_maps(2, 5))
    assert nodes.shape == (5, 7, 128 + WAYS)
    assert torch.equal(nodes[:, :6, 128:].argmax(2), SUPPORT_Y.expand(5, -1))
    assert torch.equal(nodes[:, :6, 128:].sum(2), torch.ones(5, 6))
    assert torch.equal(nodes[:, 6, 128:], torch.full((5, WAYS), 1 / WAYS))


def test_a_node_is_near_to_others_only():
    head = small_head("gnn")
    nodes = head.first_nodes(small_maps(1, 6), SUPPORT_Y, small_maps(2, 5))
    near = head.layers[0].adjacency(nodes)
    assert near.shape == (5, 7, 7)
    assert torch.allclose(near.sum(2), torch.ones(5, 7))
    assert torch.equal(near.diagonal(dim1=1, dim2=2), torch.zeros(5, 7))
    assert (near + torch.eye(7) > 0).all()


def test_the_widths_are_those_of_the_benchmark():
    head = small_head("gnn")
    kernels = [p for p in head.last.compare.parameters() if p.dim() == 4]
    assert [kernel.shape[0] for kernel in kernels] == [192, 192, 96, 96, 1]
    widths = [128 + WAYS, 128 + WAYS + 48, 128 + WAYS + 96]
    layers = [*head.layers, head.last]
    assert [layer.mix.in_features for layer in layers] == [2 * w for w in widths]
    assert [layer.mix.out_features for layer in layers] == [48, 48, WAYS]


def test_episodes_of_other_ways_are_refused():
    with pytest.raises(ValueError, match="for 3 ways, got an episode with 5"):
        small_head("gnn")(small_maps(1, 6), SUPPORT_Y, small_maps(2, 5), 5)
