"""The comparison of DEHB with its controls, in small."""

import json

import pytest

pytest.importorskip("dehb")

from benchmarks.black_box import PROBLEMS, curves, main, ones  # noqa: E402


def test_losses_without_noise():
    config = {**{f"c{n}": 1 for n in range(8)}, **{f"p{n}": 0.5 for n in range(8)}}
    assert ones(config) == -0.75
    many = [ones(config, 200, seed) for seed in range(50)]
    # 8 means of 200 draws in 16 entries: a standard deviation of 0.0063.
    assert sum(many) / 50 == pytest.approx(-0.75, abs=4 * 0.0063 / 50**0.5)
    rates = (0.1, 0.03, 0.3, 0.01, 0.1, 0.2)
    best = {f"r{number}": rate for number, rate in enumerate(rates)}
    assert curves(best, 200) < curves({name: 1.0 for name in best}, 200)
    assert curves(best, 200) < curves(best, 22)
    assert curves(best, 200, seed=1) != curves(best, 200)


def test_it_writes_one_record_for_each_method(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.black_box.torch.set_num_threads", lambda n: None)
    main(["--quick", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["records"]) == 3 * len(PROBLEMS)
    assert {len(record["losses"]) for record in found["records"]} == {2}
    assert "dehb minus it" in capsys.readouterr().out
