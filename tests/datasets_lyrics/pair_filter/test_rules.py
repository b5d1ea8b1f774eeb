"""Rules of the filter: what a caption is, and what is noise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyrics.datasets_lyrics.pair_filter.language import language_of
from lyrics.datasets_lyrics.pair_filter.rules import FilterRules, count_words, find_noise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog runs along the beach at sunset", None),
        ("IMG_1234.jpg", "file name"),
        ("my holiday photo.jpeg", "file name"),
        ("DSC 00123", "file name"),
        ("see https://example.org/a?b=c for more", "URL"),
        ("Stock photo of a red apple", "boilerplate"),
        ("product 5f3a9c1e77b24d0c8a41 in blue", "identifier"),
        ("12/04/2019 - 18:33:12 (#44)", "few letters"),
        ("buy buy buy now buy buy buy", "repetition"),
        ("Sooooooooo good", "repetition"),
        ("Ein Hund läuft über die Straße", None),
        ("海边的一只狗", None),
    ],
)
def test_noise(text, expected):
    assert find_noise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog runs on the beach", "en"),
        ("Ein Hund und eine Katze auf der Wiese", "de"),
        ("Le chien et le chat dans la maison", "fr"),
        ("una foto de los perros en la playa", "es"),
        ("海边的一只狗", "zh"),
        ("浜辺を走る犬", "ja"),
        ("собака бежит по пляжу", "ru"),
        ("golden retriever", "unknown"),
        ("", "unknown"),
    ],
)
def test_languages(text, expected):
    assert language_of(text) == expected


def test_words_of_languages_without_spaces():
    assert count_words("A dog runs") == 3
    assert count_words("海边的一只狗") == 3


def test_limits():
    rules = FilterRules(min_side=100, max_aspect=2, min_words=2, max_words=4, languages=("en",))
    assert rules.refuse_text("dog") == "caption too short"
    assert rules.refuse_text("a b c d e") == "caption too long"
    assert rules.refuse_text("der Hund und die") == "language: de"
    assert rules.refuse_text("golden retriever") is None
    assert (
        FilterRules(languages=("en",), strict_language=True).refuse_text("one golden retriever") == "language: unknown"
    )
    assert rules.refuse_size(99, 150) == "image too small"
    assert rules.refuse_size(201, 100) == "image too long and narrow"
    assert rules.refuse_size(100, 200) is None
    with pytest.raises(ValueError, match="must satisfy"):
        FilterRules(min_words=5, max_words=4)
    with pytest.raises(ValueError, match="The language 'xx' is not known"):
        FilterRules(languages=("xx",))


@given(st.text(max_size=300))
def test_any_text_is_judged(text):
    reason = FilterRules(languages=("en",), strict_language=True).refuse_text(text)
    assert reason is None or len(reason) > 3
    assert count_words(text) <= max(1, len(text))
