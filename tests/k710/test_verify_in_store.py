"""Looking at a build in an object store: verify, audit, retry, and what needs a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from broken_builds import contents
from object_server import Server, running_server
from test_build_in_store import in_folder, in_store, source
from typer.testing import CliRunner

from cli.main import make_app
from k710.build import build
from k710.objects.s3 import S3Objects
from k710.retry import RetryConfig, retry
from k710.verify import VerifyConfig, verify

__all__ = ["source"]

pytestmark = pytest.mark.xdist_group("build_in_store")


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server() as server:
        build(in_store(source, server, tmp_path_factory.mktemp("work")))
        yield server


def copy_of(built: Server) -> Server:
    """The build with a bucket of its own, to be damaged."""
    other = built.anew()
    objects = S3Objects(other.url)
    for path, data in built.objects().items():
        objects.put(path, data)
    other.requests.clear()
    return other


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(make_app(), list(arguments))
    return result.exit_code, result.output + str(result.exception or "")


def test_a_build_in_a_store_is_verified_and_each_shard_read_once(built: Server) -> None:
    built.requests.clear()
    found = verify(VerifyConfig(path=built.url, mode="full", workers=1))
    assert (found.kind, found.clips, found.statuses, found.without_bytes) == ("build", 8, {"ok": 6}, 2)
    assert found.is_good
    assert found.remarks == []
    read = [path for method, path in built.requests if method == "GET" and path.endswith(".tar")]
    assert sorted(set(read)) == sorted(read)


def test_what_is_wrong_in_a_store_is_found(built: Server) -> None:
    server = copy_of(built)
    objects = S3Objects(server.url)
    tars = sorted(path for path in server.objects() if path.endswith(".tar"))
    good = objects.read(tars[0])
    objects.put(tars[0], good[:700] + bytes([good[700] ^ 1]) + good[701:])
    objects.delete([tars[1], tars[2].replace(".tar", ".json")])
    objects.put("shards/g/t-root.tar", b"")
    found = verify(VerifyConfig(path=server.url, workers=1))
    assert not found.is_good
    assert {(c.path, c.status) for c in found.bad} == {(tars[0], "corrupt"), (tars[1], "missing")}
    assert [problem.partition(":")[0] for problem in found.problems] == tars[:3]
    assert found.remarks == ["shards/g/t-root.tar: no plan names it"]


def test_the_audit_is_that_of_the_build(built: Server) -> None:
    code, said = run("audit", built.url)
    assert code == 0
    assert said == built.objects()["audit.md"].decode()
    code, said = run("audit", built.url.replace("k710", "elsewhere"))
    assert code != 0
    assert "no build of k710" in said


@pytest.mark.slow
def test_clips_of_a_build_in_a_store_are_tried_again(built: Server, source: Path, tmp_path: Path) -> None:
    server = copy_of(built)
    assert retry(RetryConfig(store=server.url, work=tmp_path / "work")).tried == 1
    assert server.contents() == built.contents()


@pytest.mark.slow
def test_a_copy_of_the_objects_is_a_build_in_a_folder(built: Server, source: Path, tmp_path: Path) -> None:
    for path, data in built.objects().items():
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(data)
    assert build(in_folder(source, tmp_path / "out")).tried == 0
    assert contents(tmp_path / "out") == built.contents()


@pytest.mark.parametrize("words", [("forget", "x", "--data"), ("diff", "k710-data"), ("audit", "--level", "content")])
def test_commands_that_need_a_folder_say_so(words: tuple[str, ...]) -> None:
    code, said = run(*words, "s3://bucket/k710")
    assert code != 0
    assert "needs the build in a folder of this machine" in said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_model_trains_on_a_build_in_a_store(built: Server, tmp_path: Path) -> None:
    # Here, since it takes seconds that only this test needs.
    from uniformerv2.pretrain import PretrainConfig, pretrain

    settings = ("optim.epochs=1", "data.global_batch=2", "data.micro_batch=2", "data.workers=0")
    pretrain(PretrainConfig(recipe="tiny_cpu", data=built.url, out=tmp_path / "run", overrides=settings))
    told = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    # Six clips, two a step.
    assert (told["steps"], told["holes"]) == (3, [])
