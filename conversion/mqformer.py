"""Starting points of an MQ-Former: BERT, and the Q-Formers of BLIP-2 and InstructBLIP, of Transformers and of LAVIS.

The layout is told by the names of the weights. Visual queries and their cross-attention come from a Q-Former; BERT has
neither. Grounding queries and their cross-attention are always new: nothing before Lyrics has them.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils import logging
from transformers.utils.hub import cached_file

from ..modeling_lyrics import LyricsMQFormerConfig, LyricsMQFormerModel
from ..modeling_lyrics.pretraining_objectives import LanguageModelingHead
from ..modeling_lyrics.weight_tables import QFORMER, WeightTable
from .weights import StateDict, convert, count_layers, read_weights

logger = logging.get_logger(__name__)

# What of a checkpoint is read: a BLIP-2 holds a language model of billions of weights beside its Q-Former.
_READ = re.compile(
    r"(module\.|model\.)?((bert|qformer|Qformer|embeddings|encoder\.layer|cls|ln_vision|layernorm)\.|query_tokens$)"
)
_HEAD = (
    (r"^cls\.predictions\.transform\.dense\.", "lm_head.dense."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "lm_head.layer_norm."),
    (r"^cls\.predictions\.decoder\.weight$", "lm_head.decoder.weight"),
    (r"^cls\.predictions\.bias$", "lm_head.decoder.bias"),
)

# Every layout -> Transformers' InstructBLIP without the prefix, which `QFORMER` knows.
_TO_QFORMER = WeightTable(
    renames=(
        (r"^module\.", ""),
        (r"^model\.(?=(qformer|query_tokens))", ""),
        (r"^Qformer\.(bert\.)?", ""),
        (r"^qformer\.", ""),
        (r"^bert\.", ""),
        (r"^layernorm\.", "embeddings.layernorm."),  # BLIP-2 has it outside the embeddings
        (r"^ln_vision\.", "vision_layer_norm."),
        (r"\.(attention|crossattention)\.self\.", r".\1.attention."),
        (r"\.gamma$", ".weight"),  # old BERT files
        (r"\.beta$", ".bias"),
        *_HEAD,
    ),
    dropped=(r"position_ids$", r"^(?!embeddings|encoder|query_tokens|vision_layer_norm|lm_head)"),
)
_TYPE_EMBEDDINGS = "embeddings.token_type_embeddings.weight"
_BORROWED = {"[BOS]": "cls_token_id", "[DEC]": "cls_token_id", "[MLM]": "mask_token_id"}


def load_mqformer(
    source: str | os.PathLike,
    tokenizer: Any,
    *,
    encoder_hidden_size: int | None = None,
    num_visual_queries: int = 32,
    num_attention_heads: int | None = None,
    **config_kwargs: Any,
) -> tuple[LyricsMQFormerModel, LanguageModelingHead | None]:
    """Build an MQ-Former on pretrained weights; a warning names those that are new.

    Args:
        source: a directory or Hub id of a BERT, a BLIP-2 (also one for retrieval) or an InstructBLIP of Transformers,
            or a `.pth` file of LAVIS.
        tokenizer: the MQ-Former's, with the tokens of the first stage (`trainers.add_stage_1_tokens`). Rows of tokens
            that the source lacks are copies: `[BOS]` and `[DEC]` of `[CLS]`, `[MLM]` of `[MASK]`.
        encoder_hidden_size: width of the vision features; needed for BERT, and for a Q-Former that of the source.
        num_visual_queries: for BERT; a Q-Former brings its own.
        num_attention_heads: one per 64 features by default.
        config_kwargs: further fields of `LyricsMQFormerConfig` (`num_grounding_queries`, `region_hidden_size`, ...).

    Returns:
        The MQ-Former in evaluation mode, and the language modelling head where the source has one.

    Raises:
        ValueError: naming the source, when it is none of these, or when sizes or vocabulary do not fit.
    """
    weights = convert(_read(source), _TO_QFORMER)
    if not any(name.startswith("encoder.layer.") for name in weights):
        raise ValueError(f"{source} holds no BERT and no Q-Former: there is no weight of a layer that could be used.")
    if _TYPE_EMBEDDINGS in weights:  # of one sentence; BERT adds the first row to every token
        weights["embeddings.position_embeddings.weight"] += weights.pop(_TYPE_EMBEDDINGS)[0]
    _fit_vocabulary(weights, tokenizer, source)
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


def _read(source: str | os.PathLike) -> StateDict:
    """The weights of a file, a directory or a Hub repository that may be a Q-Former's or a BERT's.

    Raises:
        ValueError: when there is no checkpoint.
    """
    if os.path.isfile(source):
        return {name: tensor for name, tensor in read_weights(source).items() if _READ.match(name)}
    for name in ("model.safetensors", "pytorch_model.bin"):
        for file_name in (name, f"{name}.index.json"):
            file = cached_file(source, file_name, _raise_exceptions_for_missing_entries=False)
            if file is not None:
                shards = [file]
                if file_name != name:
                    places: dict[str, str] = json.loads(Path(file).read_text())["weight_map"]
                    names = sorted({shard for weight, shard in places.items() if _READ.match(weight)})
                    shards = [str(cached_file(source, _plain(shard, file))) for shard in names]
                return {name: tensor for shard in shards for name, tensor in _read_shard(shard).items()}
    raise ValueError(f"{source} is neither a checkpoint file nor a directory or a Hub id with one.")


def _plain(shard: str, index: str) -> str:
    """The name of a shard, which must lie beside its index."""
    if os.path.basename(shard) != shard:
        raise ValueError(f"{index} names the shard {shard!r}, which is not beside it.")
    return shard


def _read_shard(path: str) -> StateDict:
    if not path.endswith(".safetensors"):
        return {name: tensor for name, tensor in read_weights(path).items() if _READ.match(name)}
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if _READ.match(name)}  # noqa: SIM118


def _infer_config(
    weights: StateDict, encoder_hidden_size: int | None, num_visual_queries: int, heads: int | None, source: Any
) -> dict[str, Any]:
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


def _fit_vocabulary(weights: StateDict, tokenizer: Any, source: Any) -> None:
    """Rows of words, and of the head's vocabulary, in the order of the tokenizer."""
    words = weights.get("embeddings.word_embeddings.weight")
    if words is None:
        return
    added = [token for token in _BORROWED if token in tokenizer.get_vocab()]
    base = len(tokenizer) - len(added)
    if len(words) not in (base, base + 1):
        raise ValueError(
            f"{source} has {len(words)} words and the tokenizer {len(tokenizer)} tokens, {len(added)} of them for the "
            "first stage: they do not belong together."
        )
    rows = list(range(base))
    for token in sorted(added, key=tokenizer.convert_tokens_to_ids):
        has_own = token == "[DEC]" and len(words) == base + 1  # BLIP-2 and InstructBLIP have this one
        rows.append(base if has_own else getattr(tokenizer, _BORROWED[token]))
    for name in ("embeddings.word_embeddings.weight", "lm_head.decoder.weight", "lm_head.decoder.bias"):
        if name in weights:
            weights[name] = weights[name][rows]


def _fill_feed_forward(weights: StateDict) -> None:
    """Queries and text have a feed-forward network each; where one is missing, it starts as a copy of the other."""
    for have, lack in (("text_mlp", "query_mlp"), ("query_mlp", "text_mlp")):
        for name in [name for name in weights if f".{have}." in name]:
            weights.setdefault(name.replace(have, lack), weights[name].clone())


def _load(mqformer: LyricsMQFormerModel, weights: StateDict, source: Any) -> None:
    """Load what there is, and name what is new."""
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
        logger.warning("New in the MQ-Former that starts from %s, and to be trained: %s.", source, ", ".join(new))


def _build_head(
    config: LyricsMQFormerConfig, weights: StateDict, mqformer: LyricsMQFormerModel, source: Any
) -> LanguageModelingHead | None:
    if not weights:
        return None
    head = LanguageModelingHead(config)
    weights.setdefault("lm_head.decoder.weight", mqformer.embeddings.word_embeddings.weight.detach())
    head.load_state_dict({name.removeprefix("lm_head."): tensor for name, tensor in weights.items()})
    return head
