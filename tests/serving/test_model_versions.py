from __future__ import annotations

import pytest

from serving.model_versions import choose_versions, find_versions
from serving.server_configs import build_model_config


@pytest.fixture
def config(tmp_path):
    for name in ("2", "10", "00000009", "11.tmp", "latest"):
        (tmp_path / name).mkdir()
    (tmp_path / "99").touch()  # No folder.
    return build_model_config("tiny", tmp_path)


def test_numeric_folders_are_versions(config, tmp_path):
    assert find_versions(tmp_path) == {2: tmp_path / "2", 9: tmp_path / "00000009", 10: tmp_path / "10"}


def test_policies(config):
    assert list(choose_versions(config)) == [10]
    config.model_version_policy.latest.num_versions = 2
    assert list(choose_versions(config)) == [9, 10]
    config.model_version_policy.specific.versions.extend([9, 2])
    assert list(choose_versions(config)) == [2, 9]
    config.model_version_policy.specific.versions.append(3)
    with pytest.raises(ValueError, match=r"Received: \[2, 3, 9\], of which \[3\] are not there"):
        choose_versions(config)
    config.model_version_policy.all.SetInParent()
    assert list(choose_versions(config)) == [2, 9, 10]


def test_base_path_must_hold_a_version(tmp_path):
    with pytest.raises(ValueError, match="Received: .*missing, which is not a folder"):
        find_versions(tmp_path / "missing")
    with pytest.raises(ValueError, match="one numeric folder a version.*Received: .* with nothing in it"):
        find_versions(tmp_path)
