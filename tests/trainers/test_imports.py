"""Missing libraries of the extra `train`: importing works, and asking for a trainer says what to install."""

import subprocess
import sys

ASK = """
import lyrics, lyrics.trainers
for name in {names}:
    try:
        getattr(lyrics, name)
    except ImportError as error:
        print(error)
    else:
        print(name)
"""


def ask(names, missing):
    """Import names of `lyrics` where some libraries cannot be imported: each name, or its error."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({missing}))"
    code = blocked + ASK.format(names=names)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.strip().splitlines()[-len(names) :]


def test_trainers_without_their_libraries_say_what_to_install():
    names = ("LyricsPretrainingArguments", "LyricsSFTCollator", "LyricsPretrainingTrainer", "LyricsSFTTrainer")
    assert ask(names, missing=("trl", "peft", "datasets", "accelerate")) == [
        "LyricsPretrainingArguments",
        "LyricsSFTCollator",
        "LyricsPretrainingTrainer needs accelerate: pip install 'ziya-lyrics[train]'.",
        "LyricsSFTTrainer needs trl, peft, datasets, accelerate: pip install 'ziya-lyrics[train]'.",
    ]


def test_the_first_stage_needs_no_trl():
    names = ("LyricsPretrainingTrainer", "LyricsSFTConfig")
    assert ask(names, missing=("trl",)) == [
        "LyricsPretrainingTrainer",
        "LyricsSFTConfig needs trl: pip install 'ziya-lyrics[train]'.",
    ]
