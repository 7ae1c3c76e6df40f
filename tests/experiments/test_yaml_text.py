import json

import pytest

from l2l_evograd.experiments.yaml_text import from_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1e-3", {"a": 1e-3}),
        ("a: -1.5E+3", {"a": -1500.0}),
        ("a: .5", {"a": 0.5}),
        ("a: 010", {"a": 10}),  # as on the command line
        ("a: 1_000", {"a": "1_000"}),
        ("a: 0x10", {"a": "0x10"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 2020-01-01", {"a": "2020-01-01"}),
        ("a: .nan", {"a": ".nan"}),
        ("a: yes", {"a": "yes"}),
        ("no: off", {"no": "off"}),
        ("a: True", {"a": True}),
        ("a: ~", {"a": None}),
        ("a:", {"a": None}),
        ("a: '3'", {"a": "3"}),
        ('a: "true"', {"a": "true"}),
        ("a: |\n  3", {"a": "3"}),
        ("a: [1, b, 2.5, [true]]", {"a": [1, "b", 2.5, [True]]}),
        ("a:\n- 1\n- x: y", {"a": [1, {"x": "y"}]}),
        ("--- \na: 1\n...", {"a": 1}),
        ("%YAML 1.2\n---\na: 1", {"a": 1}),
        ("", None),
        ("# nothing", None),
        ("3", 3),
    ],
)
def test_values_are_those_of_yaml_1_2(text, value):
    found = from_yaml(text)
    assert found == value and repr(found) == repr(value)


def test_json_is_yaml():
    value = {"a": [1, 2.5, None, True, "yes", "é\n"], "b": {"c": {}}, "d": []}
    assert from_yaml(json.dumps(value)) == value


BILLION = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "line 2, 'a' is there several times"),
        (BILLION, "line 1, anchors and aliases"),
        ("a: 1\n<<: *x", "line 2, anchors and aliases"),
        ("a: !!python/object/apply:os.system [ls]", "line 1, tags are not read: 'tag"),
        ("a: !!int 3", "tags are not read"),
        ("!x {}", "tags are not read"),
        ("a: 1\n---\nb: 2", "line 2, a second document begins"),
        ("3: a", "line 1, expected a name before a colon, got 3"),
        ("yes: a\ntrue: b", "line 2, expected a name before a colon, got True"),
        ("? [a]\n: b", r"expected a name before a colon, got \['a'\]"),
        ("[" * 60000, "line 1, too nested"),
        ("- " * 30000, "line 1, too nested"),
        ("{a: " * 10000, "line 1, too nested"),
        ("a: " + "9" * 5000, "line 1, a number of 5000 digits"),
        ("a: b: c", "line 1, mapping values are not allowed here"),
        ("a: [1", "line 1, "),
        ("\ta: 1", "line 1, "),
        ("a: '", "line 1, "),
        ("a: \0", "special characters are not allowed"),
        ("%YAML 3.0\n---\na: 1", "line 1, found incompatible YAML document"),
        ("a: @b", "line 1, "),
    ],
)
def test_what_settings_do_not_need_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_yaml(text)
    assert len(str(caught.value).splitlines()) == 1
