"""The tests of Transformers' suites that we skip, each with its reason.

Others skip themselves, for want of an accelerator or of a part that they are about; `SKIPPED.md` lists both.
"""

import unittest

OWN_LAYOUT = (
    "It expects `save_pretrained` to write a foreign layout back. Ours always writes its own; the conversions are "
    "compared with golden checkpoints in tests/modeling_lyrics/test_published_checkpoint.py and tests/conversion/."
)
NO_GENERATION_MIXIN = (
    "GenerationTesterMixin is not in the source distribution; generation is tested in tests/modeling_lyrics/."
)
WINDOWS = (
    "Swin's attentions and hidden states have the shapes of its windows; Transformers replaces this test for Swin."
)
NO_HIDDEN_STATES = "The refiner is three models in a row, frozen: it has no hidden states of its own, and no gradients."
NO_EMBEDDINGS = "The refiner takes images; it has no input embeddings."
WEIGHTS_NEEDED = (
    "It loads a checkpoint without weights, which the refiner refuses; see tests/modeling_lyrics/test_state.py."
)
NO_TORCHVISION = "The torchvision backend, `LyricsImageProcessorTorchvision`, is there where torchvision is."
FRESH_PROCESS = (
    "It loads the processor in a process that has not imported this package. All of our tests run without torchvision."
)

SKIPS: dict[str, dict[str, str]] = {
    "LyricsModelTest": {
        "test_generation_tester_mixin_inheritance": NO_GENERATION_MIXIN,
        "test_reverse_loading_mapping": OWN_LAYOUT,
    },
    "LyricsMQFormerModelTest": {"test_reverse_loading_mapping": OWN_LAYOUT},
    "RamModelTest": {
        "test_attention_outputs": WINDOWS,
        "test_hidden_states_output": WINDOWS,
        "test_reverse_loading_mapping": OWN_LAYOUT,
    },
    "LyricsImageProcessorTest": {
        "test_new_models_require_torchvision_backend": NO_TORCHVISION,
        "test_pil_can_run_without_torchvision": FRESH_PROCESS,
    },
    "LyricsVisualRefinerTest": {
        "test_hidden_states_output": NO_HIDDEN_STATES,
        "test_retain_grad_hidden_states_attentions": NO_HIDDEN_STATES,
        "test_model_get_set_embeddings": NO_EMBEDDINGS,
        "test_model_weights_reload_no_missing_tied_weights": WEIGHTS_NEEDED,
    },
}


def skip_with_reasons(test_class):
    """Class decorator: skip the tests that `SKIPS` names for the class; a name that no longer exists is an error."""
    for name, reason in SKIPS.get(test_class.__name__, {}).items():
        if not hasattr(test_class, name):
            raise AttributeError(f"{test_class.__name__} has no test {name}: take it off the list of skipped tests.")
        setattr(test_class, name, unittest.skip(reason)(getattr(test_class, name)))
    return test_class
