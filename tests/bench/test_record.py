"""`build/bench.json` has the figures of each part as soon as it is done."""

from pathlib import Path

from bench.record import Record, read


def test_a_part_that_fails_leaves_the_others(tmp_path: Path):
    file = tmp_path / "build" / "bench.json"
    record = Record(file, ["check", "guards"], quick=False)
    record.add("check", {"series": []}, {"Cerbos": "0.55.0"})
    assert read(file)["parts"]["check"]["versions"]["Cerbos"] == "0.55.0"
    record.fail("guards", "no tsc")
    assert list(read(file)["parts"]) == ["check"]
    assert read(file)["failed"] == {"guards": "no tsc"}


def test_a_part_that_is_measured_again_has_no_old_figures(tmp_path: Path):
    file = tmp_path / "bench.json"
    first = Record(file, ["check", "guards"], quick=False)
    first.add("check", {"series": []}, {})
    first.add("guards", {"guards": []}, {})
    Record(file, ["check"], quick=False)
    assert list(read(file)["parts"]) == ["guards"]


def test_a_file_of_another_shape_is_started_again(tmp_path: Path):
    file = tmp_path / "bench.json"
    file.write_text('{"rows": []}')
    assert read(file) == {"parts": {}, "failed": {}, "left_out": {}}
