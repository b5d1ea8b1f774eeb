"""How long stage 2 takes on one GPU, calculated from operations and not measured.

Operations of one conversation of 1,024 tokens with one image, half of them answers, for the models of
`stage2_memory.py` with LoRA as in the paper; then the hours for 100,000 conversations on one GPU at the stated share of
its peak in bfloat16 (as its data sheet gives it for dense matrices). What data loading, the refiner and 4-bit weights
cost is not counted.

    python benchmarks/stage2_time.py
    python benchmarks/stage2_time.py --utilization 0.3 --conversations 1000000
"""

from __future__ import annotations

import argparse

from stage2_memory import LENGTH, SIZES, build_config

from lyrics.trainers import LyricsSFTConfig
from lyrics.trainers.common.training_flops import ConversationSize, count_training_flops

PEAKS = {"L40S": 362e12, "A100": 312e12, "H100 SXM": 989e12}  # operations per second
TERA = 1e12


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--utilization", type=float, default=0.4, help="share of the peak that is reached (default: 0.4)"
    )
    parser.add_argument("--conversations", type=int, default=100_000, help="number of conversations (default: 100000)")
    arguments = parser.parse_args()
    if not 0 < arguments.utilization <= 1:
        parser.error(f"argument --utilization: must be in (0, 1], got {arguments.utilization}")
    args = LyricsSFTConfig(output_dir="unused", bf16=False, report_to=[])
    full = LyricsSFTConfig(output_dir="unused", bf16=False, report_to=[], train_language_model=True)
    size = ConversationSize(tokens=LENGTH, labels=LENGTH // 2)
    print("| language model | TFLOP, LoRA | checkpointed | in full, checkpointed |", end="")
    print("".join(f" hours, {name} |" for name in PEAKS))
    print("|---" * (4 + len(PEAKS)) + "|")
    for name in SIZES:
        config = build_config(name)
        lora, again, all_of_it = (
            sum(count_training_flops(config, *how).values())
            for how in ((args, size), (args, size, True), (full, size, True))
        )
        hours = [again * arguments.conversations / (peak * arguments.utilization) / 3600 for peak in PEAKS.values()]
        cells = [*(f"{value / TERA:.1f}" for value in (lora, again, all_of_it)), *(f"{value:.1f}" for value in hours)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
