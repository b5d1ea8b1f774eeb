"""What a user runs first, with an installed wheel: `python first_steps.py PYTHON README.md`, outside the repository.

`make test-wheel` runs it in a fresh environment that has the wheel and nothing of ours. It stops at the first command
that fails, answers something else than expected, or prints what other libraries have to say.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ANSWER = "red star: [0.461, 0.391, 0.672, 0.609]"
QUESTION = "Where is the red star?"
MICRO = "No --model is given: the micro model is used, which ships with the package and knows nothing but scenes of"

AUTO = f"""
import lyrics
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline
where = str(lyrics.MICRO_CHECKPOINT)
assert AutoConfig.from_pretrained(where).model_type == "lyrics"
assert isinstance(AutoModel.from_pretrained(where), lyrics.LyricsModel)
model, processor = AutoModelForImageTextToText.from_pretrained(where), AutoProcessor.from_pretrained(where)
messages = [{{"role": "user", "content": [
    {{"type": "image", "path": str(lyrics.SCENE_PICTURE)}}, {{"type": "text", "text": "{QUESTION}"}}]}}]
ask = pipeline("image-text-to-text", model=model, processor=processor)
print(ask(text=messages, max_new_tokens=32, return_full_text=False)[0]["generated_text"].strip())
model.save_pretrained("again")
processor.save_pretrained("again")
ask = pipeline("image-text-to-text", model="again", processor="again")
print(ask(text=messages, max_new_tokens=32, return_full_text=False)[0]["generated_text"].strip())
"""


def main(python: str, readme: str) -> None:
    bin_folder = Path(python).parent
    code = re.search(r"```python\n(.*?)```", Path(readme).read_text(), re.DOTALL)[1]
    with tempfile.TemporaryDirectory() as folder:

        def run(*command: object) -> tuple[str, str]:
            print("$", *(str(part).strip().splitlines()[0] for part in command), flush=True)
            done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
            return done.stdout, done.stderr

        where, _ = run(python, "-c", "import lyrics; print(lyrics.__file__)")
        assert "site-packages" in where, where
        lyrics = bin_folder / "lyrics"
        version, _ = run(lyrics, "--version")
        assert re.fullmatch(r"lyrics \d+\.\d+\.\d+\n", version), version
        scene, _ = run(python, "-c", "import lyrics; print(lyrics.SCENE_PICTURE)")
        scene = scene.strip()
        answer, said = run(lyrics, "ask", scene, QUESTION, "--save", "seen.png", "--why", "why.png")
        assert answer.startswith(f"Answer: {ANSWER}\n"), answer
        assert len(said.splitlines()) == 1, said
        assert said.startswith(MICRO), said
        refined, said = run(lyrics, "refine", scene, "--json")
        assert len(json.loads(refined)[0]["objects"]) == 9, refined
        assert len(said.splitlines()) == 1, said
        printed, _ = run(python, "-c", code)
        assert ANSWER in printed, printed
        printed, _ = run(python, "-c", AUTO)
        assert printed.splitlines()[-2:] == [ANSWER, ANSWER], printed
        assert all((Path(folder) / name).stat().st_size for name in ("seen.png", "why.png"))
    print("The first steps work.")


if __name__ == "__main__":
    main(*sys.argv[1:])
