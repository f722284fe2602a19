"""The same input and configuration give the same bytes, whatever the workers, the batches and the files."""

import pytest

THREADS = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


def rerun(kit, log, output, *beam_arguments, num_files=1, **sections):
    """The data set of the same files, or of the same log in several, in another workspace."""
    folder = kit.new_folder()
    paths = output.config.source.paths if num_files == 1 else log.write(folder / "input", num_files)
    mode, protocol = output.config.split.mode, output.config.negatives.protocol
    return kit.preprocess(kit.build_config(paths, folder / "workspace", mode, protocol, **sections), *beam_arguments)


def assert_same(files: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert files.keys() == expected.keys()
    assert [name for name in files if files[name] != expected[name]] == []


@pytest.mark.parametrize(
    ("mode", "protocol", "beam_arguments"),
    [
        ("rolling", "none", ()),
        ("rolling", "honest", THREADS),
        ("static", "rim", PROCESSES),
    ],
    ids=["one", "threads", "processes"],
)
@pytest.mark.usefixtures("in_repository")
def test_workers_do_not_change_a_byte(kit, mode, protocol, beam_arguments):
    log, base = kit.base(mode, protocol)
    files = rerun(kit, log, base, *beam_arguments).files()
    assert "manifest.json" in files and len(files) > 30
    assert_same(files, base.files())


@pytest.mark.parametrize("protocol", ["honest", "rim"])
def test_batches_do_not_change_a_byte(kit, protocol):
    log, base = kit.base("static", protocol)
    output = rerun(kit, log, base, pipeline={"rows_per_batch": 37, "targets_per_batch": 11})
    files, expected = output.files(), base.files()
    assert files.pop("manifest.json") != expected.pop("manifest.json")  # the batch sizes are in its fingerprint
    assert_same(files, expected)
    assert output.manifest["counts"] == base.manifest["counts"]


@pytest.mark.parametrize("protocol", ["rim"])
def test_a_log_in_three_files_is_the_log_in_one(kit, protocol):
    log, base = kit.base("rolling", protocol)
    output = rerun(kit, log, base, num_files=3)
    files, expected = output.files(), base.files()
    assert files.pop("manifest.json") != expected.pop("manifest.json")  # it names the files
    assert_same(files, expected)
    assert output.manifest["counts"] == base.manifest["counts"]


def test_the_number_of_shards_does_not_change_an_example(kit):
    log, base = kit.base("rolling", "honest")
    output = rerun(kit, log, base, pipeline={"num_shards": 100, "example_shards": 1})
    assert sorted(output.serialized) == sorted(base.serialized)
    assert output.row_contents == base.row_contents


def test_the_data_seed_changes_the_negatives_alone(kit):
    log, base = kit.base("rolling", "honest")
    output = rerun(kit, log, base, data_seed=8)
    assert output.row_contents == base.row_contents
    before, after = base.key_to_index(), output.key_to_index()
    assert before.keys() == after.keys()
    ours = [output.slates["fields"][index, 0].tolist() for index in after.values()]
    assert ours == [base.slates["fields"][before[key], 0].tolist() for key in after]
    assert set(output.serialized) != set(base.serialized)


def test_neighbours_and_tables_leave_the_log_as_it_is_and_other_negatives_of_the_pool_do_not(kit):
    """What the encoder reads is told apart from what it does not, so that it is not trained anew for nothing."""
    log, base = kit.base("static", "rim")
    fewer = rerun(kit, log, base, retrieval={"num_neighbours": 3}, situation={"tables": True})
    assert fewer.manifest["content"] != base.manifest["content"]
    assert fewer.manifest["log_content"] == base.manifest["log_content"]
    drawn = rerun(kit, log, base, data_seed=8)
    assert drawn.manifest["log_content"] != base.manifest["log_content"]
