from l2l_evograd.experiments.processes import console_of, leads


def test_a_scheduler_that_numbers_independent_runs_does_not_silence_them(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert leads(1) and not leads(2)
    assert console_of(2, None).quiet and not console_of(1, None).quiet
    monkeypatch.delenv("RANK")
    assert leads(2)
