"""The first batch of a run as text."""

from lyrics.trainers import LyricsSFTCollator
from lyrics.trainers.common.dry_run import _describe_labels

from ...processing_lyrics.test_language_model_templates import processor_of


def test_padding_is_not_taken_for_the_end_of_an_answer():
    """In SmolLM2, one token is both: the end of each answer is shown, and no padding."""
    processor = processor_of("smollm2")
    assert processor.tokenizer.pad_token == processor.tokenizer.eos_token == "<|im_end|>"
    questions = ({"role": "user", "content": text} for text in ("Who?", "What is it, and where?"))
    rows = [{"messages": [question, {"role": "assistant", "content": "Yes."}]} for question in questions]
    batch = LyricsSFTCollator(processor)(rows)
    mask = batch["attention_mask"].bool()
    assert not mask.all()
    lines = "\n".join(_describe_labels(processor, batch["input_ids"], mask, batch["labels"], ["first", "second"]))
    assert lines.count(">>>Yes.<|im_end|><<<") == 2
    assert "<|im_end|><|im_end|>" not in lines
