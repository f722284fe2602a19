"""`--append`: a data set that is taken further equals one that is made of all files at once, byte for byte."""

import logging
import shutil

import numpy as np
import pytest

from beam.preprocess import run

CUTS = (205, 220)  # ticks: inside the test window; users, items and their attributes appear after each
NAMES = ("part-b.csv", "part-c.csv", "part-a.csv")  # file order is not time order


class Growing:
    """A folder of log files that grows, and the configuration that matches all of it."""

    def __init__(self, kit, log, protocol, **sections):
        self.folder = kit.new_folder()
        log.write(self.folder / "log")  # for its tables
        for path in (self.folder / "log").glob("log*"):
            path.unlink()
        edges = [0, *(kit.begin + cut * kit.tick for cut in CUTS), np.iinfo(np.int64).max]
        self._parts = [
            log.take(np.flatnonzero((log.time >= first) & (log.time < stop)))
            for first, stop in zip(edges, edges[1:], strict=False)
        ]
        self._kit, self._protocol, self._sections = kit, protocol, sections

    def write(self, part: int) -> str:
        """Writes one of the files."""
        (path,) = self._parts[part].write(self.folder / f"part{part}")
        target = self.folder / "log" / NAMES[part]
        shutil.copy(path, target)
        return str(target)

    def config(self, name: str):
        paths = (f"{self.folder}/log/part-*.csv",)
        return self._kit.build_config(paths, self.folder / name, "rolling", self._protocol, **self._sections)

    def files(self, name: str) -> dict[str, bytes]:
        folder = self.folder / name / self.config(name).name / "dataset"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def growing(kit):
    log, _ = kit.base("rolling", "none")
    return Growing(kit, log, "none")


@pytest.mark.parametrize(
    ("protocol", "sections"),
    [
        ("none", {}),
        ("honest", {}),
        ("none", {"pipeline": {"hot_key_rows": 40, "pool_slice_rows": 70, "key_parts": 2}}),
        (
            "none",
            {
                "pipeline": {"hot_key_rows": 40, "pool_slice_rows": 70, "join": "grouped"},
                "retrieval": {"exclude_own_user": True},
            },
        ),
        ("none", {"split": {"by": "quantiles", "train_from": 0.4, "test_from": 0.7, "train_rate": 0.5}}),
    ],
    ids=["none", "honest", "hot", "grouped", "quantiles"],
)
def test_appending_twice_equals_reading_all_at_once(kit, protocol, sections):
    log, _ = kit.base("rolling", protocol)
    growing = Growing(kit, log, protocol, **sections)
    growing.write(0)
    run(growing.config("grown"))
    before = growing.files("grown")
    for part in (1, 2):
        run(growing.config("grown"), append=[growing.write(part)])
    run(growing.config("whole"))
    grown, whole = growing.files("grown"), growing.files("whole")
    assert grown.keys() == whole.keys()
    assert [name for name in whole if grown[name] != whole[name]] == []
    assert grown["manifest.json"] != before["manifest.json"]


def test_appending_what_is_there_already_does_nothing(growing, caplog):
    growing.write(0)
    run(growing.config("grown"))
    added = growing.write(1)
    run(growing.config("grown"), append=[added])
    with caplog.at_level(logging.INFO, "beam.preprocess"):
        run(growing.config("grown"), append=[added])
    assert "is up to date" in caplog.text


def test_appended_interactions_must_be_later(growing):
    growing.write(0)
    growing.write(2)
    run(growing.config("grown"))
    before = growing.files("grown")
    with pytest.raises(
        ValueError, match=r"must be later than all that the data set has. Received: one at \d+ in .*part-c\.csv"
    ):
        run(growing.config("grown"), append=[growing.write(1)])
    assert growing.files("grown") == before


def test_appended_files_must_be_among_the_sources(growing, tmp_path):
    growing.write(0)
    run(growing.config("grown"))
    (tmp_path / "other.csv").write_text("user,item\n")
    with pytest.raises(ValueError, match="must be among those that `source.paths` matches"):
        run(growing.config("grown"), append=[str(tmp_path / "other.csv")], force=True)


def test_the_other_files_must_be_what_they_were(growing):
    first = growing.write(0)
    run(growing.config("grown"))
    with open(first, "a") as file:
        file.write("strange\n")
    with pytest.raises(ValueError, match="must be those that the data set was made from"):
        run(growing.config("grown"), append=[growing.write(1)])


def test_static_mode_cannot_be_appended_to(kit):
    log, output = kit.base("static", "none")
    with pytest.raises(ValueError, match="Appending needs examples that later interactions leave as they are"):
        run(output.config, append=list(output.config.source.paths), force=True)


def test_there_must_be_a_data_set(growing):
    with pytest.raises(ValueError, match="dataset"):
        run(growing.config("grown"), append=[growing.write(0)])


def test_workers_elsewhere_cannot_append(growing):
    growing.write(0)
    run(growing.config("grown"))
    with pytest.raises(
        ValueError, match=r"Appending reads the present data set .*Received: --append with --staging gs://"
    ):
        run(growing.config("grown"), append=[growing.write(1)], staging="gs://bucket/path")


def test_appending_rejected_rows_alone_leaves_the_examples(kit):
    log, _ = kit.base("rolling", "none")
    growing = Growing(kit, log, "none", source={"max_rejected_share": 0.5})
    growing.write(0)
    growing.write(2)
    run(growing.config("grown"))
    before = growing.files("grown")
    (growing.folder / "log" / "part-d.csv").write_text(",".join(kit.columns) + "\nstrange\n")
    run(growing.config("grown"), append=[str(growing.folder / "log" / "part-d.csv")])
    run(growing.config("whole"))
    grown = growing.files("grown")
    assert grown == growing.files("whole")
    assert {name for name in grown if grown[name] != before.get(name)} == {
        "manifest.json",
        "rejected/00002-part-d.csv.tsv",
    }
