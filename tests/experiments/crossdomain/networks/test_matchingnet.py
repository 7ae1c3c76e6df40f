import math

import pytest
import torch
from small_heads import (
    CHANNELS,
    QUERY_Y,
    SUPPORT_Y,
    WAYS,
    small_head,
    small_maps,
)
from torch import nn
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("float64")


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def stepped(lstm, inputs, state, cell):
    """One step of an LSTM, number by number."""
    gates = []
    for row in range(4 * CHANNELS):
        total = float(lstm.bias_ih[row] + lstm.bias_hh[row])
        total += dot(lstm.weight_ih[row].tolist(), inputs)
        total += dot(lstm.weight_hh[row].tolist(), state)
        gates.append(total)
    new_state, new_cell = [], []
    for k in range(CHANNELS):
        enter, forget = sigmoid(gates[k]), sigmoid(gates[CHANNELS + k])
        value = math.tanh(gates[2 * CHANNELS + k])
        leave = sigmoid(gates[3 * CHANNELS + k])
        new_cell.append(forget * cell[k] + enter * value)
        new_state.append(leave * math.tanh(new_cell[k]))
    return new_state, new_cell


def read_over(lstm, sequence):
    state, cell = [0.0] * CHANNELS, [0.0] * CHANNELS
    outputs = []
    for item in sequence:
        state, cell = stepped(lstm, item, state, cell)
        outputs.append(state)
    return outputs


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax(values):
    shifted = [math.exp(value - max(values)) for value in values]
    return [value / sum(shifted) for value in shifted]


def transcribed(head, support, query):
    """The scores by the paper's equations, in Python's own numbers."""
    plain = [m.mean((1, 2)).tolist() for m in support]
    ahead = read_over(head.forwards, plain)
    back = read_over(head.backwards, plain[::-1])[::-1]
    context = [
        [p + a + b for p, a, b in zip(*vectors, strict=True)]
        for vectors in zip(plain, ahead, back, strict=True)
    ]
    rows = []
    for maps in query:
        own = maps.mean((1, 2)).tolist()
        state, cell = own, [0.0] * CHANNELS
        for _ in range(len(context)):
            shares = softmax([dot(state, item) for item in context])
            read = [
                sum(a * item[k] for a, item in zip(shares, context, strict=True))
                for k in range(CHANNELS)
            ]
            out, cell = stepped(head.attend, own + read, state, cell)
            state = [h + f for h, f in zip(out, own, strict=True)]
        cosines = [
            dot(state, item) / math.sqrt(dot(state, state) * dot(item, item))
            for item in context
        ]
        attention = softmax([100 * max(0.0, cosine) for cosine in cosines])
        row = [1e-6] * WAYS
        for share, label in zip(attention, SUPPORT_Y.tolist(), strict=True):
            row[label] += share
        rows.append([math.log(value) for value in row])
    return torch.tensor(rows)


def test_scores_equal_the_equations_number_by_number():
    head = small_head("matchingnet")
    support, query = small_maps(1, 6), small_maps(2, 5)
    got = head(support, SUPPORT_Y, query, WAYS)
    with torch.no_grad():
        expected = transcribed(head, support, query)
    assert torch.allclose(got, expected, rtol=1e-10, atol=1e-10)
    assert expected.std() > 0.1


def test_the_support_is_read_as_a_bidirectional_lstm_of_torch_reads_it():
    head = small_head("matchingnet")
    reference = nn.LSTM(CHANNELS, CHANNELS, bidirectional=True)
    for cell, ending in ((head.forwards, "l0"), (head.backwards, "l0_reverse")):
        for name, parameter in cell.named_parameters():
            getattr(reference, f"{name}_{ending}").data.copy_(parameter)
    features = small_maps(1, 6).mean((2, 3))
    both = reference(features)[0]
    expected = features + both[:, :CHANNELS] + both[:, CHANNELS:]
    assert torch.allclose(head.embed_support(features), expected, rtol=1e-10)


def test_scores_are_logarithms_of_probabilities():
    head = small_head("matchingnet")
    scores = head(small_maps(1, 6), SUPPORT_Y, small_maps(2, 5), WAYS)
    sums = scores.exp().sum(1)
    assert torch.allclose(sums, torch.full((5,), 1 + WAYS * 1e-6), rtol=1e-12)
    likelihood = F.nll_loss(scores, QUERY_Y) + math.log(1 + WAYS * 1e-6)
    assert torch.allclose(F.cross_entropy(scores, QUERY_Y), likelihood, rtol=1e-12)


def test_a_class_without_attention_has_a_finite_score_and_gradient():
    head = small_head("matchingnet").float()
    support = 20 * (small_maps(1, 6).float() - 0.5)
    query = support.clone().requires_grad_()
    scores = head(support, SUPPORT_Y, query, WAYS)
    # In float32 the attention that cosines of 0 and less get beside one of 1 is 0.
    least, wrong = scores.detach().min(1)
    assert least.min() == pytest.approx(math.log(1e-6), rel=1e-3)
    loss = F.cross_entropy(scores, wrong)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(query.grad).all()
