"""SIGKILL at every file system call of a process that extends a tree: the tree continues."""

import shutil
from pathlib import Path

import pytest

from pdp.audit.segments import list_segments
from pdp.audit.transparency.notes import unverified_checkpoint
from pdp.audit.transparency.trees import stored_trees
from tests.kit import soak
from tests.kit.audit.logs import ORIGIN, write_log
from tests.kit.audit.straced import Runner, count_calls
from tests.kit.audit.trees import audit, new_signer, sign_trees

CALLS = "write,fsync,openat,close,rename,mkdir,flock,unlink,unlinkat,rmdir"


@pytest.mark.soak
@pytest.mark.parametrize("signed_before", [True, False])
def test_a_tree_continues_correctly_after_a_kill_at_every_system_call(
    tmp_path: Path, runner: Runner, signed_before: bool
) -> None:
    signer = new_signer(tmp_path)
    log = tmp_path / "log"
    write_log(log, 200, segment_bytes=20_000)
    older = []
    if signed_before:
        [note] = sign_trees(log / ORIGIN, [signer])
        older = [tmp_path / "older.note"]
        older[0].write_text(note)
    write_log(log, 200, segment_bytes=20_000)
    shutil.copytree(log, tmp_path / "count")
    whole = runner.run(tmp_path / "count", f"trace={CALLS}", records=0)
    assert (whole.stopped, whole.acked) == (True, ["401"])
    calls = count_calls(whole.trace)
    assert calls["fsync"] >= 8
    assert calls["rename"] == 1
    killed = 0
    for name, occurrences in sorted(calls.items()):
        for occurrence in range(occurrences, 0, -soak.count(1, sample=max(6, occurrences // 2))):
            where = f"{name} {occurrence}"
            directory = tmp_path / f"{name}-{occurrence}"
            shutil.copytree(log, directory)
            expression = f"inject={name}:signal=SIGKILL:when={occurrence}"
            run = runner.run(directory, f"trace={name}", expression, records=0)
            assert run.killed or run.stopped, where
            killed += run.killed
            for note in sign_trees(directory / ORIGIN, [signer]):
                assert unverified_checkpoint(note).size == 401, where
            [tree] = stored_trees(directory / ORIGIN)
            assert tree.checkpoint.size == 401, where
            assert list_segments(directory / ORIGIN) == [
                (number, directory / ORIGIN / path.name)
                for number, path in list_segments(log / ORIGIN)
            ], where
            assert audit(directory, [signer.key], *older, complete=True) == 0, where
            write_log(directory, 200)
            [note] = sign_trees(directory / ORIGIN, [signer])
            assert unverified_checkpoint(note).size == 601, where
            assert audit(directory, [signer.key], *older, complete=True) == 0, where
            shutil.rmtree(directory)
    assert killed >= soak.count(30, sample=6)
