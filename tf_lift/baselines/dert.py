"""DERT (Zheng et al., "Dense Representation Learning and Retrieval for Tabular Data Prediction", KDD 2023)."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from tqdm import tqdm

from tf_lift.baselines.peer import check_setting
from tf_lift.baselines.rim import RIM, RIMSettings
from tf_lift.baselines.row_encoder import RowEncoder, RowEncoderTask
from tf_lift.config import Config
from tf_lift.data.dataset import build_input_options, read_examples
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.dataset_info import SPLITS, DatasetInfo
from tf_lift.data.examples import build_example_spec
from tf_lift.datastore import Datastore
from tf_lift.interactions import NO_ROW
from tf_lift.training_loop import Schedule, train_epochs

_VALIDATION_SHARE = 0.05  # of the pool's rows, drawn by the seed, to stop the first stage by
_NEIGHBOURS = "neighbours.npz"


@dataclasses.dataclass(frozen=True)
class DERTSettings(RIMSettings):
    """Settings of DERT."""

    num_neighbours: int = 10
    """K, rows that a candidate is given."""
    key_dim: int = 32
    """Width of the vectors that are searched."""
    corruption_rate: float = 0.4
    """Share of a row's fields that its second view takes from other rows."""
    temperature: float = 0.1
    """Of the softmax over a batch's rows."""
    pretraining_epochs: int = 10
    """Most passes over the pool's rows in the first stage."""
    pretraining_batch_size: int = 256
    """Rows of a step; each is told from the others of its batch."""
    max_pool_rows: int = 100_000
    """Newest rows of the pool that are searched: every candidate is compared with all of them."""
    searches_per_step: int = 256
    """Candidates that are searched for at once: a step holds this many times `max_pool_rows` scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("corruption_rate", self.corruption_rate, 0.0, 1.0)
        check_setting("temperature", self.temperature, 1e-3, 1e3)
        for name in ("num_neighbours", "key_dim", "pretraining_epochs", "pretraining_batch_size", "searches_per_step"):
            check_setting(name, getattr(self, name), 1, 1 << 20)
        check_setting("max_pool_rows", self.max_pool_rows, self.num_neighbours, 1 << 30)


class DERT(RIM):
    """Rows as vectors; the candidate's nearest rows of the pool by inner product, which are then read as RIM reads BM25's.

    First stage: an encoder of rows is trained to tell which of a batch's rows a row with some fields replaced was made from. The
    pool's vectors are indexed by `tfrs.layers.factorized_top_k.BruteForce`, and the neighbours of every example are found once.

    The index holds rows from before train alone, in static and in rolling mode. In rolling mode BM25's neighbours move on with the
    time and these do not, so DERT reads an older pool there than the rankers beside it: a dense index as of every target's time would
    be a scan of the log for each.

    Differences from the paper: one loss of the several encoders and losses that it compares; RIM's attention and products.
    """

    settings: DERTSettings

    def __init__(
        self, settings: DERTSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        self.row_encoder = RowEncoder(info.num_pool_ids, settings.embedding_dim, settings.key_dim, name="row_encoder")
        times = datastore.times.numpy()
        pool = np.flatnonzero(times < info.boundaries.train_from)
        newest = np.argsort(times[pool], kind="stable")[-settings.max_pool_rows :]
        self.pool_rows = np.sort(pool[newest])
        if len(self.pool_rows) < settings.num_neighbours:
            raise ValueError(
                f"DERT's pool must hold `num_neighbours` rows. Received: {len(self.pool_rows)} rows before train for "
                f"{settings.num_neighbours} neighbours. Move split.train_from, or set fewer neighbours."
            )
        self._place_of_row: tf.Tensor | None = None
        self._neighbours: tf.Tensor | None = None

    def neighbour_rows(self, slate: dict[str, tf.Tensor]) -> tf.Tensor:
        """See `RIM.neighbour_rows`; before `remember`, and for rows that it was not given, there are none."""
        self.row_encoder(slate["fields"])  # makes its variables with the others
        batch, num_candidates = tf.unstack(tf.shape(slate["mask"]))
        if self._neighbours is None or self._place_of_row is None:
            return tf.fill([batch, num_candidates, self.settings.num_neighbours], NO_ROW)
        return tf.gather(self._neighbours, tf.gather(self._place_of_row, slate["row"]))[:, :num_candidates]

    def pretrain(self, dataset: Dataset, folder: Path, resume_from: Path | None) -> None:
        """The first stage: the encoder of rows, and the neighbours of all examples, which are kept in the folder."""
        self.learn_rows(folder, resume_from)
        kept = folder / _NEIGHBOURS
        if not kept.is_file():
            spec = build_example_spec(self.config, len(dataset.info.statistic_sets))
            slates = (slate for split in SPLITS for slate in read_examples(dataset, split, spec, 32))
            rows, neighbours = self.find_neighbours(tqdm(slates, desc=f"{self.name} search", unit="batch", leave=False))
            aside = kept.with_name(f"partial-{kept.name}")
            np.savez(aside, rows=rows, neighbours=neighbours)
            aside.replace(kept)
        with np.load(kept) as arrays:
            self.remember(arrays["rows"], arrays["neighbours"])

    def learn_rows(self, folder: Path, resume_from: Path | None) -> None:
        """Trains the encoder of rows on the pool.

        Args:
            folder: for checkpoints and logs, as `train_epochs` takes it.
            resume_from: likewise.
        """
        settings, seed = self.settings, self.config.seed
        fields = tf.gather(self.datastore.fields, self.pool_rows).numpy()
        held_out = np.random.default_rng(seed).random(len(fields)) < _VALIDATION_SHARE
        held_out[0], held_out[-1] = True, False
        model = RowEncoderTask(self.row_encoder, settings.corruption_rate, settings.temperature)
        model.compile(optimizer=tf.keras.optimizers.Adam(settings.learning_rate))

        def batch(rows: np.ndarray) -> tf.data.Dataset:
            batches = tf.data.Dataset.from_tensor_slices(rows).batch(settings.pretraining_batch_size)
            return batches.with_options(build_input_options())

        def draw(epoch: int) -> tf.data.Dataset:
            return batch(fields[np.random.default_rng([seed, epoch]).permutation(np.flatnonzero(~held_out))])

        validation = batch(fields[held_out])

        def validate() -> dict[str, float]:
            return {"loss": model.evaluate(validation, verbose=0, return_dict=True)["log_loss"]}

        schedule = Schedule(settings.pretraining_epochs, settings.patience)
        train_epochs(f"{self.name} rows", model, draw, validate, schedule, folder, resume_from)

    def find_neighbours(self, slates: Iterable[dict[str, tf.Tensor]]) -> tuple[np.ndarray, np.ndarray]:
        """Searches the pool.

        Args:
            slates: batches of what `RowReferences.resolve` returns.

        Returns:
            int64 [n] target rows, and int32 [n, C, K] row ids of each candidate's neighbours, the nearest first; NO_ROW for
            padded candidates.
        """
        settings = self.settings
        index = tfrs.layers.factorized_top_k.BruteForce(k=settings.num_neighbours)
        fields = tf.data.Dataset.from_tensor_slices(tf.gather(self.datastore.fields, self.pool_rows)).batch(4096)
        keys = tf.concat([self.row_encoder(part) for part in fields], axis=0)
        index.index(keys, tf.constant(self.pool_rows, tf.int32))
        search = tf.function(lambda queries: index(queries)[1], reduce_retracing=True)
        rows, found = [], []
        for slate in slates:
            mask = slate["mask"].numpy()
            queries = self.row_encoder(tf.boolean_mask(slate["fields"], slate["mask"]))
            step = settings.searches_per_step
            nearest = [search(queries[first : first + step]).numpy() for first in range(0, len(queries), step)]
            neighbours = np.full((*mask.shape, settings.num_neighbours), NO_ROW, np.int32)
            neighbours[mask] = np.concatenate(nearest)
            rows.append(slate["row"].numpy())
            found.append(neighbours)
        width = max(neighbours.shape[1] for neighbours in found)
        padded = [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=NO_ROW) for part in found]
        return np.concatenate(rows), np.concatenate(padded)

    def remember(self, rows: np.ndarray, neighbours: np.ndarray) -> None:
        """Takes what `find_neighbours` found as the neighbours of these target rows."""
        places = np.full(len(self.datastore.times), len(rows), np.int32)
        places[rows] = np.arange(len(rows))
        nothing = np.full((1, *neighbours.shape[1:]), NO_ROW, np.int32)
        with tf.device("CPU"):
            self._place_of_row = tf.constant(places)
            self._neighbours = tf.constant(np.concatenate([neighbours, nothing]))
