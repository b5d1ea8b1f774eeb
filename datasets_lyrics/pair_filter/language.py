"""Language of a caption: its script, and for Latin script the language whose frequent words it has most of.

Captions are short, so that many have no frequent word: their language is then unknown, and not guessed.
"""

from __future__ import annotations

import re
from collections import Counter

UNKNOWN = "unknown"

_WORDS = {
    "en": "a an the of and in on with is are to for at by from this that it his her their was has no",
    "de": "der die das und ein eine einer einem einen mit im auf von ist zu für den dem nicht auch bei",
    "fr": "le la les des du un une et dans avec sur est pour au aux ce cette qui par en de",
    "es": "el la los las un una y en con del de por para es que al su se",
    "it": "il lo la gli le un una e in con di del della su per è che al nel",
    "pt": "o a os as um uma e em com de do da no na para por que ao",
    "nl": "de het een en van in met op is voor te aan bij zijn naar niet",
}
_LANGUAGES = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),  # before Chinese: Japanese has Chinese characters too
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
LANGUAGES = (*_LANGUAGES, *(language for language, _ in _SCRIPTS))


def language_of(text: str) -> str:
    """Return the code of a text's language, one of `LANGUAGES`, or `UNKNOWN`."""
    if not text.isascii():
        letters = max(1, sum(character.isalpha() for character in text))
        for language, script in _SCRIPTS:
            if len(script.findall(text)) * 4 >= letters:  # other names and words may stand between
                return language
    counts: Counter[str] = Counter()
    for word in _WORD.findall(text.lower()):
        counts.update(language for language, frequent in _LANGUAGES.items() if word in frequent)
    best = counts.most_common(2)
    if not best or (len(best) == 2 and best[0][1] == best[1][1]):
        return UNKNOWN
    return best[0][0]
