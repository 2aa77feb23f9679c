"""The example of docs/capture.md runs unchanged, that of the README from the loading of the model."""

import re
from pathlib import Path

import capture_models

ROOT = Path(__file__).parent.parent


def test_the_example_in_the_docs_runs():
    text = (ROOT / "docs" / "capture.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    model, inputs = capture_models.tiny("llava")
    names = {"model": model, "inputs": inputs, "few": inputs}
    exec(compile(code, "docs/capture.md", "exec"), names)
    mass = names["kind"].mass
    assert mass.shape == (2, 2, 4, 22, 3) and names["kind"].groups == ["text", "image", "bos"]
    assert names["captured"].output.logits.shape[:2] == (2, 22)


def test_the_example_in_the_readme_runs(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    model, inputs = capture_models.tiny("llava")
    lines = [
        line for line in code.splitlines() if not line.startswith(("processor =", "model =", "inputs ="))
    ]
    exec(compile("\n".join(lines), "README.md", "exec"), {"model": model, "inputs": inputs})
    assert "['text', 'image', 'bos']" in capsys.readouterr().out
