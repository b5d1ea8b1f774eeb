"""Wordings of questions: a small grammar for training, and wordings that it does not know for evaluation.

A rule is a text with alternatives in parentheses, such as `(Where is|Find) the {name}`. The slots are `{name}` (red
star), `{a}` (a red star), `{many}` (red stars), and `{other}`, a second name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

Random = np.random.Generator
Wording = Literal["plain", "varied", "unknown"]

_HERE = "(| in the (picture|image|photo|drawing)| here)"
_SAY = "(Tell me|Can you tell me|Could you tell me|Please tell me|Say|I want to know|Do you know)"
_COLOR = "colo(u|)r"

_PLAIN: dict[str, tuple[str, ...]] = {
    "caption": ("Describe the picture.", "What does the picture show?", "What do you see?"),
    "existence": ("Is there {a}?", "Do you see {a}?"),
    "count": ("How many {many} are there?",),
    "color": ("What color is the {name}?",),
    "shape": ("What shape is the {name}?",),
    "size": ("How big is the {name}?",),
    "largest": ("Which object is the largest?",),
    "relation": ("Is the {name} {way} the {other}?",),
    "reading": ("Which character is on the {name}?",),
    "referring": ("Where is the {name}?", "Find the {name}."),
    "description": ("What is this?",),
    "it_color": ("What color is it?",),
    "it_shape": ("What shape is it?",),
    "it_size": ("How big is it?",),
    "it_reading": ("Which character is on it?",),
    "it_referring": ("Where is it?",),
    "another": ("And the {name}?",),
}

_VARIED: dict[str, tuple[str, ...]] = {
    "caption": (
        "(Describe|Please describe|Can you describe|Could you describe)"
        " (the|this) (picture|image|scene|drawing)(| for me)",
        "What (does|can one see in|is in|is shown in) the (picture|image|scene)(| show)?",
        "What (do|can) you see(| here| in the picture)?",
        "What is (in|on) (this|the) (picture|image)?",
        "(Give me a|A|Write a) (description|caption|summary)(| of the (picture|image|scene))",
        "What('s| is) (here|there|in it)?",
        "(Tell me|Let me know|Write down|Explain) what (you see|is in the picture|the picture shows|the image shows)",
        "What (objects|things|shapes) (are there|do you see|does the picture show)?",
    ),
    "existence": (
        f"(Is there|Do you see|Can you see|Do you find|Can you find|Is there maybe) {{a}}{_HERE}?",
        f"Are there (any |){{many}}{_HERE}?",
        f"(Do|Can) you see (any |){{many}}{_HERE}?",
        "Does the (picture|image|scene) (show|have|contain) {a}?",
        "Is {a} (there|here|in the picture|in the image|to be seen)?",
        "(Any|Is there any) {name}(| here| there)?",
        f"{_SAY} (if|whether) there is {{a}}{_HERE}",
        "I (am looking|look) for {a}. Is there one?",
        f"(Have you got|Have you found|Did you find|Did you see|Did you notice|Do we have) {{a}}{_HERE}?",
        "(Could|Might|Does) {a} (be here|be in the picture|be there)?",
        "Does {a} (occur|exist|show up)(| in the picture| here)?",
        "(Look|Search|Have a look) for {a}(|. Is it there?)",
        "{a}, (is it there|is there one|yes or no)?",
    ),
    "count": (
        f"How many {{many}} (are there|are|do you see|can you see|do you find|does the picture show){_HERE}?",
        f"(Count|Please count|Can you count|Could you count) (the|all|all the) {{many}}{_HERE}",
        "(How many|Number of) {many}?",
        f"(What is|What's|Give me) the (number|count) of {{many}}{_HERE}?",
        f"{_SAY} how many {{many}} there are{_HERE}",
        "There are how many {many}?",
        "How many {many} (could you find|did you find|have you found|did you see|have you counted)?",
        "(What|Which) (number|count) of {many} (is there|do you see|is in the picture)?",
        "(The|Your) (number|count|sum) of (the |all |){many}",
        f"(Find out|Let me know|Look) how many {{many}} there are{_HERE}",
        "{many}, how many of (them|those|these)?",
        "How many {many} altogether?",
    ),
    "color": (
        f"(What|Which) {_COLOR} is the {{name}}{_HERE}?",
        f"(What|Which) {_COLOR} does the {{name}} have?",
        f"(What is|What's|Name|Give me) the {_COLOR} of the {{name}}{_HERE}?",
        f"{_SAY} (the {_COLOR} of the {{name}}|what {_COLOR} the {{name}} is|which {_COLOR} the {{name}} has)",
        f"The {{name}} (is|has) (what|which) {_COLOR}?",
        f"{_COLOR} of the {{name}}?",
        f"(What|Which) is the {_COLOR} of the {{name}}?",
        f"(Find out|Let me know|Look) (what|which) {_COLOR} the {{name}} (is|has)",
        f"(What|Which) {_COLOR} (has the {{name}}|do you see on the {{name}}|was the {{name}} given)?",
        f"How would you name the {_COLOR} of the {{name}}?",
        f"the {{name}}, (what|which) {_COLOR} is it?",
        f"I (need|want) the {_COLOR} of the {{name}}",
    ),
    "shape": (
        f"(What|Which) (shape|form) is the {{name}}{_HERE}?",
        "(What|Which) (shape|form) does the {name} have?",
        f"(What is|What's|Name|Give me) the (shape|form) of the {{name}}{_HERE}?",
        f"{_SAY} (the shape of the {{name}}|what shape the {{name}} is|what the {{name}} is)",
        f"What (is|kind of thing is) the {{name}}{_HERE}?",
        "shape of the {name}?",
        "(What|Which) is the (shape|form) of the {name}?",
        "(Find out|Let me know|Look) (what|which) (shape|form) the {name} (is|has)",
        "(What|Which) (shape|form|figure) (has the {name}|do you see in the {name})?",
        "How would you name the (shape|form) of the {name}?",
        "the {name}, (what|which) (shape|form) is it?",
        "I (need|want) the (shape|form) of the {name}",
    ),
    "size": (
        f"(How (big|large)|What size|Which size) is the {{name}}{_HERE}?",
        "(What|Which) size does the {name} have?",
        f"(What is|What's|Name|Give me) the size of the {{name}}{_HERE}?",
        f"{_SAY} (how (big|large) the {{name}} is|the size of the {{name}})",
        "Is the {name} small, medium or large?",
        "size of the {name}?",
        "(What|Which) is the size of the {name}?",
        "(Find out|Let me know|Look) how (big|large) the {name} is",
        "the {name}, how (big|large) is it?",
        "I (need|want) the size of the {name}",
    ),
    "largest": (
        f"(Which|What) (object|thing|shape|one) is (the|) (largest|biggest){_HERE}?",
        f"(What is|What's|Name|Show me) the (largest|biggest) (object|thing|shape|one){_HERE}?",
        f"{_SAY} which (object|thing|shape) is the (largest|biggest)",
        "(largest|biggest) (object|thing)?",
        "(Find|Name|Give me|Look for) the (largest|biggest) (of them|of all|object|thing)",
        "(Which|What) is larger than all others?",
    ),
    "relation": (
        "(Is|Is maybe) the {name} {way} the {other}?",
        "Is it true that the {name} is {way} the {other}?",
        "(Do you see|Can you see|Do you find) the {name} {way} the {other}?",
        f"{_SAY} (if|whether) the {{name}} is {{way}} the {{other}}",
        "The {name} is {way} the {other}, (right|is it|yes or no)?",
        "Does the {name} (stand|sit|come|appear) {way} the {other}?",
        "(Find out|Let me know|Look|Verify) (if|whether) the {name} is {way} the {other}",
        "(Can|Could|Would) (you|one) say that the {name} is {way} the {other}?",
        "the {name}, is it {way} the {other}?",
    ),
    "reading": (
        f"(Which|What) (character|letter or digit|letter|digit|sign) is (on|written on|in) the {{name}}{_HERE}?",
        "What (is|stands|is written) (on|in) the {name}?",
        "(Read|Please read|Can you read|Could you read) (the {name}|what is on the {name}|the character on the {name})",
        "(Which|What) (character|letter) (does the {name} (have|show)|do you see on the {name})?",
        f"{_SAY} (what is written on the {{name}}|which character is on the {{name}})",
        "What does the {name} say?",
        "character on the {name}?",
        "(Which|What) (character|letter|digit|sign|symbol)"
        " (was|is) (drawn|put|shown|painted|to be seen) on the {name}?",
        "(Name|Give me|Type|Write down) the (character|letter|sign) (on|of) the {name}",
        "(Find out|Let me know|Look|See) (what is on the {name}|which character the {name} has)",
        "Can you make out (the character|what is) on the {name}?",
        "The {name} (has|shows|bears) (which|what) (character|letter|sign)?",
        "What (text is|does it say|do you read) on the {name}?",
        "the {name}, what is on it?",
    ),
    "referring": (
        f"(Where is|Where's|Where do you see|Where can I find|Where did you find) the {{name}}{_HERE}?",
        f"(Find|Please find|Locate|Please locate|Show|Show me|Can you find|Could you locate) the {{name}}{_HERE}",
        "(Point to|Mark|Can you mark|Point out|Can you point to) the {name}",
        "(Give me|What is|What's) the (box|bounding box|place|position|location) of the {name}?",
        "(Draw|Put) a box around the {name}",
        f"{_SAY} where the {{name}} is{_HERE}",
        "I (am looking for|want to see|search) the {name}",
        "the {name}, where is it?",
        "(Where|At which place|In which part) (does the {name} (lie|stand)|is the {name} (lying|located|to be found))?",
        "(Find out|Let me know|Look) where the {name} is",
        "(Which|What) box (holds|contains|is around) the {name}?",
        "(Take|Lead|Bring) me to the {name}",
        "(Frame|Select|Outline|Circle|Indicate) the {name}",
        "I (need|want) the (position|place|location|box) of the {name}",
        "Where (in the picture|in the image) is the {name}?",
    ),
    "description": (
        "What is (this|that|it|here|at this place|in this box|in the box)?",
        "(Describe|Please describe|Can you describe) (this|this object|this thing|what is here|the object here)",
        "What (object|thing) is (this|here|in this box)?",
        "What do you see (here|in this box|at this place)?",
        "(Which object|What) (lies|is) (here|at)?",
        f"{_SAY} what this is",
    ),
    "it_color": (
        f"(And what|What|And which|Which) {_COLOR} (is it|does it have)?",
        f"(And its|Its|And the) {_COLOR}?",
        f"(Tell me its|What is its|What's its) {_COLOR}?",
        f"(Find out|Let me know|Look) (what|which) {_COLOR} it (is|has)",
        f"I want its {_COLOR} too",
    ),
    "it_shape": (
        "(And what|What|And which|Which) (shape|form) (is it|does it have)?",
        "(And its|Its|And the) (shape|form)?",
        "(Tell me its|What is its|What's its) shape?",
        "(Find out|Let me know|Look) (what|which) (shape|form) it (is|has)",
        "I want its shape too",
    ),
    "it_size": (
        "(And how|How) (big|large) is it?",
        "(And its|Its|And the) size?",
        "(And what|What|And which|Which) size (is it|does it have)?",
        "(Tell me its|What is its) size?",
        "Is it (big|small|large|small or large)?",
        "(Find out|Let me know|Look) how (big|large) it is",
    ),
    "it_reading": (
        "(And what|What|And which|Which) (character|letter|letter or digit) is (on|written on) it?",
        "(And what|What) is (written |)on it?",
        "(And what|What) does it say?",
        "(And the|And its) (character|letter)?",
        "(Read it|Can you read it|And read it)",
        "(Find out|Let me know|Look) what is on it",
        "(And what|What) (is|was) (drawn|put|shown|painted) on it?",
    ),
    "it_referring": (
        "(And where|Where) is it?",
        "(Find|Locate|Show me|Point to|Mark) it",
        "(Can you|Could you) (find|show me|mark|locate) it?",
        "(And its|Its|And the) (place|position|box|location)?",
        "(Find out|Let me know|Look) where it is",
        "(Frame|Select|Outline|Circle|Indicate) it",
    ),
    "another": (
        "(And|What about|How about|And what about|Now|Then) the {name}?",
        "(The same|Same|Same question) for the {name}",
        "The {name}?",
        "(And now|And also|Next,|And then|Also|Let us go on with) the {name}",
        "(Do|Answer|Tell me) the same for the {name}",
    ),
}

# Written by hand as people ask. None of them can be made by the rules above.
_UNKNOWN: dict[str, tuple[str, ...]] = {
    "caption": ("So what have we got here?", "Put the picture into words.", "Sum up what you are looking at."),
    "existence": (
        "Would you say there is {a} in this?",
        "Have you spotted {a}?",
        "Can {a} be seen?",
        "is {a} anywhere",
        "Could there be {a} somewhere?",
        "Check for {a}.",
        "Got {a}?",
        "Does {a} appear in the image?",
    ),
    "count": (
        "What would you say, how many {many}?",
        "I need the total of {many}.",
        "how many {many} can be seen",
        "Could you give me a count of {many}?",
        "How many {many} have you spotted?",
        "Add up the {many}.",
        "In total, how many {many}?",
        "What's the total number of {many}?",
    ),
    "color": (
        "What would you call the color of the {name}?",
        "The {name}: what color?",
        "which colour did they paint the {name}",
        "What's the {name}'s color?",
        "Look at the {name}. What color is it?",
        "In what color is the {name} drawn?",
        "Describe the color of the {name}.",
        "Color of {name}",
    ),
    "shape": (
        "The {name}: which shape?",
        "What would you call the shape of the {name}?",
        "Look at the {name}. What shape is it?",
        "In which shape is the {name} drawn?",
        "Describe the shape of the {name}.",
        "What's the {name}'s shape?",
        "shape of {name}",
    ),
    "size": ("The {name}: how big?", "What's the {name}'s size?", "Describe the size of the {name}."),
    "largest": ("Of all things, which is the largest?", "Pick the biggest object.", "Which one is biggest of all?"),
    "relation": (
        "Would you say the {name} is {way} the {other}?",
        "Check whether the {name} lies {way} the {other}.",
        "Does the {name} lie {way} the {other}?",
    ),
    "reading": (
        "Someone wrote something on the {name}. What?",
        "The {name} carries which character?",
        "What can be read on the {name}?",
        "Look at the {name}. What character is on it?",
        "Spell out what the {name} has on it.",
        "which letter or number is printed on the {name}",
        "What's on the {name}?",
        "Tell me the letter on the {name}.",
    ),
    "referring": (
        "Whereabouts is the {name}?",
        "Help me find the {name}.",
        "Could you show me where the {name} sits?",
        "Highlight the {name}.",
        "I can't find the {name}.",
        "In which place is the {name}?",
        "Coordinates of the {name}, please.",
        "where would I look for the {name}",
    ),
    "description": ("What have we got at this spot?", "Name the thing in this region.", "What sits here?"),
    "it_color": ("What would you call its color?", "Of what color?", "which colour has it"),
    "it_shape": ("What would you call its shape?", "Of what shape?", "which shape has it"),
    "it_size": ("Of what size?", "which size has it", "would you say it's big"),
    "it_reading": ("What can be read on it?", "Anything written on it?", "spell out what it has on it"),
    "it_referring": ("Whereabouts is it?", "Highlight it.", "help me find it"),
    "another": ("And for the {name}?", "What of the {name}?", "Now tell me the same of the {name}."),
}

_WAYS = {
    "left of": "(left of|to the left of|on the left of|further left than|on the left side of)",
    "right of": "(right of|to the right of|on the right of|further right than|on the right side of)",
    "above": "(above|over|higher than|further up than)",
    "below": "(below|under|lower than|further down than|beneath)",
}

_ENDINGS = (*[""] * 6, " please", ", please", " Thanks!", " Thank you.", " Answer briefly.", " Just the answer.")
_BEGINNINGS = (
    *[""] * 12,
    *("Please, ", "Hello, ", "Hi, ", "Hello! ", "Now, ", "OK, ", "So, ", "Well, ", "Excuse me, ", "I wonder, "),
    *("Question: ", "One more question: ", "Look at the picture. ", "Look closely. ", "Could you help me? "),
)
_TERSE_PROBABILITY = 0.35  # of a question without a capital letter, a question mark, or both
_SLIP_PROBABILITY = 0.1
_PLAIN_PROBABILITY = 0.25  # of a plain wording among varied ones


def word(kind: str, wording: Wording, random: Random, **slots: str) -> str:
    """Return a question.

    Args:
        kind: key of the rules, such as `"count"`.
        wording: `"plain"` (one or two wordings for each kind), `"varied"` (those of training, with slips of typing) or
            `"unknown"` (those that training does not show).
        random: random number generator.
        slots: names for the slots of the rules, and the `way` of a relation.
    """
    varied = wording == "varied" and random.random() >= _PLAIN_PROBABILITY
    rules = _UNKNOWN if wording == "unknown" else _VARIED if varied else _PLAIN
    text = _choose(rules[kind], random)
    if "way" in slots:
        slots["way"] = expand(_WAYS[slots["way"]], random) if wording == "varied" else slots["way"]
    if not varied:
        return text.format(**slots)
    text = punctuate(expand(text, random), random)
    if random.random() < _SLIP_PROBABILITY:
        text = _slip(text, random)
    return text.format(**slots)


def expand(rule: str, random: Random) -> str:
    """Return a text of a rule, with one of the alternatives of each of its parentheses."""
    while match := re.search(r"\(([^()]*)\)", rule):
        rule = rule[: match.start()] + _choose(match[1].split("|"), random) + rule[match.end() :]
    return re.sub(" +", " ", rule)


def _choose(options: Sequence[str], random: Random) -> str:
    return options[int(random.integers(len(options)))]


def punctuate(text: str, random: Random) -> str:
    """Return a question as somebody types it: more or less polite, with or without capital letter and question mark."""
    bare = text.rstrip("?.")
    mark = "?" if text.endswith("?") else "."
    beginning, ending = _choose(_BEGINNINGS, random), _choose(_ENDINGS, random)
    if beginning.endswith(", ") and not bare.startswith(("I ", "{")):
        bare = bare[0].lower() + bare[1:]
    text = f"{beginning}{bare}{mark}{ending}" if ending[-1:] in "!." and ending else f"{beginning}{bare}{ending}{mark}"
    if random.random() >= _TERSE_PROBABILITY:
        return text[0].upper() + text[1:]
    lower, bare = ((True, False), (False, True), (True, True))[int(random.integers(3))]
    text = text.rstrip("?.") if bare else text
    return text.lower() if lower else text


def _slip(text: str, random: Random) -> str:
    """Return a text with a slip of typing in one of its words: two letters exchanged, one missing or doubled."""
    words = text.split(" ")
    places = [place for place, one in enumerate(words) if one.isalpha() and len(one) > 3]
    if not places:
        return text
    place = int(random.choice(places))
    letters = words[place]
    at = int(random.integers(1, len(letters) - 1))
    slipped = (
        letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :],
        letters[:at] + letters[at + 1 :],
        letters[:at] + letters[at] + letters[at:],
    )
    words[place] = _choose(slipped, random)
    return " ".join(words)


def count_wordings(kind: str) -> int:
    """Return how many texts the varied rules of a kind can make, before punctuation and slips."""
    return sum(_count(rule) for rule in _VARIED[kind])


def _count(rule: str) -> int:
    """Return how many texts a rule can make."""
    parts: list[str] = []
    counts: dict[str, int] = {}

    def number(text: str) -> int:
        product = 1
        for key in re.findall(r"<\d+>", text):
            product *= counts[key]
        return product

    while match := re.search(r"\(([^()]*)\)", rule):
        key = f"<{len(parts)}>"
        parts.append(match[1])
        counts[key] = sum(number(option) for option in match[1].split("|"))
        rule = rule[: match.start()] + key + rule[match.end() :]
    return number(rule)
