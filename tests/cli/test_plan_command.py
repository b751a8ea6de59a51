"""`k710 plan` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_plan_prints_a_row_for_each_policy_and_writes_nothing(
    k710: Run, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = k710("plan", "--annotations", toy / "annotations")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["policy", "k710-train", "videos", "classes"]
    assert [line.split()[0] for line in lines[1:4]] == ["given", "protect-val", "protect-test"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert "GB is an estimate at 56.9 kB a second" in out
    assert lines[-1].endswith("; nothing was written")
    assert list(tmp_path.iterdir()) == []


def test_plan_counts_what_build_makes(k710: Run, toy: Path, built: Path) -> None:
    code, out, _ = k710("plan", "--annotations", toy / "annotations", "--policies", "given", "--json")
    assert code == 0
    document = json.loads(out)
    lock = json.loads((built / "k710.lock.json").read_text())
    (given,) = document["policies"]
    assert given["train"]["clips"] == lock["views"]["k710-train"]["clips"]
    assert given["val"]["clips"] == lock["views"]["k710-val"]["clips"]
    assert (given["clips"], given["shards"]) == (lock["counts"]["clips"], lock["counts"]["shards"])


def test_plan_takes_the_policy_flags_of_build(k710: Run, toy: Path) -> None:
    arguments = ["--protect", "none", "--unit", "segment", "--views", "k710-train", "--policies", "given", "--json"]
    code, out, _ = k710("plan", "--annotations", toy / "annotations", *arguments)
    assert code == 0
    (given,) = json.loads(out)["policies"]
    assert (given["policy"]["protect"], given["policy"]["unit"], given["val"]) == ([], "segment", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policies", "lucky"], "unknown policy 'lucky'"),
        (["--protect", "train"], "'train'"),
        (["--views", "k900-train"], "unknown view 'k900-train'"),
        (["--protect", "none", "--leaks", "report"], "--protect none"),
        (["--releases", "k900"], "k900"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(k710: Run, toy: Path, arguments: list[str], said: str) -> None:
    code, out, err = k710("plan", "--annotations", toy / "annotations", *arguments)
    assert (code, out) == (2, "")
    assert said in err
