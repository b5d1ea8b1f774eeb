"""Initialization of an MQ-Former from BERT, or from a Q-Former of BLIP-2 or InstructBLIP (Transformers or LAVIS).

The names of the weights show the layout. A Q-Former brings visual queries and their cross-attention; BERT has neither.
Grounding queries and their cross-attention are always new, because no earlier model has them.
"""

from __future__ import annotations

import os
import re
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging
from transformers.utils.hub import cached_file

from ..modeling_lyrics import LyricsMQFormerConfig, LyricsMQFormerModel
from ..modeling_lyrics.checkpoint_files import check_names, naming, read_object
from ..modeling_lyrics.pretraining_objectives import LanguageModelingHead
from ..modeling_lyrics.weight_tables import QFORMER, WeightTable
from .weights import FilePath, StateDict, convert, count_layers, read_weights

logger = logging.get_logger(__name__)

# Weights that are read, because a BLIP-2 also holds a language model of billions of parameters.
_READ = re.compile(
    r"(module\.|model\.)?((bert|qformer|Qformer|embeddings|encoder\.layer|cls|ln_vision|layernorm)\.|query_tokens$)"
)
_HEAD = (
    (r"^cls\.predictions\.transform\.dense\.", "lm_head.dense."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "lm_head.layer_norm."),
    (r"^cls\.predictions\.decoder\.weight$", "lm_head.decoder.weight"),
    (r"^cls\.predictions\.bias$", "lm_head.decoder.bias"),
)

# From every layout to that of Transformers' InstructBLIP without its prefix, which `QFORMER` converts.
_TO_QFORMER = WeightTable(
    renames=(
        (r"^module\.", ""),
        (r"^model\.(?=(qformer|query_tokens))", ""),
        (r"^Qformer\.(bert\.)?", ""),
        (r"^qformer\.", ""),
        (r"^bert\.", ""),
        (r"^layernorm\.", "embeddings.layernorm."),  # outside the embeddings in BLIP-2
        (r"^ln_vision\.", "vision_layer_norm."),
        (r"\.(attention|crossattention)\.self\.", r".\1.attention."),
        (r"\.gamma$", ".weight"),  # old BERT files
        (r"\.beta$", ".bias"),
        *_HEAD,
    ),
    dropped=(r"position_ids$", r"^(?!embeddings|encoder|query_tokens|vision_layer_norm|lm_head)"),
)
_TYPE_EMBEDDINGS = "embeddings.token_type_embeddings.weight"
_COPIED_FROM = {"[BOS]": "cls_token_id", "[DEC]": "cls_token_id", "[MLM]": "mask_token_id"}


def load_mqformer(
    source: FilePath,
    tokenizer: PreTrainedTokenizerBase,
    *,
    encoder_hidden_size: int | None = None,
    num_visual_queries: int = 32,
    num_attention_heads: int | None = None,
    **config_kwargs: Any,
) -> tuple[LyricsMQFormerModel, LanguageModelingHead | None]:
    """Build an MQ-Former from pretrained weights; a warning names the weights that are new.

    Args:
        source: directory or Hub id of a BERT, BLIP-2 (also for retrieval) or InstructBLIP of Transformers, or a `.pth`
            file of LAVIS.
        tokenizer: tokenizer of the MQ-Former, with the tokens of the first stage (`trainers.add_stage_1_tokens`).
            Embeddings of tokens that the source lacks are copies: `[BOS]` and `[DEC]` of `[CLS]`, `[MLM]` of `[MASK]`.
        encoder_hidden_size: width of the vision features; required for BERT, and else that of the Q-Former.
        num_visual_queries: number of visual queries for BERT; a Q-Former brings its own.
        num_attention_heads: number of attention heads; by default one per 64 features.
        config_kwargs: further fields of `LyricsMQFormerConfig` (`num_grounding_queries`, `region_hidden_size`, ...).

    Returns:
        The MQ-Former in evaluation mode, and the language modeling head, or `None` if the source has none.

    Raises:
        ValueError: if the source is none of these, or its sizes or its vocabulary do not fit; the message names it.
    """
    weights = convert(_read(source), _TO_QFORMER)
    if not any(name.startswith("encoder.layer.") for name in weights):
        raise ValueError(f"{source} holds no BERT and no Q-Former: there is no weight of a layer that could be used.")
    if _TYPE_EMBEDDINGS in weights:  # BERT adds the first row to every token of a single sentence
        weights["embeddings.position_embeddings.weight"] += weights.pop(_TYPE_EMBEDDINGS)[0]
    _align_vocabulary(weights, tokenizer, source)
    config = _infer_config(weights, encoder_hidden_size, num_visual_queries, num_attention_heads, source)
    config = LyricsMQFormerConfig(vocab_size=len(tokenizer), **config | config_kwargs)
    head_weights = {name: weights.pop(name) for name in list(weights) if name.startswith("lm_head.")}
    weights = convert(weights, QFORMER)
    _fill_feed_forward(weights)
    mqformer = LyricsMQFormerModel(config).eval()
    if "query_tokens" in weights:
        queries = mqformer.query_tokens.detach().clone()
        queries[:, : config.num_visual_queries] = weights["query_tokens"]
        weights["query_tokens"] = queries
    _load(mqformer, weights, source)
    return mqformer, _build_head(config, head_weights, mqformer, source)


def _read(source: FilePath) -> StateDict:
    """Return those weights of a file, a directory or a Hub repository that may be a Q-Former's or a BERT's."""
    if os.path.isfile(source):
        return _read_file(os.fspath(source))
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (file := cached_file(source, name, _raise_exceptions_for_missing_entries=False)) is not None:
            return _read_file(file)
        index = cached_file(source, f"{name}.index.json", _raise_exceptions_for_missing_entries=False)
        if index is not None:
            places: dict[str, str] = read_object(index)["weight_map"]
            check_names(places, index)
            shards = sorted({shard for weight, shard in places.items() if _READ.match(weight)})
            files = [str(cached_file(source, shard)) for shard in shards]
            return {name: tensor for file in files for name, tensor in _read_file(file).items()}
    raise ValueError(f"{source} is neither a checkpoint file nor a directory or a Hub id with one.")


def _read_file(path: str) -> StateDict:
    if not path.endswith(".safetensors"):
        return {name: tensor for name, tensor in read_weights(path).items() if _READ.match(name)}
    with naming(path), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if _READ.match(name)}  # noqa: SIM118


def _infer_config(
    weights: StateDict, encoder_hidden_size: int | None, num_visual_queries: int, heads: int | None, source: FilePath
) -> dict[str, Any]:
    """Return the fields of `LyricsMQFormerConfig` that the weights show."""
    layer = "encoder.layer.0."
    hidden_size = weights[f"{layer}attention.attention.query.weight"].shape[0]
    feed_forward = [weights.get(f"{layer}{name}.dense.weight") for name in ("intermediate_query", "intermediate")]
    config = {
        "hidden_size": hidden_size,
        "num_hidden_layers": count_layers(weights, r"^encoder\.layer\.(\d+)\."),
        "num_attention_heads": heads or max(1, hidden_size // 64),
        "intermediate_size": next(len(one) for one in feed_forward if one is not None),
        "num_visual_queries": num_visual_queries,
    }
    if (positions := weights.get("embeddings.position_embeddings.weight")) is not None:
        config["max_position_embeddings"] = len(positions)
    places = (re.match(r"encoder\.layer\.(\d+)\.crossattention", name) for name in weights)
    if crossing := sorted({int(place[1]) for place in places if place}):
        width = weights[f"{layer}crossattention.attention.key.weight"].shape[1]
        if encoder_hidden_size not in (None, width):
            raise ValueError(f"{source} attends to vision features of width {width}, not {encoder_hidden_size}.")
        encoder_hidden_size = width
        config["cross_attention_frequency"] = crossing[1] if len(crossing) > 1 else config["num_hidden_layers"]
        config["num_visual_queries"] = weights["query_tokens"].shape[1]
        config["normalize_vision_features"] = "vision_layer_norm.weight" in weights
    if encoder_hidden_size is None:
        raise ValueError(f"{source} attends to no vision features: give encoder_hidden_size, the width of yours.")
    return config | {"encoder_hidden_size": encoder_hidden_size}


def _align_vocabulary(weights: StateDict, tokenizer: PreTrainedTokenizerBase, source: FilePath) -> None:
    """Reorder and extend the rows of the word embeddings and of the head, so that they follow the tokenizer's ids."""
    words = weights.get("embeddings.word_embeddings.weight")
    if words is None:
        return
    added = [token for token in _COPIED_FROM if token in tokenizer.get_vocab()]
    base = len(tokenizer) - len(added)
    if len(words) not in (base, base + 1):
        raise ValueError(
            f"{source} has {len(words)} words and the tokenizer {len(tokenizer)} tokens, {len(added)} of them for the "
            "first stage: the tokenizer is not the one of this checkpoint."
        )
    rows = list(range(base))
    for token in sorted(added, key=tokenizer.convert_tokens_to_ids):
        has_own = token == "[DEC]" and len(words) == base + 1  # as in BLIP-2 and InstructBLIP
        rows.append(base if has_own else getattr(tokenizer, _COPIED_FROM[token]))
    for name in ("embeddings.word_embeddings.weight", "lm_head.decoder.weight", "lm_head.decoder.bias"):
        if name in weights:
            weights[name] = weights[name][rows]


def _fill_feed_forward(weights: StateDict) -> None:
    """Copy the feed-forward networks of text to queries, or the other way round, in layers that have only one."""
    for have, lack in (("text_mlp", "query_mlp"), ("query_mlp", "text_mlp")):
        for name in [name for name in weights if f".{have}." in name]:
            weights.setdefault(name.replace(have, lack), weights[name].clone())


def _load(mqformer: LyricsMQFormerModel, weights: StateDict, source: FilePath) -> None:
    """Load the weights, and log a warning with the names of those that stay new."""
    state = mqformer.state_dict()
    for name, tensor in weights.items():
        if name not in state or tensor.shape != state[name].shape:
            needed = f"shape {tuple(state[name].shape)}" if name in state else "no such weight"
            raise ValueError(f"{source}: {name} has shape {tuple(tensor.shape)}, but this MQ-Former has {needed}.")
    missing, _ = mqformer.load_state_dict(weights, strict=False)
    new = sorted({re.sub(r"^layers\.\d+\.", "layers.*.", name).rpartition(".")[0] or name for name in missing})
    if "query_tokens" in weights and mqformer.config.num_grounding_queries:
        new.append("query_tokens of the grounding queries")
    if new:
        logger.warning(
            "The MQ-Former initialized from %s has new weights, which must be trained: %s.", source, ", ".join(new)
        )


def _build_head(
    config: LyricsMQFormerConfig, weights: StateDict, mqformer: LyricsMQFormerModel, source: FilePath
) -> LanguageModelingHead | None:
    """Build BERT's head, whose decoder is tied to the word embeddings if it has no weight of its own."""
    if not weights:
        return None
    head = LanguageModelingHead(config)
    weights.setdefault("lm_head.decoder.weight", mqformer.embeddings.word_embeddings.weight.detach())
    head.load_state_dict({name.removeprefix("lm_head."): tensor for name, tensor in weights.items()})
    return head
