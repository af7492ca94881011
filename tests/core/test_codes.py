"""Codes: one spelling each, proven by this instance's key, and never printed."""

import logging
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otsd.core.codes import LENGTH, Code, Codes

CODES = Codes(b"k" * 32)
LOOKUPS = st.integers(0, 2**64 - 1)
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase


@given(LOOKUPS)
def test_every_lookup_id_comes_back_from_its_code(lookup: int) -> None:
    text = CODES.code(lookup).reveal()
    assert CODES.lookup(text) == lookup
    assert CODES.code(lookup).reveal() == text


@pytest.mark.parametrize("lookup", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_the_bounds_of_lookup_ids_come_back(lookup: int) -> None:
    assert CODES.lookup(CODES.code(lookup).reveal()) == lookup


@given(LOOKUPS)
def test_a_code_is_33_ascii_letters_and_digits(lookup: int) -> None:
    text = CODES.code(lookup).reveal()
    assert len(text) == LENGTH == 33
    assert set(text) <= set(ALPHABET)


@given(LOOKUPS, st.integers(0, LENGTH - 1), st.sampled_from(ALPHABET))
def test_one_altered_letter_is_refused(lookup: int, at: int, letter: str) -> None:
    text = CODES.code(lookup).reveal()
    altered = text[:at] + letter + text[at + 1 :]
    assert CODES.lookup(altered) == (lookup if altered == text else None)


@given(LOOKUPS, st.integers(0, LENGTH - 2))
def test_two_letters_in_the_other_order_are_refused(lookup: int, at: int) -> None:
    text = CODES.code(lookup).reveal()
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    assert CODES.lookup(swapped) == (lookup if swapped == text else None)


@given(LOOKUPS, st.integers(0, LENGTH - 1))
def test_a_code_that_was_cut_short_is_refused(lookup: int, length: int) -> None:
    text = CODES.code(lookup).reveal()
    assert CODES.lookup(text[:length]) is None
    assert CODES.lookup(text[LENGTH - length :]) is None


@given(LOOKUPS, st.text(min_size=1, max_size=40))
def test_a_code_with_anything_before_or_after_it_is_refused(lookup: int, more: str) -> None:
    text = CODES.code(lookup).reveal()
    assert CODES.lookup(text + more) is None
    assert CODES.lookup(more + text) is None


@pytest.mark.parametrize(
    "change",
    [
        str.swapcase,
        str.upper,
        str.lower,
        lambda text: f" {text}",
        lambda text: f"{text}\n",
        lambda text: f"+{text[1:]}",
        lambda text: f"-{text[1:]}",
        lambda text: f"{text[:5]}_{text[6:]}",
        lambda text: f"{text[:5]}\0{text[6:]}",
        # the same digits and letters to a reader, or to int(): Arabic and full-width
        lambda text: "".join(chr(0x660 + int(c)) if c.isdigit() else c for c in text),
        lambda text: "".join(chr(0xFF10 + int(c)) if c.isdigit() else c for c in text),
        lambda text: "".join(chr(ord(c) + 0xFEE0) for c in text),
    ],
)
def test_another_spelling_of_a_code_is_refused(change: object) -> None:
    text = CODES.code(2**40 + 7).reveal()
    other = change(text)  # type: ignore[operator]
    assert other != text
    assert CODES.lookup(other) is None


def test_spellings_beyond_24_bytes_wrap_to_no_code() -> None:
    # 33 letters of 62 hold a little more than 192 bits: the number plus 2**192 may still fit
    accepted_twice = 0
    for lookup in range(300):
        text = CODES.code(lookup << 54).reveal()
        number = 0
        for letter in text:
            number = number * 62 + ALPHABET.index(letter)
        number += 2**192
        spelled = ""
        while number:
            number, digit = divmod(number, 62)
            spelled = ALPHABET[digit] + spelled
        if len(spelled) == LENGTH:
            accepted_twice += 1
            assert CODES.lookup(spelled) is None
    assert accepted_twice > 200
    assert CODES.lookup("z" * LENGTH) is None


@given(st.text(ALPHABET, min_size=32, max_size=32))
def test_32_letters_the_form_of_imported_codes_are_never_one_of_ours(text: str) -> None:
    assert CODES.lookup(text) is None


@given(st.text(max_size=80) | st.text(ALPHABET, max_size=80))
def test_the_parser_takes_any_text_and_proves_none_of_it(text: str) -> None:
    assert CODES.lookup(text) is None


@pytest.mark.parametrize("text", ["", "\ud800" * LENGTH, "\0" * LENGTH, "a" * 1_000_000, "é" * 33])
def test_hostile_text_is_no_code(text: str) -> None:
    assert CODES.lookup(text) is None


@given(LOOKUPS, st.binary(min_size=32, max_size=32))
def test_another_instance_refuses_the_code(lookup: int, key: bytes) -> None:
    if key != b"k" * 32:
        assert Codes(key).lookup(CODES.code(lookup).reveal()) is None


@given(LOOKUPS)
def test_a_code_does_not_print_itself(lookup: int) -> None:
    code = CODES.code(lookup)
    shown = (repr(code), str(code), f"{code}", f"{code!r}", "%s" % code, repr([code]))  # noqa: UP031
    assert not any(code.reveal() in text for text in shown)
    assert not hasattr(code, "__dict__")


def test_a_code_that_is_logged_by_accident_stays_secret(caplog: pytest.LogCaptureFixture) -> None:
    code = Code("the secret text of a link")
    logging.getLogger("test").warning("minted %s %r", code, {"code": code})
    assert "minted" in caplog.text
    assert "secret" not in caplog.text


def test_neighbouring_lookup_ids_have_codes_that_share_no_proof() -> None:
    first, second = CODES.code(1).reveal(), CODES.code(2).reveal()
    assert sum(a == b for a, b in zip(first[-20:], second[-20:], strict=True)) < 10
