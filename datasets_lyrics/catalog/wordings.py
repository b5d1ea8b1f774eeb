"""Wordings of questions and instructions by task. The first of each is the one of rows that are not mixed.

`{question}`, `{choices}` and `{name}` stand for texts of the row, and `<box>` for a region. A wording tells the kind
of answer: short ones are asked for as such, so that a model does not answer every question in one word.
"""

from __future__ import annotations

from collections.abc import Mapping

Wordings = Mapping[str, tuple[str, ...]]

WORDINGS: Wordings = {
    "caption": (
        "Describe the picture in one sentence.",
        "Write a short caption for this picture.",
        "What does the picture show? One sentence is enough.",
        "Give a one-sentence summary of this image.",
        "Caption this image briefly.",
        "In a single sentence, what can be seen here?",
        "Say briefly what is going on in the picture.",
        "What would you write under this photo? Keep it to one sentence.",
        "Sum up the scene in a few words.",
        "A brief description, please.",
    ),
    "detailed_caption": (
        "Describe the picture in detail.",
        "Write a thorough description of this image.",
        "Tell me everything that you can see here.",
        "Explain the scene with all its details.",
        "Give a long description: what is there, where it is, and what it looks like.",
        "Take your time and describe this picture from front to back.",
        "What does the image show? Please be exhaustive.",
        "Describe it for somebody who cannot see it.",
    ),
    "short_answer": (
        "{question}\nAnswer with one word or a short phrase.",
        "{question}\nGive a short answer.",
        "{question} Reply in a few words.",
        "Answer briefly: {question}",
        "{question}\nNo sentence, only the answer.",
        "Look at the picture. {question} A word or two will do.",
        "Short question, short answer: {question}",
        "{question}\nBe as brief as possible.",
    ),
    "long_answer": (
        "{question}",
        "{question} Answer in a full sentence.",
        "Please answer the question about the picture: {question}",
        "{question}\nWrite a complete answer.",
        "I have a question about this image. {question}",
    ),
    "read_short": (
        "{question}\nRead it in the picture, and answer with the words that are written there.",
        "{question}\nThe answer is written in the picture. Give only the answer.",
        "Read the text in the image and answer briefly: {question}",
        "{question} Answer with what is printed, in a few words.",
        "According to the text in the picture: {question} Keep it short.",
        "{question}\nA word or a short phrase from the image is enough.",
    ),
    "choice": (
        "{question}\n{choices}\nAnswer with the letter of the right choice.",
        "{question}\nChoices:\n{choices}\nWhich one is right? Give its letter.",
        "Choose the best answer, by its letter.\n{question}\n{choices}",
        "{question}\n{choices}\nReply with a single letter.",
        "{question}\n{choices}\nThe letter alone is enough.",
    ),
    "locate": (
        "Where is {name}? Answer with its box.",
        "Find {name} in the picture, and give its box.",
        "Give the box of {name}.",
        "Which region shows {name}?",
        "Point out {name} by its coordinates.",
        "Locate {name}.",
        "I am looking for {name}. Where is it? A box, please.",
        "Mark {name} with a box.",
        "Please detect {name} and write down the coordinates.",
        "In which part of the image can I see {name}? Answer with a box.",
    ),
    "describe_region": (
        "What is in the region <box>? Answer with a short phrase.",
        "Describe the region <box> briefly.",
        "Say in a few words what <box> shows.",
        "How would you refer to the object in <box>?",
        "Name what is inside <box>.",
        "Give a phrase that describes only the region <box>.",
        "Which object lies at <box>? Describe it briefly.",
    ),
    "region_question": (
        "{question} I mean the region <box>. Answer in a few words.",
        "Look at <box>. {question} Give a short answer.",
        "About the region <box>: {question} Be brief.",
        "{question} It is about <box>; a word or two will do.",
    ),
    "point": (
        "{question} Answer with a box.",
        "{question}\nGive the coordinates of the answer.",
        "{question} Show me by its box.",
        "Answer with a region of the picture: {question}",
    ),
    "grounded_caption": (
        "Describe the picture in one sentence, with a box after everything that you name.",
        "Write a caption, and give the boxes of the things in it.",
        "Caption this image. Add coordinates to each phrase.",
        "One sentence about this picture, please, and where its parts are.",
        "Say briefly what can be seen, and ground each phrase with boxes.",
    ),
    "detect": (
        "List all objects with their boxes.",
        "Which objects are in the picture, and where? Give name and box of each.",
        "Detect everything that you know here.",
        "Find all objects and write their names and coordinates.",
        "Make a list of the objects: name, then box.",
    ),
    "existence": (
        "Is there a {name} in the picture? Answer yes or no.",
        "Can you see a {name} here? Yes or no.",
        "Does the image show a {name}? Answer with yes or no.",
        "Do you find any {name} in this picture? Yes or no?",
        "Yes or no: the picture has a {name} in it.",
    ),
    "count": (
        "How many objects of the kind {name} are there? Answer with a number.",
        "Count the objects of the kind {name}. Only the number, please.",
        "What is the number of objects called {name} in this picture? A number is enough.",
        "How often do you see the following: {name}? Reply with a number.",
    ),
}
