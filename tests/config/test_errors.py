from entrepot.config.errors import ConfigError


def test_one_problem_is_the_message() -> None:
    assert str(ConfigError(["a"])) == "a"


def test_more_problems_are_counted() -> None:
    refusal = ConfigError(["a", "b", "c"])
    assert str(refusal) == "a (and 2 more: see `entrepot config check`)"
    assert refusal.problems == ("a", "b", "c")
