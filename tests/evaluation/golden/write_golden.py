"""Write `lmms_eval.json`, in an environment with lmms-eval (`make test-lmms-eval` makes one).

python -m tests.evaluation.golden.write_golden
"""

import json
from importlib.metadata import version
from pathlib import Path

from tests.evaluation.parity import cases, score_with_lmms_eval


def main():
    """Score the cases of seed 0 with lmms-eval."""
    rows = cases(0, 60)
    content = {"lmms-eval": version("lmms-eval"), "rows": rows, "scores": score_with_lmms_eval(rows)}
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":")).replace('{"answer"', '\n{"answer"')
    Path(__file__).with_name("lmms_eval.json").write_text(text.replace('{"vqav2"', '\n{"vqav2"') + "\n")


if __name__ == "__main__":
    main()
