"""Tiny random language models of many families, with tokenizers that hold the tokens of their chat templates."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from lyrics.processing_lyrics.language_model_templates import _BRACKETED

TEMPLATES = Path(os.path.dirname(trl.__file__)) / "chat_templates"
WORDS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")  # not special

# Formats of families whose template TRL does not hold, written for these tests.
_CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('no ' + message['role']) }}{% endif %}"
    "{% endfor %}"
)
_PHI4 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] }}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
_OLMO2 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_BAR = "\uff5c"  # in the tokens of DeepSeek
_DEEPSEEK = (
    (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
        "{% elif message['role'] == 'user' %}{{ '<BUserB>' + message['content'] }}"
        "{% else %}{{ '<BAssistantB>' + message['content'] + '<Bend\u2581of\u2581sentenceB>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<BAssistantB>' }}{% endif %}"
    )
    .replace("<B", f"<{_BAR}")
    .replace("B>", f"{_BAR}>")
)
_SMOLLM3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>\\n' }}"
    "{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A family of language models.

    Attributes:
        kind: `model_type` of Transformers.
        template: chat template, the name of one of TRL's, or `None` for a tokenizer without one.
        way: how answers are found.
        config: fields of the configuration that matter to the family.
        tokens: special tokens by role, such as `eos_token`.
        extra: tokens that the template builds from pieces.
        stop: further tokens that end an answer, as the generation settings declare them.
        lora: names of the layers that LoRA tunes.
        has_system: whether the template takes a message of the system.
        beside: texts that TRL's training template counts with an answer, besides its end.
    """

    kind: str
    template: str | None
    way: str
    config: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    lora: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    has_system: bool = True
    beside: tuple[str, ...] = ()

    @property
    def source(self) -> str | None:
        """Text of the chat template."""
        if self.template is None or "{" in self.template:
            return self.template
        return (TEMPLATES / f"{self.template}.jinja").read_text()


_LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
_QWEN = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
_GQA = {"num_key_value_heads": 1}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DELTA = {  # linear attention, which keeps a state in place of keys and values
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

FAMILIES = {
    "llama3": Family("llama", "llama3_1", "marks", _GQA, _LLAMA3, ("<|end_of_text|>",), ("<|end_of_text|>",)),
    "llama3.0": Family("llama", "llama3", "training template", _GQA, _LLAMA3),
    "qwen2.5": Family("qwen2", "qwen2_5", "training template", _GQA | {"tie_word_embeddings": True}, _QWEN),
    "qwen3": Family("qwen3", "qwen3", "training template", _GQA | {"head_dim": 16}, _QWEN, (), ("<|endoftext|>",)),
    "qwen3.5": Family(
        "qwen3_5_text",
        "qwen3_5_nothink",
        "training template",
        _GQA | _DELTA | {"head_dim": 16},
        _QWEN,
        (),
        ("<|endoftext|>",),
    ),
    "gemma2": Family(
        "gemma2",
        "gemma",
        "training template",
        _GQA | _SLIDING | {"head_dim": 16, "final_logit_softcapping": 12.0, "tie_word_embeddings": True},
        _GEMMA,
        stop=("<end_of_turn>",),
        has_system=False,
    ),
    "gemma3": Family(
        "gemma3_text",
        "gemma3",
        "training template",
        _GQA | _SLIDING | {"head_dim": 16, "tie_word_embeddings": True},
        _GEMMA,
    ),
    "gemma4": Family(
        "gemma4_text", "gemma4", "marks", _GQA | {"head_dim": 16, "hidden_size_per_layer_input": 8}, _GEMMA
    ),
    "gemma3n": Family(
        "gemma3n_text",
        "gemma3",
        "training template",
        _GQA
        | _SLIDING
        | {"head_dim": 16, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 250}
        | {
            "laurel_rank": 8,
            "num_kv_shared_layers": 0,
            "altup_num_inputs": 2,
            "activation_sparsity_pattern": [0.0, 0.0],
        },
        _GEMMA,
    ),
    "mistral": Family(
        "mistral",
        _MISTRAL,
        "marks",
        _GQA | {"sliding_window": 16},
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        has_system=False,
    ),
    "phi3": Family(
        "phi3",
        "phi3",
        "training template",
        {"pad_token_id": 0},
        {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        ("<|system|>",),
        lora=("qkv_proj",),
    ),
    "phi4": Family(
        "phi3",
        _PHI4,
        "marks",
        _GQA | {"pad_token_id": 0},
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        lora=("qkv_proj",),
    ),
    "olmo2": Family(
        "olmo2",
        _OLMO2,
        "marks",
        {},
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"},
        ("<|user|>", "<|system|>"),
    ),
    "smollm2": Family(
        "llama",
        _CHATML,
        "marks",
        _GQA | {"tie_word_embeddings": True},
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    ),
    "smollm3": Family(
        "smollm3",
        _SMOLLM3,
        "generation tags",
        _GQA | {"no_rope_layers": [1, 0], "tie_word_embeddings": True},
        {"eos_token": "<|im_end|>"},
    ),
    "gpt_oss": Family(
        "gpt_oss",
        "gptoss",
        "training template",
        _GQA | {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
        {"bos_token": "<|startoftext|>", "eos_token": "<|return|>", "pad_token": "<|endoftext|>"},
        ("<|endoftext|>", "<|call|>"),
        ("<|endoftext|>", "<|call|>"),
        beside=("<|start|>assistant<|channel|>final<|message|>", "<|end|>"),
    ),
    "deepseek_v3": Family(
        "deepseek_v3",
        _DEEPSEEK,
        "marks",
        _EXPERTS
        | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
        | {
            "num_key_value_heads": 2,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 16,
            "v_head_dim": 16,
        },
        {"bos_token": f"<{_BAR}begin▁of▁sentence{_BAR}>", "eos_token": f"<{_BAR}end▁of▁sentence{_BAR}>"},
        lora=("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
    ),
    "lfm2": Family(
        "lfm2",
        "lfm2_v2",
        "training template",
        _GQA | {"layer_types": ["conv", "full_attention"]},
        {"bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"},
    ),
    "mamba2": Family(
        "mamba2",
        None,
        "generation tags",
        {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
        {"eos_token": "<|endoftext|>"},
        lora=("in_proj",),
    ),
    "gpt_neox": Family(
        "gpt_neox",
        None,
        "generation tags",
        {},
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        lora=("query_key_value",),
    ),
    "falcon": Family(
        "falcon",
        None,
        "generation tags",
        {"multi_query": True, "new_decoder_architecture": False},
        {"eos_token": "<|endoftext|>"},
        lora=("query_key_value",),
    ),
}

_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}

UNUSUAL = {  # not run through the whole matrix
    "falcon_h1": Family(
        "falcon_h1", None, "generation tags", _GQA | _MAMBA | {"head_dim": 16, "mamba_d_ssm": 64}, _QWEN
    ),
    "granite": Family(
        "granitemoe", None, "generation tags", _GQA | {"num_local_experts": 4, "num_experts_per_tok": 2}, _QWEN
    ),
    "minimax": Family(
        "minimax",
        None,
        "generation tags",
        _GQA
        | {"num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 8, "head_dim": 16}
        | {"layer_types": ["linear_attention", "full_attention"]},
        _QWEN,
    ),
}


def build_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer with the tokens of a family's template."""
    source = family.source or ""
    found = {
        mark for mark in _BRACKETED.findall(source) if not mark.startswith(("<tools", "</tools", "<function", "<args"))
    }
    special = dict.fromkeys([*family.tokens.values(), *family.extra, *sorted(found - set(WORDS))])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bos = family.tokens.get("bos_token")
    if bos is not None:  # added to any text, as by Llama's; a template that writes it must not get a second one
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in WORDS if word in source])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=family.source, model_max_length=2048, **family.tokens
    )


def build_language_model(family: Family, seed: int = 0) -> Any:
    """Build a causal language model of two layers."""
    tokenizer = build_tokenizer(family)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    fields = {"vocab_size": len(tokenizer) + 3, "max_position_embeddings": 2048, **sizes, **ids, **family.config}
    if family.kind == "phi3":
        fields["pad_token_id"] = tokenizer.pad_token_id
    config = AutoConfig.for_model(family.kind, **fields)
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    stop = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(list(family.stop))]
    model.generation_config = GenerationConfig(eos_token_id=stop if family.stop else tokenizer.eos_token_id)
    return model.eval()


def save_language_model(family: Family, folder: Path, logit_scale: float = 1.0) -> Path:
    """Save a language model and its tokenizer as a checkpoint.

    The logits of so small a model are close to each other, and LoRA leaves the head as it is: to learn by heart, their
    scale must be larger.
    """
    model = build_language_model(family)
    layers = model.base_model.named_children()
    final_norm = [
        one for name, one in layers if getattr(one, "weight", torch.empty(0, 0)).dim() == 1 and "per_layer" not in name
    ][-1]
    final_norm.weight.data.add_(logit_scale - 1)  # those of Gemma are added to 1
    model.save_pretrained(folder)
    build_tokenizer(family).save_pretrained(folder)
    return folder
