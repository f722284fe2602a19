"""Rankers that need no neighbours, and so can learn from the pool's rows too."""

import dataclasses
from pathlib import Path

import tensorflow as tf

from tf_lift.baselines.peer import Peer, PeerSettings, check_setting
from tf_lift.baselines.pool_slates import PoolSlates
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.training_loop import Schedule, train_epochs


@dataclasses.dataclass(frozen=True)
class PoolPeerSettings(PeerSettings):
    """Settings of a ranker that can learn from the pool."""

    pool_epochs: int = 5
    """Most passes over the pool's rows before those over the train examples; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("pool_epochs", self.pool_epochs, 0, 10_000)


class PoolPeer(Peer):
    """A ranker whose first stage learns from the pool's rows as the second does from train's, stopped by validation.

    Rankers with neighbours read the pool's labels through them: without this stage the others would see a part of the data only.
    """

    settings: PoolPeerSettings

    def pretrain(self, dataset: Dataset, folder: Path, resume_from: Path | None) -> None:
        """See `Peer.pretrain`."""
        settings, config = self.settings, dataset.config
        if not settings.pool_epochs:
            return
        spec = build_example_spec(config, len(dataset.info.statistic_sets))
        validation = read_examples(dataset, "validation", spec, config.training.batch_size).cache()
        pool = PoolSlates(dataset)
        self.compile(optimizer=tf.keras.optimizers.Adam(settings.learning_rate))
        train_epochs(
            f"{self.name}, pool",
            self,
            lambda epoch: pool.batches(config.seed * 1000 + epoch),
            lambda: self.validate(validation),
            Schedule(settings.pool_epochs, settings.patience),
            folder,
            resume_from,
        )
