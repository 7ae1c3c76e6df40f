"""What ``l2l_evograd.oracle`` exports."""

import l2l_evograd.oracle as oracle


def test_the_public_names_are_pinned() -> None:
    assert oracle.__all__ == [
        "compare",
        "exact_hypergradient",
        "hypergradcheck",
        "Comparison",
        "Descent",
        "Fidelity",
        "Figure",
        "MethodRecord",
        "HypergradcheckError",
    ]
    assert all(hasattr(oracle, name) for name in oracle.__all__)
