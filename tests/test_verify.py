import doctest
import importlib
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from companion_lib import verify
from companion_lib.sections import UnknownSection
from companion_lib.verify import Claim, VerificationError, parse_claims

CHECKS = [
    lambda claim, **options: verify(claim, 1.0, 1.0, **options),
    lambda claim, **options: verify.below(claim, 1.0, 2.0, **options),
    lambda claim, **options: verify.above(claim, 3.0, 2.0, **options),
    lambda claim, **options: verify.true(claim, True, **options),
]


@pytest.fixture(autouse=True)
def no_claims(monkeypatch):
    monkeypatch.setattr(verify, "claims", [])


def failure(check, *args, **options):
    before = list(verify.claims)
    with pytest.raises(VerificationError) as caught:
        check("a claim", *args, **options)
    assert verify.claims == before
    return str(caught.value)


def double(value):
    return torch.tensor(value, dtype=torch.float64)


# What is printed


def test_the_printed_lines(capsys):
    verify("the residual is the sum", 2.0, 2.0, rtol=1e-10, source="pca")
    verify("by default", 2.0, 2.0)
    verify("an absolute tolerance", 0.0, 0.0, atol=1e-3, source="subspace")
    verify("both", 1.0, 1.0, rtol=1e-9, atol=0.25)
    verify("exactly", 3, 3, rtol=0)
    verify.below("an error", 0.01, 0.05, source="pca")
    verify.above("a rank", 3, 2)
    verify.true("a fact", True, source="pca")
    verify.true("a bare fact", True)
    assert capsys.readouterr().out.splitlines() == [
        "✓ the residual is the sum  [2.1.1 · rtol 1e-10]",
        "✓ by default  [rtol 1e-5]",
        "✓ an absolute tolerance  [2.1 · atol 0.001]",
        "✓ both  [rtol 1e-9 + atol 0.25]",
        "✓ exactly  [exact]",
        "✓ an error  [2.1.1 · below 0.05]",
        "✓ a rank  [above 2]",
        "✓ a fact  [2.1.1]",
        "✓ a bare fact",
    ]


@pytest.mark.parametrize("make", [torch.tensor, np.float64, np.float32, np.array])
def test_measured_numbers_are_not_printed(capsys, make):
    verify.below("an error", 0.01, make(0.123456), source="pca")
    verify.above("a gap", 1.0, make(0.123456))
    verify("a mean", 1.0, 1.01, rtol=0, atol=make(0.123456))
    verify("a ratio", 1.0, 1.01, rtol=make(0.123456))
    assert capsys.readouterr().out.splitlines() == [
        "✓ an error  [2.1.1 · below]",
        "✓ a gap  [above]",
        "✓ a mean  [atol]",
        "✓ a ratio  [rtol]",
    ]


def test_a_failing_claim_prints_and_records_nothing(capsys):
    failure(verify, 1.0, 2.0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("check", CHECKS)
def test_claims_are_recorded_in_order(check):
    check("first", source="pca")
    check("second")
    assert [claim.text for claim in verify.claims] == ["first", "second"]
    assert [claim.section for claim in verify.claims] == ["2.1.1", ""]


# Parsing


def test_parsing_skips_what_is_not_a_claim():
    text = "loss 0.25\n✓ one  [2.1.1 · rtol 1e-10]\n✓\n  ✓ indented\nx ✓ inside\n\n✓ two\n"
    assert parse_claims(text) == [Claim("one", "2.1.1", "rtol 1e-10"), Claim("two")]


def test_parsing_tells_sections_from_tolerances():
    assert parse_claims("✓ a  [A.1.3]") == [Claim("a", "A.1.3")]
    assert parse_claims("✓ a  [B]") == [Claim("a", "B")]
    assert parse_claims("✓ a  [8.10 · below 2]") == [Claim("a", "8.10", "below 2")]
    assert parse_claims("✓ a  [exact]") == [Claim("a", "", "exact")]
    assert parse_claims("✓ a [2.1] b [below]") == [Claim("a [2.1] b [below]")]


words = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=8
)


@given(
    text=st.lists(words, min_size=1, max_size=5).map(" ".join),
    source=st.sampled_from([None, "pca", "ch2", "appendix-a", "adam", "body-motion"]),
    rtol=st.floats(0, 0.99),
    atol=st.floats(0, 1e9),
)
def test_whatever_is_printed_parses_back_to_what_was_recorded(text, source, rtol, atol):
    for check in (
        lambda: verify(text, 1.0, 1.0, rtol=rtol, atol=atol, source=source),
        lambda: verify.below(text, -1.0, atol, source=source),
        lambda: verify.true(text, True, source=source),
    ):
        verify.claims.clear()
        check()
        assert parse_claims(f"before\n{verify.claims[0]}\nafter") == verify.claims
        assert verify.claims[0].text == text


@pytest.mark.parametrize(
    "text", ["", " ", "two\nlines", "two  spaces", " before", "after ", "a\tb"]
)
@pytest.mark.parametrize("check", CHECKS)
def test_a_claim_is_one_line(check, text):
    with pytest.raises(ValueError, match="one line of text"):
        check(text)


@pytest.mark.parametrize("check", CHECKS)
def test_an_unknown_section_is_refused(check):
    with pytest.raises(UnknownSection, match="did you mean 'pca'"):
        check("a claim", source="pcaa")


# Equality


@pytest.mark.parametrize("kind", [float, double, np.array, np.float64])
@pytest.mark.parametrize("other", [float, double, np.array, np.float64, lambda x: [x]])
def test_all_kinds_of_numbers_are_compared(kind, other):
    verify("equal", kind(0.1), other(0.1), rtol=0)
    failure(verify, kind(0.1), other(0.1 + 1e-12), rtol=1e-13)


def test_lists_keep_double_precision_and_may_hold_tensors():
    verify("a list of floats", [0.1, 0.2], torch.tensor([0.1, 0.2], dtype=torch.float64), rtol=0)
    verify("a list of tensors", [torch.tensor(1.0), torch.tensor(2.0)], [1, 2], rtol=0)
    failure(verify, [0.1], torch.tensor([0.1]), rtol=1e-10)  # float32 has 0.1 to 1e-8 only


def test_a_read_only_array_is_compared():
    array = np.ones(3)
    array.flags.writeable = False
    verify("ones", array, 1.0)


def test_gradients_and_half_precision_are_no_obstacle():
    verify("a parameter", torch.nn.Parameter(torch.ones(2)), torch.ones(2, dtype=torch.bfloat16))
    failure(verify, torch.ones(2, dtype=torch.float16), torch.tensor([1.0, 1.001]))


def test_integers_booleans_and_complex_numbers():
    verify("counts", torch.arange(3), np.arange(3), rtol=0)
    verify("flags", torch.tensor([True, False]), [1, 0], rtol=0)
    verify("spectrum", torch.tensor([1j, 1]), np.array([1j, 1]))
    failure(verify, 1j, -1j)
    failure(verify, torch.arange(3), torch.arange(3) + 1)


@pytest.mark.parametrize("make", [int, torch.tensor, np.int64, lambda x: [x]])
def test_exact_is_exact_for_large_integers(make):
    verify("equal", make(2**53 + 1), 2**53 + 1, rtol=0)
    assert f"lhs = {2**53 + 1}, rhs = {2**53}" in failure(verify, make(2**53 + 1), 2**53, rtol=0)
    verify("near", make(2**53 + 1), 2**53, rtol=1e-12)
    verify.below("below", 2**53, make(2**53 + 1))
    failure(verify.above, make(2**53), 2**53 + 1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint64, np.bool_])
def test_unsigned_integers_and_booleans_do_not_wrap_around(kind):
    assert "deviation 1" in failure(verify, kind(0), kind(1), rtol=0)
    verify("within one", kind(0), kind(1), atol=1)
    verify.below("below", kind(0), kind(1))


def test_integers_beyond_the_signed_range_are_refused():
    with pytest.raises(ValueError, match="lhs must fit in 64 bits with a sign"):
        verify("a claim", np.uint64(2**63), -(2**63), rtol=0)


def test_an_integer_meets_a_float_in_double_precision():
    failure(verify, torch.tensor(2**24 + 1), torch.tensor(2.0**24), rtol=0)


def test_reversed_and_big_endian_arrays_are_compared():
    array = np.arange(6.0).reshape(2, 3)
    verify("reversed rows", array[::-1], [[3, 4, 5], [0, 1, 2]], rtol=0)
    verify("reversed columns", array[:, ::-1], torch.tensor(array).flip(1), rtol=0)
    verify("big-endian", array.astype(">f8"), array, rtol=0)
    verify("big-endian counts", np.arange(3, dtype=">i4"), [0, 1, 2], rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_relative_tolerance_is_that_of_rhs(sign):
    rhs = 200.0 * sign
    verify("inside", rhs + 1.9, rhs, rtol=0.01)
    verify("inside", rhs - 1.9, rhs, rtol=0.01)
    failure(verify, rhs + 2.1, rhs, rtol=0.01)
    failure(verify, rhs - 2.1, rhs, rtol=0.01)


def test_tolerances_add_up():
    verify("inside", 102.9, 100.0, rtol=0.01, atol=2)
    failure(verify, 103.1, 100.0, rtol=0.01, atol=2)


def test_a_zero_is_checked_by_atol_alone():
    failure(verify, 1e-300, 0.0, rtol=0.5)
    verify("small", 1e-9, 0.0, atol=1e-8)


def test_atol_alone_allows_no_relative_slack():
    failure(verify, 1000.001, 1000.0, atol=1e-4)
    verify("near", 1000.00001, 1000.0, atol=1e-4)


def test_one_wrong_entry_is_enough():
    lhs = torch.ones(100, 100)
    lhs[17, 4] = 1.001
    assert "at index (17, 4)" in failure(verify, lhs, 1.0)


def test_the_message_has_both_values_and_the_worst_entry_that_fails():
    # The first entry deviates most, but within its tolerance.
    lhs, rhs = torch.tensor([1000.5, 1.0, 2.5]), torch.tensor([1000.0, 1.25, 2.0])
    message = failure(verify, lhs, rhs, rtol=1e-3)
    assert "not verified: a claim" in message
    assert "lhs = 2.5, rhs = 2.0" in message
    assert "largest deviation 0.5 at index (2,); 2 of 3 entries fail" in message
    assert "rtol 0.001" in message


def test_the_message_of_two_numbers_needs_no_index():
    message = failure(verify, 1.5, 1.0)
    assert "lhs = 1.5, rhs = 1.0" in message and message.endswith("deviation 0.5")


@pytest.mark.parametrize("atol", [0.0, 1e300])
def test_nan_fails_on_either_side_and_both(atol):
    nan = torch.tensor([0.0, math.nan])
    for lhs, rhs in [(nan, torch.zeros(2)), (torch.zeros(2), nan), (nan, nan)]:
        assert "at index (1,)" in failure(verify, lhs, rhs, atol=atol)


def test_infinity_equals_only_itself():
    verify("infinite", [math.inf, -math.inf], [math.inf, -math.inf])
    failure(verify, math.inf, -math.inf, atol=1e300)
    failure(verify, 1.0, math.inf, rtol=0.9)
    failure(verify, math.inf, 1.0, rtol=0.9)


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (3, 2)), ((3,), (1, 3)), ((2, 1), (2, 3)), ((1,), (3,))]
)
@pytest.mark.parametrize("check", [verify, verify.below, verify.above])
def test_shapes_must_agree(check, left, right):
    message = failure(check, torch.ones(left), torch.ones(right))
    assert str(left) in message and str(right) in message


def test_a_single_number_is_compared_with_every_entry():
    verify("ones", torch.ones(2, 3), 1)
    verify("ones", torch.tensor(1.0), np.ones(3))
    failure(verify, torch.tensor([1.0, 2.0]), 1)


@pytest.mark.parametrize("check", [verify, verify.below, verify.above])
def test_nothing_to_compare_is_a_failure(check):
    assert "nothing to compare" in failure(check, torch.empty(0, 3), torch.empty(0, 3))
    assert "nothing to compare" in failure(check, [], 1.0)


@pytest.mark.parametrize("options", [{"rtol": -1e-9}, {"rtol": 1.0}, {"rtol": math.nan}])
@pytest.mark.parametrize("wrong", [{}, {"atol": -1.0}, {"atol": math.inf}, {"atol": math.nan}])
def test_a_tolerance_that_cannot_fail_is_refused(options, wrong):
    with pytest.raises(ValueError, match="rtol must be in"):
        verify("a claim", 1.0, 1.0, **(wrong or options))


@pytest.mark.parametrize("value", ["1", None, {1.0}])
@pytest.mark.parametrize("check", [verify, verify.below, verify.above])
def test_other_objects_are_a_type_error(check, value):
    with pytest.raises(TypeError, match="must be a tensor, an array or a number"):
        check("a claim", value, 1.0)


# Bounds and facts


def test_bounds_are_strict():
    assert "value = 1.0, bound = 1.0; must be below" in failure(verify.below, 1.0, 1.0)
    assert "value = 1.0, bound = 1.0; must be above" in failure(verify.above, 1.0, 1.0)
    verify.below("below", 1.0, 1.0 + 1e-15)
    verify.above("above", 1.0 + 1e-15, 1.0)


def test_bounds_hold_for_every_entry():
    values = torch.tensor([[1.0, 2.0], [3.0, 9.0]])
    verify.below("below", values, 10)
    verify.above("above", values, values - 1)
    message = failure(verify.below, values, 2.5)
    assert "value = 9.0, bound = 2.5" in message
    assert "largest deviation 6.5 at index (1, 1); 2 of 4 entries fail" in message
    assert "at index (0, 0); 1 of 4" in failure(verify.above, values, 1.5)


@pytest.mark.parametrize("check", [verify.below, verify.above])
def test_nan_is_neither_below_nor_above(check):
    failure(check, math.nan, 0.0)
    failure(check, 0.0, math.nan)


def test_complex_numbers_have_no_order():
    with pytest.raises(TypeError, match="complex"):
        verify.below("a claim", 1j, 2.0)


@pytest.mark.parametrize("kind", [bool, torch.tensor, np.array, np.bool_, lambda x: [True, x]])
def test_facts_must_be_true(kind):
    verify.true("a fact", kind(True))
    failure(verify.true, kind(False))


def test_a_fact_fails_at_its_first_false_entry():
    message = failure(verify.true, torch.tensor([[True, False], [False, True]]))
    assert "at index (0, 1); 2 of 4 entries fail" in message
    assert "nothing to compare" in failure(verify.true, torch.ones(0, dtype=torch.bool))


@pytest.mark.parametrize("condition", [1, 1.0, torch.ones(2), np.array([0, 1])])
def test_a_number_is_not_a_fact(condition):
    with pytest.raises(TypeError, match="condition must be boolean"):
        verify.true("a fact", condition)


def test_failures_are_assertion_errors():
    with pytest.raises(AssertionError):
        verify("a claim", 1, 2)


@pytest.mark.parametrize("name", ["verify", "sections", "scale", "plotting", "data"])
def test_the_examples_in_the_docstrings_run(name):
    module = importlib.import_module(f"companion_lib.{name}")
    assert doctest.testmod(module).failed == 0
