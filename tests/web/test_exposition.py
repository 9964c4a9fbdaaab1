"""The text format of Prometheus."""

from entrepot.web.exposition import Family, one, text


def test_a_family() -> None:
    family = Family("name_total", "counter", 'Help "here",\nand \\there.', (one(3, b="x", a="y"), one(2.5)))
    assert text([family]) == (
        '# HELP name_total Help "here",\\nand \\\\there.\n'
        "# TYPE name_total counter\n"
        'name_total{a="y",b="x"} 3\n'
        "name_total 2.5\n"
    )


def test_what_could_break_out_of_a_label_does_not() -> None:
    family = Family("name", "gauge", "x", (one(1, label='a"} 5\nother{x="\\'),))
    assert text([family]).splitlines()[-1] == 'name{label="a\\"} 5\\nother{x=\\"\\\\"} 1'


def test_what_has_no_samples_is_left_out() -> None:
    assert text([Family("name", "gauge", "x", ())]) == ""


def test_large_numbers_are_whole() -> None:
    assert text([Family("name", "gauge", "x", (one(float(1 << 60)),))]).endswith(f" {1 << 60}\n")
