"""Questions that have nothing to do with the world of scenes."""

from __future__ import annotations

import numpy as np

from .names import with_article
from .wordings import Wording, expand, punctuate

Random = np.random.Generator

_THINGS = (
    *("dog", "cat", "horse", "bird", "fish", "cow", "man", "woman", "child", "person", "boy", "girl", "face", "hand"),
    *("car", "bus", "train", "bicycle", "boat", "plane", "road", "street", "house", "door", "window", "room", "wall"),
    *("tree", "flower", "grass", "mountain", "river", "sea", "sky", "cloud", "sun", "moon", "rain", "snow", "beach"),
    *("table", "chair", "bed", "lamp", "phone", "computer", "book", "clock", "cup", "bottle", "plate", "knife", "hat"),
    *("apple", "banana", "bread", "cake", "pizza", "coffee", "shirt", "shoe", "ball", "king", "doctor", "city"),
)
_OTHER_THINGS = (
    *("elephant", "sheep", "kitten", "truck", "airplane", "bridge", "garden", "laptop", "umbrella", "spoon"),
    *("teacher", "guitar", "carrot", "castle", "lion"),
)
_ABOUT_THINGS = (
    "(Is there|Do you see|Can you see) {a}(| here| in the picture)?",
    "(Where is|Find|Show me|Locate) the {thing}?",
    "(What|Which) colo(u|)r is the {thing}?",
    "How many {thing}s (are there|do you see)?",
    "What is the {thing} doing?",
    "(Which|What) (breed|kind|sort) of {thing} is (this|that|it)?",
    "(Tell me|Say) (something|more) about the {thing}",
    "(Do you like|Have you ever seen|Who owns) the {thing}?",
    "(Have you found|Did you see|Did you notice|Look for|Do we have) {a}(| here| in the picture)?",
    "Any {thing}s(| here)?",
    "How (big|old|heavy|long|fast) is the {thing}?",
    "(What|How) does the {thing} (look like|feel|mean|work)?",
    "(Can|Could|May) I (touch|eat|buy|have|see) the {thing}?",
    "Why is the {thing} (here|there|so big|not here)?",
    "(Describe|Count|Mark|Draw) the {thing}s",
)
_UNKNOWN_ABOUT_THINGS = (
    "Could there be {a} somewhere?",
    "Whose {thing} is that?",
    "What is the name of the {thing}?",
    "Got {a}?",
    "Is the {thing} happy?",
    "Help me find the {thing}.",
)
_OTHERS = (
    "Who are you?",
    "What is your name?",
    "How are you(| today)?",
    "What can you do?",
    "Tell me a (joke|story|secret)",
    "What is the weather (like|today)?",
    "What is the capital of (France|Spain|China|Italy)?",
    "What is (1|2|3|4|5|6|7|8|9) (times|minus|and) (1|2|3|4|5|6|7|8|9)?",
    "Who (painted|made|took|drew) (this|this picture|the photo)?",
    "(Write|Sing|Compose) a (poem|song|letter)",
    "Where was this (photo|picture) taken?",
    "When was this (photo|picture) (taken|made)?",
    "(Why|How) did you (do|say|know) that?",
    "What (time|day|year) is it?",
    "Do you (love|like|know|hate) me?",
    "Translate (this|that|the text) into (French|German|Chinese)",
    "(Hello|Hi|Good morning|Hey)(| there| you)",
    "(Help|Thanks|Thank you|Bye|Goodbye|OK|Yes|No|Nice)",
    "What does (love|life|money|time) mean?",
    "Is it (cold|warm|late|early|true|safe|night)?",
    "Are you (sure|real|human|happy|tired|there)?",
    "(Can|Could|Will) you (sing|dance|drive|fly|speak French|write code|swim)?",
    "(Teach me|Tell me about|Do you know) (music|history|love|mathematics|biology|the news)",
    "(What|Which) (book|song|food|game|animal) do you (like|prefer)?",
    "(Where|When) (were you born|do you live|do we eat|does it start)?",
    "Who is (your boss|your mother|the best|that man|she|he)?",
    "How (far|high|deep|old) is the (moon|sea|mountain|sun|earth)?",
    "Which (team|country|language) is the best?",
    "What (should|shall|can) (I|we) (do|wear|buy|read|watch)(| now| today)?",
)
_UNKNOWN_OTHERS = (
    "How old are you?",
    "Can you play chess?",
    "Who won the match?",
    "What should I cook tonight?",
    "Are you a robot?",
    "Explain quantum physics.",
    "What's your favorite movie?",
    "How tall is the tower?",
    "Is this picture art?",
    "Who is the president?",
)
_THING_PROBABILITY = 0.6
_INVENTED_PROBABILITY = 0.4  # of a word that does not exist among the words for things
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def ask_outside(random: Random, wording: Wording) -> str:
    """Return a question that scenes of shapes have no answer to."""
    unknown = wording == "unknown"
    if random.random() >= _THING_PROBABILITY:
        return _finish(_pick(_UNKNOWN_OTHERS if unknown else _OTHERS, random), unknown, random)
    thing = _pick(_OTHER_THINGS if unknown else _THINGS, random)
    if not unknown and random.random() < _INVENTED_PROBABILITY:
        thing = _invent(random)
    text = _finish(_pick(_UNKNOWN_ABOUT_THINGS if unknown else _ABOUT_THINGS, random), unknown, random)
    return text.format(thing=thing, a=with_article(thing))


def _finish(rule: str, unknown: bool, random: Random) -> str:
    return rule if unknown else punctuate(expand(rule, random), random)


def _invent(random: Random) -> str:
    """Return a word that does not exist, so that a model learns which words it knows and not which it does not."""
    syllables = [_pick(_CONSONANTS, random) + _pick(_VOWELS, random) for _ in range(int(random.integers(1, 4)))]
    return "".join(syllables) + _pick(_CONSONANTS, random)


def _pick(options: tuple[str, ...] | str, random: Random) -> str:
    return options[int(random.integers(len(options)))]
