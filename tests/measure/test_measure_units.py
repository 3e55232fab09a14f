"""Amounts as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import SettingError
from shoestring.measure import parse, written
from shoestring.measure.units import Unit


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("5 min", "s", 300),
        ("1h30min", "s", 5400),
        ("2 min 05 s", "s", 125),
        ("0.5 h", "s", 1800),
        ("2 days", "s", 172800),
        (300, "s", 300),
        ("300", "s", 300),
        ("8 GB", "B", 8e9),
        ("8gib", "B", 8 * 2**30),
        ("512M", "B", 512e6),
        ("1kWh", "J", 3.6e6),
        ("500 kJ", "J", 5e5),
        ("$20", "USD", 20),
        ("$1,500.50", "USD", 1500.5),
        ("20 USD", "USD", 20),
        ("50 cents", "USD", 0.5),
    ],
)
def test_amounts_are_read(text: str, unit: str, value: float) -> None:
    assert parse(text, unit, "budget") == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("5 mim", "s"),
        ("", "s"),
        ("-3 s", "s"),
        ("0", "s"),
        ("nan", "s"),
        ("inf", "s"),
        ("1e999", "s"),
        ("5 5 min", "s"),
        ("1..2 s", "s"),
        (True, "s"),
        (None, "s"),
        ([1], "s"),
        ("1 mWh", "J"),
        ("8 GB 3 MB", "B"),
        ("20 EUR", "USD"),
    ],
)
def test_anything_else_is_refused_in_one_line_that_names_the_place(text: object, unit: str) -> None:
    with pytest.raises(SettingError, match=r"^budget\.time: ") as caught:
        parse(text, unit, "budget.time")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_units_scale(value: float) -> None:
    assert parse(f"{value:.6f} h", "s", "x") == pytest.approx(3600 * float(f"{value:.6f}"))


@given(st.text(max_size=12))
def test_no_text_raises_anything_but_a_setting_error(text: str) -> None:
    try:
        assert parse(text, "B", "x") > 0
    except SettingError:
        pass


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 10**300, float("nan"), float("inf"), "9" * 5000 + " s", "1e400", "x" * 5000]
)
def test_amounts_beyond_bounds_are_one_short_line(value: object) -> None:
    with pytest.raises(SettingError, match=r"budget\.time: ") as error:
        parse(value, "s", "budget.time")  # type: ignore[arg-type]
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (300.0, "s", "5 min"),
        (100.0, "s", "100 s"),
        (5400.0, "s", "1.5 h"),
        (0.25, "s", "250 ms"),
        (8e9, "B", "8 GB"),
        (8.0 * 2**30, "B", "8 GiB"),
        (8e9 + 1, "B", "8000000001.0 B"),
        (3.6e6, "J", "1 kWh"),
        (5e5, "J", "500 kJ"),
        (2.0, "USD", "$2"),
        (0.001, "USD", "0.001 USD"),
    ],
)
def test_an_amount_is_written_as_people_do(value: float, unit: Unit, text: str) -> None:
    assert written(value, unit) == text


@given(st.floats(1e-6, 1e15), st.sampled_from(["s", "B", "J", "USD"]))
def test_what_is_written_is_read_back_exactly(value: float, unit: Unit) -> None:
    assert parse(written(value, unit), unit, "x") == value
