"""Functions of the local tasks. lmms-eval loads this file by its path, and the rows name their images."""

from PIL import Image


def doc_to_visual(doc):
    return [Image.open(path).convert("RGB") for path in doc["images"]]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def doc_to_messages(doc, lmms_eval_specific_kwargs=None):
    images = [{"type": "image", "url": picture} for picture in doc_to_visual(doc)]
    return [{"role": "user", "content": [*images, {"type": "text", "text": doc["question"]}]}]


def doc_to_next_round(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=0, previous_round_info=None):
    """The first call makes the prompt; later ones say how the conversation goes on, three rounds in all."""
    if previous_output is None:
        return doc["question"]
    is_over = round_idx == 3
    return doc_to_visual(doc), "What shape is it?", is_over, previous_output, {"rounds": round_idx}


def process_results(doc, results):
    return {"exact_match": float(results[0] == doc["answer"])}


def process_rounds(doc, results):
    return {"rounds": float(len(results[0]) == 3)}
