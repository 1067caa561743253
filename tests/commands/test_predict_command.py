"""`predict` as it is typed: names on stdin, lines on stdout, counts on stderr, and an exit code."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typed import run, weigh


def test_names_on_stdin_a_broken_file_and_exit_code_1(tmp_path: Path) -> None:
    file = weigh(tmp_path)
    (tmp_path / "broken.jpg").write_text("broken")
    Image.new("RGB", (80, 70), "red").save(tmp_path / "red.gif")
    names = f"{tmp_path}/gone.jpg\n{tmp_path}/red.gif\n"
    done = run("predict", f"--checkpoint={file}", str(tmp_path / "*.jpg"), "-", "--topk=9", input=names)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["broken.jpg", "gone.jpg", "red.gif"]
    assert lines[1]["error"] == "No such file or directory" and {row["id"] for row in lines[2]["top"]} == {*"abc"}
    assert done.returncode == 1 and done.stderr == (
        "1 of 3 pictures were mended\n2 of 3 pictures could not be read or decoded\n")
    (tmp_path / "classes.txt").write_text("b\nc\n")
    done = run("predict", f"--checkpoint={file}", str(tmp_path / "red.gif"), f"--classes={tmp_path}/classes.txt",
               f"--annotate={tmp_path}/labels.csv")
    _, row = (tmp_path / "labels.csv").read_text().splitlines()
    assert (done.returncode, done.stdout) == (0, "") and row.startswith(("red.gif,b,0.", "red.gif,c,0."))


@pytest.mark.parametrize("arguments, words", [
    ([], "predict what? Name files"), (["--annotate=labels.csv", "some.tar"], "cannot find in a tar"),
    (["--annotate=labels", "photos"], "call it .csv"),
    (["--annotate=labels.csv", "--out=lines", "photos"], "leave out --out")])
def test_a_mistake_is_told(arguments: list[str], words: str) -> None:
    done = run("predict", "--checkpoint=squeezenet1_1", *arguments)
    assert done.returncode == 2 and words in done.stderr
