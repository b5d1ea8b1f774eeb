"""Ten questions of general knowledge, which have nothing to do with images."""

from __future__ import annotations

from typing import Any

from ...serving import Lyrics

QUESTIONS = {  # any of the words makes an answer right
    "What is the capital of France?": ("paris",),
    "How many days are in a week?": ("seven", "7"),
    "What color is the sky on a clear day?": ("blue",),
    "Which planet is known as the Red Planet?": ("mars",),
    "What is 2 + 2?": ("4", "four"),
    "Who wrote Romeo and Juliet?": ("shakespeare",),
    "What is frozen water called?": ("ice",),
    "What is the opposite of hot?": ("cold", "cool"),
    "Which animal barks?": ("dog",),
    "What is the largest ocean on Earth?": ("pacific",),
}


def ask_knowledge(assistant: Lyrics) -> list[dict[str, Any]]:
    """Ask the ten questions without an image.

    Returns:
        For each question a dictionary of `question`, `answer`, `right`, and `stopped`: whether the model ended its
        answer itself.
    """
    outcomes = []
    for question, words in QUESTIONS.items():
        answer = assistant.ask(None, question, max_new_tokens=48)
        right = any(word in answer.text.lower() for word in words)
        stopped = answer.finish_reason == "stop"
        outcomes.append({"question": question, "answer": answer.text, "right": right, "stopped": stopped})
    return outcomes
