"""What users get wrong: one line that says what and where, one that says what to do next, and the right exit code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Run = Callable[..., tuple[int, str, str]]
HEADER = "label,youtube_id,time_start,time_end,split"
GOOD = f"{HEADER}\nabseiling,abcdefghijk,0,10,train\n"


@pytest.fixture
def lists(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Writes ``kinetics400/train.csv`` and gives the annotations folder."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "annotations" / "kinetics400" / "train.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return tmp_path / "annotations"

    return write


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "kinetics400/train.csv: empty file"),
        (f"{HEADER}\n", "kinetics400/train.csv: no rows"),
        ("label,youtube_id,time_start,split\na,abcdefghijk,0,train\n", "column 'time_end' is missing"),
        (f"{HEADER},label\na,abcdefghijk,0,10,train,a\n", "column 'label' stands twice"),
        ("lable,youtube_id,time_start,time_end,split\na,abcdefghijk,0,10,train\n", "unknown column 'lable'"),
        (f"{GOOD}abseiling,tooshort,0,10,train\n", "train.csv row 3: youtube_id 'tooshort'"),
        (f"{GOOD}abseiling,abcdefghijl,zero,10,train\n", "train.csv row 3: time_start 'zero'"),
        (f"{GOOD}abseiling,abcdefghijl,10,4,train\n", "train.csv row 3: time_end '4' is not after time_start 10"),
        (f"{GOOD}abseilin,abcdefghijl,0,10,train\n", "train.csv row 3: label 'abseilin' is not a class of k400"),
        (f"{GOOD}abseiling,abcdefghijl,0,10,val\n", "train.csv row 3: split 'val' does not belong in the train list"),
        (f"{GOOD}abseiling,abcdefghijl,0,10\n", "train.csv row 3: expected 5 columns, found 4"),
    ],
)
def test_a_wrong_list_is_refused_with_file_row_and_column(
    k710: Run, lists: Callable[[str], Path], tmp_path: Path, text: str, said: str
) -> None:
    code, _, err = k710("build", "--annotations", lists(text), "--manifest-only", "--out", tmp_path / "out")
    assert code == 3
    assert said in err
    assert not (tmp_path / "out").exists()


def test_an_unknown_class_name_comes_with_the_nearest_ones(
    k710: Run, lists: Callable[[str], Path], tmp_path: Path
) -> None:
    text = f"{HEADER}\nabseilin,abcdefghijk,0,10,train\n"
    _, _, err = k710("build", "--annotations", lists(text), "--manifest-only", "--out", tmp_path / "out")
    assert "hint: nearest k400 names: abseiling" in err


def test_bom_and_crlf_are_read_as_they_are_meant(k710: Run, lists: Callable[[bytes], Path], tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    code, out, _ = k710("build", "--annotations", lists(data), "--manifest-only", "--out", tmp_path / "out")
    assert code == 0
    assert "k400-train: 1 clips" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--annotations", "nowhere", "--manifest-only"], "nowhere: no such folder"),
        (["--annotations", "TOY", "--videos", "nowhere"], "nowhere: no such folder"),
        (["--annotations", "TOY"], "no videos given"),
        (["--annotations", "TOY", "--manifest-only", "--releases", "k500"], "unknown release 'k500'"),
        (["--annotations", "TOY", "--manifest-only", "--views", "k400-vall"], "unknown view 'k400-vall'"),
        (["--annotations", "TOY", "--manifest-only", "--protect", "vall"], "got 'vall'"),
        (["--annotations", "TOY", "--manifest-only", "--protect", "none", "--leaks", "report"], "--protect none"),
    ],
)
def test_wrong_flags_of_build_end_with_2(k710: Run, toy: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    given = [str(toy / "annotations") if a == "TOY" else a for a in arguments]
    code, _, err = k710("build", *given, "--out", tmp_path / "out")
    assert (code, said in err) == (2, True), err


def test_no_clip_found_at_all_ends_with_4(k710: Run, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "holiday.mp4").write_bytes(b"x")
    code, _, err = k710(
        "build", "--annotations", toy / "annotations", "--videos", tmp_path / "videos", "--out", tmp_path / "out"
    )
    assert code == 4
    assert "none of the" in err
    assert "hint: files are found by name" in err


def test_a_folder_with_other_files_is_refused_and_left_alone(k710: Run, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    code, _, err = k710("build", "--annotations", toy / "annotations", "--manifest-only", "--out", out)
    assert code == 2
    assert "thesis.tex" in err
    assert files_of(out) == {"thesis.tex": b"years of work"}


def test_another_build_in_the_folder_is_refused_with_the_differences(k710: Run, toy: Path, tmp_path: Path) -> None:
    build = ("build", "--annotations", toy / "annotations", "--manifest-only", "--out", tmp_path / "out")
    assert k710(*build)[0] == 0
    before = files_of(tmp_path / "out")
    code, _, err = k710(*build, "--protect", "val")
    assert code == 2
    assert "config.protect: ['val', 'test'] -> ['val']" in err
    assert "hint: --replan" in err
    assert files_of(tmp_path / "out") == before


def test_shards_without_their_index_end_with_5(k710: Run, built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "data")
    (tmp_path / "data" / "shards.parquet").unlink()
    code, _, err = k710("pretrain", "--data", tmp_path / "data", "--out", tmp_path / "run")
    assert code == 5
    assert "hint:" in err


def test_a_folder_that_is_no_build_ends_with_5(k710: Run, tmp_path: Path) -> None:
    code, _, err = k710("pretrain", "--data", tmp_path / "nothing", "--out", tmp_path / "run")
    assert code == 5
    assert "k710.lock.json: no such file" in err


def test_an_unknown_view_lists_those_there_are(k710: Run, built: Path, tmp_path: Path) -> None:
    args = ("--data", built, "--out", tmp_path / "run", "--set", "data.view=k710-trian")
    code, _, err = k710("pretrain", *args)
    assert code == 2
    assert "k710-train" in err.split("hint:")[1]


def test_a_checkpoint_of_another_shape_ends_with_6(k710: Run, built: Path, tmp_path: Path) -> None:
    torch.save({"class_embedding": torch.zeros(7)}, tmp_path / "other.pth")
    code, _, err = k710(
        "pretrain", "--data", built, "--out", tmp_path / "run", "--init", f"official:{tmp_path / 'other.pth'}"
    )
    assert code == 6
    assert "hint:" in err


def test_a_missing_checkpoint_ends_with_6(k710: Run, built: Path, tmp_path: Path) -> None:
    code, _, err = k710("evaluate", "--from", tmp_path / "no-run", "--data", built, "--view", "k400-val")
    assert code == 6
    assert "no such run or checkpoint" in err


def test_a_report_in_the_place_of_weights_ends_with_2(k710: Run, built: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pyth"
    torch.save({"class_embedding": torch.zeros(7)}, weights)
    before = weights.read_bytes()
    code, _, err = k710("evaluate", "--from", weights, "--data", built, "--view", "k400-val", "--out", weights)
    assert code == 2
    assert "hint: give another --out" in err
    assert weights.read_bytes() == before


def test_an_unknown_flag_ends_with_2_and_no_traceback(k710: Run) -> None:
    code, _, err = k710("build", "--frobnicate")
    assert code == 2
    assert "No such option" in err


def test_what_the_system_refuses_is_one_line_with_the_path(k710: Run, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "data"
    code, _, err = k710("build", "--annotations", toy / "annotations", "--manifest-only", "--out", out)
    assert code == 2
    assert str(tmp_path / "file") in err
    assert "bug" not in err


def test_names_of_lists_are_printed_as_they_are(k710: Run, lists: Callable[[str], Path], tmp_path: Path) -> None:
    """A terminal library once made a tram of `:train:`."""
    build = ("build", "--manifest-only", "--out", tmp_path / "out")
    assert k710(*build, "--annotations", lists(GOOD))[0] == 0
    more = lists(f"{GOOD}abseiling,abcdefghijl,0,10,train\n")
    _, _, err = k710(*build, "--annotations", more)
    assert "list k400:train: 1 -> 2 rows" in err


def test_a_demo_leaves_other_peoples_folders_alone(k710: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, err = k710("demo", tmp_path)
    assert code == 2
    assert "not a demo's folder" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("flag", ["--protect", "--out", "--classes", "--releases"])
def test_an_empty_value_is_a_variable_that_was_not_set(
    k710: Run, lists: Callable[[str], Path], tmp_path: Path, flag: str
) -> None:
    code, _, err = k710("build", "--annotations", lists(GOOD), "--manifest-only", flag, "")
    assert (code, f"{flag}: given an empty value" in err) == (2, True)
    assert k710("build", "--annotations", lists(GOOD), "--manifest-only", f"{flag}=")[0] == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--locked", "--replan"), "locked keeps the plan as it is, and replan changes it"),
        (("--on-bad-row", "skip"), "--on-bad-row: expected stop or report, got 'skip'"),
        (("--prefer", "newest,k400"), "prefer must be one word or releases by name"),
        (("--unit", "frame"), "expected one of 'video', 'segment', got 'frame'"),
        (("--per-class", "2", "--classes", "no such class"), "--classes: no class is called 'no such class'"),
    ],
)
def test_policies_that_cannot_be_end_with_2(
    k710: Run, lists: Callable[[str], Path], tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    code, _, err = k710("build", "--annotations", lists(GOOD), "--manifest-only", "--out", tmp_path / "out", *flags)
    assert (code, said in err) == (2, True)
