"""Attribution of an answer: the objects that the grounding queries attended to, and those that the answer used."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import output_capturing

from .modeling_lyrics import LyricsForConditionalGeneration

_ENCODED = ("pixel_values", "region_features", "region_attention_mask")


@dataclass
class LyricsAttribution:
    """Attention weights of one conversation. N images, G grounding queries, R regions, T tokens of the answer.

    Attention shows where the model looked, which is not always what decided the answer.

    Attributes:
        query_weights: float32 tensor of shape (N, G, R), attention of each grounding query over the regions, averaged
            over heads and layers. A row sums to 1, to less with `region_nothing`, and to 0 for an image without
            regions.
        token_weights: float32 tensor of shape (T, N, R), attention of each token of the answer to each region, through
            the grounding queries and all layers of the language model. A row sums to the share of the token's attention
            that reaches grounding queries, minus the share that these give to no region.
        token_ids: int64 tensor of shape (T,), the answer.
    """

    query_weights: torch.Tensor
    token_weights: torch.Tensor
    token_ids: torch.Tensor

    def region_weights(self, start: int = 0, end: int | None = None) -> torch.Tensor:
        """Return the share of each region in the attention of the answer's tokens, shape (N, R).

        The shares sum to 1 over all images, or to 0 when no region was attended to.

        Args:
            start, end: range of the answer's tokens; all by default.
        """
        weights = self.token_weights[start:end].sum(dim=0)
        return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


@torch.no_grad()
def attribute_answer(
    model: LyricsForConditionalGeneration, inputs: Mapping[str, Any], generated: torch.Tensor
) -> LyricsAttribution:
    """Run a model over its own answer and record where it attends.

    Args:
        model: `LyricsForConditionalGeneration`. A copy that shares its weights runs, with eager attention.
        inputs: mapping of one conversation's tensors, as `generate` received them from the processor.
        generated: int64 tensor of shape (1, L) or (L,), the output of `generate`: the prompt and the answer.

    Raises:
        ValueError: there are several conversations, no answer, an image or its regions are missing, or the language
            model has no attention. Of one that has it in some of its layers, these are followed.
    """
    sequence, prompt = generated.reshape(1, -1), inputs["input_ids"]
    if (generated.dim() > 1 and len(generated) != 1) or len(prompt) != 1:
        raise ValueError(f"One conversation at a time can be explained, got {max(len(generated), len(prompt))}.")
    length = sequence.shape[1] - prompt.shape[1]
    if length < 1:
        raise ValueError("There is no answer to explain: `generated` holds the prompt and what follows it.")
    missing = [name for name in _ENCODED if inputs.get(name) is None]
    if missing:
        raise ValueError(f"An answer is explained by regions of its images, but there are no {', '.join(missing)}.")
    queries: Any = model.config.mqformer_config
    image_inputs = {name: inputs[name] for name in (*_ENCODED, *_text_inputs(inputs))}
    twin = _eager_twin(model)
    image = twin.get_image_features(**image_inputs, output_grounding_attentions=True, return_dict=True)
    output = twin(
        input_ids=sequence,
        attention_mask=torch.nn.functional.pad(inputs["attention_mask"], (0, length), value=1),
        mm_encoder_outputs={"image": image},
        output_attentions=True,
        return_dict=True,
    )
    if not output.attentions:
        raise ValueError(
            f"A {model.config.text_config.model_type} has no attention to follow from an answer to the objects."
        )
    regions = inputs["region_features"]
    query_weights = regions.new_zeros(len(regions), queries.num_grounding_queries, regions.shape[1]).float()
    queried = image.mqformer_output
    if queried is not None and (by_layer := queried.grounding_attentions):  # empty where no image has regions
        query_weights = torch.stack([attention.float().mean(dim=1) for attention in by_layer]).mean(dim=0)
    places = (sequence[0] == model.config.image_token_id).nonzero().view(len(query_weights), queries.num_queries)
    places = places[:, queries.num_visual_queries :]  # (N, G)
    # a token is predicted at the position before it
    rows = torch.arange(prompt.shape[1] - 1, sequence.shape[1] - 1, device=sequence.device)
    token_weights = torch.einsum("tng,ngr->tnr", follow_attention(output.attentions, rows)[:, places], query_weights)
    return LyricsAttribution(query_weights.cpu(), token_weights.cpu(), sequence[0, -length:].cpu())


def follow_attention(attentions: Sequence[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """Return how much each position contributes to some positions, through all layers (attention rollout).

    Abnar and Zuidema, arXiv 2005.00928. The strongest head counts, since most heads attend to nothing in particular.

    Args:
        attentions: sequence of tensors of shape (1, heads, L, L), one for each layer.
        rows: int64 tensor of shape (T,), the positions to explain.

    Returns:
        float32 tensor of shape (T, L); each row sums to 1.
    """
    passing = torch.eye(attentions[0].shape[-1], device=rows.device)
    flow = passing[rows]
    for layer in reversed(attentions):
        step = passing + layer[0].float().amax(dim=0).to(rows.device)
        flow = flow @ (step / step.sum(dim=-1, keepdim=True))
    return flow


def _text_inputs(inputs: Mapping[str, Any]) -> list[str]:
    """Return the names of the MQ-Former's text inputs."""
    return [name for name in inputs if name.startswith("mqformer_")]


def _eager_twin(model: LyricsForConditionalGeneration) -> LyricsForConditionalGeneration:
    """Return a copy that shares all weights, and whose eager attention returns its own weights.

    The model itself stays as it is, since another thread may be generating with it.
    """
    shared = [*model.parameters(), *model.buffers()]
    shared += [module._hf_hook for module in model.modules() if hasattr(module, "_hf_hook")]  # they hold weights, too
    # Transformers adds its hooks on first use: a copy of a model that has a part of them would record outputs twice
    with output_capturing._hook_installation_lock:  # pyright: ignore[reportPrivateUsage]
        twin = copy.deepcopy(model, {id(one): one for one in shared})
    for part in (twin.model.mqformer, twin.model.language_model):
        part.set_attn_implementation("eager")
    return twin


__all__ = ["LyricsAttribution", "attribute_answer"]
