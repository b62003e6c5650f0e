"""The tree over the decision log: what it adds to a denial, and how fast it is verified.

Two servers take turns, with a tree and without. Each answers the same number of denials, all
different. Its processor time is taken once it rests, and includes recording, shipping and the tree.
"""

import gzip
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import grpc
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse
from pdpapi.v1.decision_service_pb2_grpc import PolicyDecisionServiceStub

from bench import pdp, plan
from bench.part import Figures, Run
from bench.processes import cpu_seconds, settle
from bench.signer import Signer
from pdp.audit import DecisionRecord, encode
from pdp.audit.segments import KIND_RECORD
from pdp.audit.transparency import Genesis, entry_of, file_signer, new_key_file
from pdp.audit.transparency.notes import Checkpoint, sign_note
from pdp.audit.transparency.tiles import TileWriter
from pdp.model import Actor, Effect, Reason, ResourceRef

_IN_FLIGHT = 16
_NAME = "bench.example"


def measure(run: Run) -> Figures:
    """{"with_us", "without_us", "append_ratio", "verified_per_second", "verify_ratio"}"""
    chosen = run.chosen
    with ExitStack() as stack:
        servers = [
            stack.enter_context(_serving(run.directory / name, run.signer, with_tree=with_tree))
            for name, with_tree in (("without", False), ("with", True))
        ]
        pairs = []
        for number in range(1 + chosen.log_rounds):
            # In turn first, and the first round only warms up.
            order = servers if number % 2 else servers[::-1]
            used = {server.pid: _denial_us(server, run, number) for server in order}
            if number:
                pairs.append([used[server.pid] for server in servers])
    without, with_tree = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(with_one / without_one for without_one, with_one in pairs)
    run.say(f"  a denial: {without:.0f} us, with a tree {with_tree:.0f} us ({ratio - 1:+.1%})")
    verified, share = _verify(run)
    run.say(f"  verified: {verified:,.0f} records/s, {share:.2f} of the hashes alone")
    return {
        "without_us": without,
        "with_us": with_tree,
        "append_ratio": ratio,
        "verified_per_second": verified,
        "verify_ratio": share,
    }


@contextmanager
def _serving(directory: Path, signer: Signer, *, with_tree: bool) -> Iterator[pdp.Pdp]:
    directory.mkdir(parents=True)
    url = f"sqlite:///{directory / 'pdp.db'}"
    pdp.fill(url, pdp.policy_of(plan.RULES))
    tree: dict[str, Any] | None = None
    if with_tree:
        new_key_file(_NAME, directory / "key.pem")
        signers = [{"key_file": str(directory / "key.pem")}]
        tree = {"name": _NAME, "signers": signers, "checkpoint_seconds": 5}
    settings = {} if tree is None else {"PDP_AUDIT_TREE": json.dumps(tree)}
    with pdp.serving(directory, signer, url, settings=settings) as server:
        yield server


def _denial_us(server: pdp.Pdp, run: Run, round_number: int) -> float:
    """Processor time of a denial, until all of it is shipped."""
    settle([server.pid])
    before = cpu_seconds(server.pid)
    _deny(server, run.signer, run.chosen.log_denials, f"{round_number}")
    settle([server.pid])
    return (cpu_seconds(server.pid) - before) / run.chosen.log_denials * 1e6


def _deny(server: pdp.Pdp, signer: Signer, count: int, salt: str) -> None:
    request = pdp.check_request(signer, plan.RULES, owner=plan.STRANGER)

    def ask(stub: PolicyDecisionServiceStub, number: int) -> int:
        mine = CheckRequest()
        mine.CopyFrom(request)
        mine.resource.id = f"{plan.KIND}_{salt}_{number}"
        answer: CheckResponse = stub.Check(mine, timeout=10)
        return answer.decision

    with (
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ThreadPoolExecutor(_IN_FLIGHT) as threads,
    ):
        stub = PolicyDecisionServiceStub(channel)
        asked: list[Future[int]] = [threads.submit(ask, stub, n) for n in range(count)]
        decided = {future.result() for future in asked}
    pdp.expect(decided == {pdp.DENY}, "every question must be denied")


# --- verification ---------------------------------------------------------------------------------


def _verify(run: Run) -> tuple[float, float]:
    """Records per second of the stand-alone file on an archive, and its share of the rate of the
    hashes alone. Both in this process, in turn."""
    directory = run.directory / "archive"
    texts = _make_archive(directory, run.chosen.log_verified)
    sys.path.insert(0, str(plan.ROOT / "tools"))
    verify_log = import_module("verify_log")
    key = verify_log.Key.parse((directory / "key.txt").read_text(), verify_log.LOG_KEY)

    def verify() -> None:
        _, findings = verify_log.check_tree(directory / "tree", [key], [])
        pdp.expect(findings.problems == [], f"the archive must hold: {findings.problems}")
        pdp.expect(findings.seen == len(texts), "all texts must be compared")

    verified, hashed = [], []
    for _ in range(run.chosen.log_rounds):
        hashed.append(_seconds(lambda: _hash_only(texts)))
        verified.append(_seconds(verify))
    ratios = [hash_one / verify_one for hash_one, verify_one in zip(hashed, verified, strict=True)]
    return len(texts) / median(verified), median(ratios)


def _make_archive(directory: Path, count: int) -> Sequence[bytes]:
    """An archive as `pdp audit archive` writes it."""
    directory.mkdir(parents=True)
    (directory / "key.txt").write_text(str(new_key_file(_NAME, directory / "key.pem")))
    signer = file_signer(_NAME, directory / "key.pem")
    texts = [
        encode(
            DecisionRecord(
                decision_id=f"019a0000-0000-7000-8000-{number:012x}",
                decided_at=1_790_000_000.0 + number / 1000,
                effect=Effect.DENY,
                reason=Reason.PERMISSION_NOT_GRANTED,
                permission=f"{plan.KIND}:{plan.ACTION}",
                caller="courses",
                revision=7,
                token_fingerprint="0123456789abcdef",
                actor=Actor(plan.USER, "sess_1", plan.ORGANIZATION),
                token_id=f"jti_{number}",
                resource=ResourceRef(plan.KIND, f"{number}"),
            )
        )
        for number in range(count)
    ]
    tree = directory / "tree"
    tree.mkdir()
    tiles = TileWriter(tree)
    tiles.append([Genesis("bench", "0" * 32, 0, "first tree", None).entry()])
    tiles.append(entry_of(KIND_RECORD, text) for text in texts)
    tiles.sync()
    checkpoint = Checkpoint(f"{_NAME}/bench/000001-00000000", tiles.size, tiles.root())
    (tree / "checkpoint").write_text(sign_note(checkpoint.text(), [signer]))
    records = tree / "records"
    records.mkdir()
    path = records / f"1-{tiles.size}.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(text + b"\n" for text in texts), 6))
    digest = sha256(path.read_bytes()).hexdigest()
    text = f"pdp-audit-archive/v1\n{checkpoint.origin}\n1 {tiles.size}\n{digest}\n"
    path.with_name(path.name + ".note").write_text(sign_note(text, [signer]))
    return texts


def _hash_only(texts: Sequence[bytes]) -> None:
    """The hashes of a verification: of the text, of the leaf, and of the nodes above."""
    level = []
    for text in texts:
        entry = b"R" + sha256(text).digest()
        level.append(sha256(b"\0" + entry).digest())
    while len(level) > 1:
        level = [
            sha256(b"\1" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]


def _seconds(work: Callable[[], object]) -> float:
    began = process_time()
    work()
    return process_time() - began
