from bibench_train.errors import UnknownNameError


def test_unknown_name_lists_the_valid_ones_and_the_nearest() -> None:
    error = UnknownNameError("algorithm", "reaktnet", ["bnn", "reactnet"])
    assert str(error) == (
        'unknown algorithm "reaktnet" (did you mean "reactnet"?); one of: bnn, reactnet'
    )


def test_unknown_name_guesses_nothing_where_nothing_is_near() -> None:
    assert "did you mean" not in str(UnknownNameError("dataset", "zzz", ["digits"]))
