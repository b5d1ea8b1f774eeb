"""Copy from the full golden data what the tests read: `python tests/golden/copy_golden.py ../shared/golden`.

The shards of the checkpoint lose most of RAM's captioning branch, which nothing here reads, and those of the first
stage most of the tagger and the detector: what remains of them shows that they are dropped by name. The texts of the
first stage, which are padded to 600 tokens, lose padding. Everything else is what the original code wrote.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
UNREAD = ("ram.tag_encoder.", "ram.text_decoder.")
UNREAD_IN_PRETRAINING = ("ram.", "grounding_dino.")
KEPT_OF_UNREAD = ("LayerNorm.bias", "position_ids", "predictions.bias")

DETECTOR_INNER = [
    *(f"backbone_feature_{level}" for level in range(3)),
    "bert_last_hidden_state",
    "encoded_text",
    "encoder_memory_text",
    "topk_indices",
    "topk_scores",
    "decoder_hidden_states",
    "decoder_references",
]
EXPECTED = {
    "inputs": ["pixel_values", "ram_pixel_values", "grounding_image_0", "grounding_image_1"],
    "vision": ["last_hidden_state", "pooler_output"],
    "ram": ["visual_encoder_output", "image_embeds", "tagging_embed", "logits", "alt_class_threshold"],
    "text": ["input_ids", "attention_mask", "labels", "qformer_input_ids", "qformer_attention_mask"],
    "lm_no_instruction": None,
    "lm_with_instruction": None,
    "lm_single_0": None,
    "lm_single_1": None,
    "generate": [
        "left_input_ids",
        "left_attention_mask",
        "left_new_tokens",
        "left_scores",
        "left_no_instruction_new_tokens",
        "single_0_new_tokens",
        "single_1_new_tokens",
    ],
    "grounding_batch": ["input_ids", "attention_mask", "hidden_state"],
    **{
        f"grounding_{kind}_{image}": ["input_ids", "pred_logits", "pred_boxes", "hidden_state", *further]
        for kind, further in (("single", DETECTOR_INNER), ("padded_single", []))
        for image in (0, 1)
    },
}
LONGEST_TEXT = 160  # of the first stage's, before padding
PRETRAINING_EXPECTED = {
    "inputs": ["pixel_values"],
    "detector": ["image_embeds", "hidden_state"],
    "text": [
        f"text_input_{name}{suffix}"
        for name in ("tokens_ids", "labels", "attentions", "position_ids")
        for suffix in ("", "_with_mask")
    ],
    "losses": None,
    "gradients": None,
}
SAM_EXPECTED = ["input_image_0"] + [
    f"{name}_{image}"
    for image in (0, 1)
    for name in (
        "image_embeddings",
        "boxes",
        "boxes_resized",
        "multimask_low_res_masks",
        "multimask_iou_predictions",
        "singlemask_low_res_masks",
        "singlemask_iou_predictions",
        "singlemask_mask_logits",
    )
]


def select(source: Path, target: Path, names: list[str] | None) -> None:
    tensors = load_file(source)
    kept = {name: tensors[name] for name in names or tensors}
    save_file({name: unpad(tensor) for name, tensor in kept.items()}, target)


def unpad(tensor: torch.Tensor) -> torch.Tensor:
    is_padded = tensor.dim() > 1 and tensor.shape[1] == 600
    return tensor[:, :LONGEST_TEXT].contiguous() if is_padded else tensor


def copy_checkpoint(source: Path, target: Path, unread_names: tuple[str, ...] = UNREAD) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.bin"), copy_function=shutil.copyfile)
    removed = []
    for shard in sorted(source.glob("*.bin")):
        weights = torch.load(shard, weights_only=True)
        unread = [name for name in weights if name.startswith(unread_names) and not name.endswith(KEPT_OF_UNREAD)]
        removed += unread
        torch.save(
            {name: tensor.clone() for name, tensor in weights.items() if name not in unread}, target / shard.name
        )
    index_file = target / "pytorch_model.bin.index.json"
    index = json.loads(index_file.read_text())
    for name in removed:
        del index["weight_map"][name]
    index_file.write_text(json.dumps(index))


def main(shared: Path) -> None:
    for folder in ("published", "published_pretraining", "sam"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    source, target = shared / "legacy_lyrics_tiny", HERE / "published"
    copy_checkpoint(source / "checkpoint", target / "checkpoint")
    (target / "expected").mkdir()
    for name, tensors in EXPECTED.items():
        file = f"{name}.safetensors"
        select(source / "expected" / file, target / "expected" / file, tensors)
    for file in ("expected.json", "image_0.png", "image_1.png"):
        shutil.copyfile(source / "expected" / file, target / "expected" / file)
    source, target = shared / "legacy_lyrics_pretrain_tiny", HERE / "published_pretraining"
    copy_checkpoint(source / "checkpoint", target / "checkpoint", UNREAD_IN_PRETRAINING)
    (target / "expected").mkdir()
    for name, tensors in PRETRAINING_EXPECTED.items():
        select(source / f"expected/{name}.safetensors", target / f"expected/{name}.safetensors", tensors)
    shutil.copyfile(source / "expected/expected.json", target / "expected/expected.json")
    (HERE / "sam").mkdir()
    for file in ("sam_vit_tiny.pth", "image_0.png", "image_1.png"):
        shutil.copyfile(shared / "sam_original_tiny" / file, HERE / "sam" / file)
    select(shared / "sam_original_tiny/expected.safetensors", HERE / "sam/expected.safetensors", SAM_EXPECTED)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
