"""No local worker flushes by the clock, which in Beam loses what is written meanwhile."""

import pytest
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker import data_plane


@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_no_stream_of_a_run_flushes_by_the_clock(kit, in_repository, monkeypatch, mode):
    expected = kit.run(kit.random_log(num_rows=300))
    monkeypatch.setattr(worker_handlers, "DATA_BUFFER_TIME_LIMIT_MS", 1)
    monkeypatch.setattr(data_plane, "TimeBasedBufferingClosableOutputStream", None)  # making one fails the run
    config = kit.build_config(expected.config.source.paths, kit.new_folder())
    output = kit.preprocess(config, "--direct_num_workers=2", f"--direct_running_mode={mode}")
    assert output.manifest["content"] == expected.manifest["content"]
