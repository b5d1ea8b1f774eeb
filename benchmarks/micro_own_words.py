"""What does the model that ships say to questions in people's own words? A table, with the wrong answers.

The questions are about the drawing that ships, and were written before the model saw any of them.

python benchmarks/micro_own_words.py
"""

from __future__ import annotations

import argparse

from lyrics import SCENE_PICTURE, Answer, Lyrics
from lyrics.recipes.micro.world.cases import MIN_IOU, box_iou
from lyrics.recipes.micro.world.questions import OUTSIDE_ANSWER

BOXES = {  # xyxy in [0, 1], measured on the image
    "red star": (0.465, 0.398, 0.676, 0.615),
    "purple ring": (0.174, 0.084, 0.406, 0.318),
    "blue circle": (0.078, 0.756, 0.203, 0.882),
    "cyan star": (0.101, 0.504, 0.291, 0.695),
    "blue star": (0.594, 0.619, 0.889, 0.932),
}
QUESTIONS = (  # with the right answer, or the object whose box is right, or `None` where people would differ
    ("where is the red star", "red star"),
    ("Where's the ring at?", "purple ring"),
    ("Can you show me the blue circle?", "blue circle"),
    ("I'm looking for the cyan star, where did it go?", "cyan star"),
    ("Point at the star that has a 4 on it.", "cyan star"),
    ("Where is the letter H?", "blue star"),
    ("How many stars do you see?", "4"),
    ("how many blue things are in there", "3"),
    ("Count everything.", "6"),
    ("How many red circles?", "0"),
    ("What colour's the ring?", "purple"),
    ("ring color?", "purple"),
    ("Tell me what color the circle has", "blue"),
    ("What is the purple thing?", "ring"),
    ("What shape is the cyan one?", "star"),
    ("What's written on the red star?", "C"),
    ("Which letter do you read on the big blue star?", "H"),
    ("which number is on the cyan star", "4"),
    ("Is there anything written on the ring?", "There is no character on the purple ring."),
    ("Is there a green square?", "no"),
    ("Do you see any triangles?", "no"),
    ("There's a ring, isn't there?", "yes"),
    ("Is there a star with the letter C?", "yes"),
    ("Where is the green square?", "There is no green square."),
    ("What color is the triangle?", "There is no triangle."),
    ("What color is the star?", "There are 4 stars."),
    ("Is the ring above the red star?", "yes"),
    ("Is the circle to the right of the ring?", "no"),
    ("Which one is the biggest?", "blue star"),
    ("Is the ring bigger than the circle?", "yes"),
    ("What is between the ring and the circle?", "cyan star"),
    ("Name all colors.", "purple, red, cyan, blue"),
    ("Describe the picture for me", None),
    ("what am i looking at", None),
    ("Is there a dog?", OUTSIDE_ANSWER),
    ("What color is the sky?", OUTSIDE_ANSWER),
    ("Who are you?", OUTSIDE_ANSWER),
    ("What is the capital of Peru?", OUTSIDE_ANSWER),
    ("hi", OUTSIDE_ANSWER),
    ("Wo ist der rote Stern?", "red star"),
)


def main() -> None:
    """Ask, and print a table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    assistant = Lyrics.from_pretrained()
    print("| question | answer | |\n|---|---|---|")
    counted = []
    for question, expected in QUESTIONS:
        answer = assistant.ask(SCENE_PICTURE, question)
        mark = ""
        if expected is not None:
            counted.append(is_right(answer, expected))
            mark = "right" if counted[-1] else f"wrong: {expected.rstrip('.')}"
        print(f"| {question} | {answer.text} | {mark} |", flush=True)
    print(f"\n{sum(counted)} of {len(counted)} are right.")


def is_right(answer: Answer, expected: str) -> bool:
    """Return whether an answer is the expected text, or the box of the object; `ring` names the purple ring, too."""
    if not answer.labels:
        return answer.text.rstrip(".") == expected.rstrip(".")
    is_named = len(answer.labels) == 1 and set(answer.labels[0].split()) <= set(expected.split())
    return is_named and box_iou(answer.relative_boxes[0].tolist(), BOXES[expected]) >= MIN_IOU


if __name__ == "__main__":
    main()
