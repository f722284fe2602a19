"""The sections of a configuration on the models and their training."""

import dataclasses
from typing import Literal

from tf_lift.config.checks import check_range

LearningRateDecay = Literal["none", "cosine"]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """E_omega, the encoder of histories and futures (eqs. 4 and 5)."""

    kind: Literal["causal", "bidirectional", "gru"] = "causal"
    """Transformer with or without a causal mask, or GRU (Table 4)."""
    embedding_dim: int = 16
    """w, width of one field's embedding."""
    state_dim: int = 32
    """v, width of a state."""
    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 2
    """Attention heads."""
    dropout_rate: float = 0.1
    """Dropout inside the blocks."""
    user_fields: bool = True
    """Departure, where False: rows are read without the user's fields. They are one and the same in all rows of a history, and of a
    user's windows, so that pretraining of many epochs learns users by heart."""
    unknown_rate: float = 0.02
    """Share of the ids that pretraining replaces by the unknown id, so that its embedding is trained."""

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "state_dim", "num_layers", "num_heads"):
            check_range("encoder", name, getattr(self, name), 1, 1 << 14)
        if self.state_dim % self.num_heads:
            raise ValueError(
                f"`encoder.state_dim` must be a multiple of `encoder.num_heads`. Received: {self.state_dim} and {self.num_heads}."
            )
        check_range("encoder", "dropout_rate", self.dropout_rate, 0.0, 0.9)
        check_range("encoder", "unknown_rate", self.unknown_rate, 0.0, 0.5)


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Pretraining by masking behaviours (eqs. 9 and 10), and by the next item."""

    enabled: bool = True
    """False: the encoder keeps its initial weights (the paper's ablation)."""
    targets: Literal["masked", "queries"] = "queries"
    """`masked`: the loss is read at masked rows of the window (eq. 10). `queries`: at an appended (x, MSK) for every row, or for
    `query_share` of them, which sees the rows strictly before its time, as the candidate-aware state does."""
    mask_ratio: float = 0.6
    """Share of the window's behaviours that are masked."""
    negatives_per_row: int = 1
    """`queries`, logs of positives only: items drawn for each row as queries with label 0."""
    query_share: float = 1.0
    """Departure, with `queries`: how many of a window's rows training asks about, drawn anew each time, as a share of L + 1. Queries
    cost more than all else of a step. Validation asks about all rows."""
    next_item: bool = False
    """Departure: a second loss, softmax over the items: the state of the rows strictly before a positive one tells its item."""
    next_item_weight: float = 1.0
    """Weight of that loss beside the one of the behaviours."""
    next_item_samples: int = 0
    """Items that the softmax runs over beside the true one, drawn by popularity with logQ correction; 0: all items."""
    next_item_gap: bool = False
    """`next_item`: True: that state is crossed with the time since the last row (Latent Cross): what follows within a minute is not what a
    session starts with."""
    next_item_user: bool = False
    """`next_item`: True: embeddings of the user's fields are added to that state, whether the encoder reads them or not."""
    next_item_user_dropout: float = 0.5
    """Share of those embeddings' numbers that training sets to 0."""
    share_encoder: bool = True
    """`next_item`: True: both losses train one encoder; False: the next item has an encoder of the same shape for itself."""
    num_epochs: int = 10
    """Most passes over the windows."""
    batch_size: int = 128
    """Windows of a step, over all replicas."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    learning_rate_decay: LearningRateDecay = "none"
    """`cosine`: it falls to 0 along half a cosine over `num_epochs`, all of which are run; `none`: it stays."""
    patience: int = 2
    """Epochs without a better validation loss before stopping, where the rate stays."""

    def __post_init__(self) -> None:
        check_range("pretraining", "mask_ratio", self.mask_ratio, 0.0, 1.0)
        check_range("pretraining", "num_epochs", self.num_epochs, 1, 10_000)
        check_range("pretraining", "batch_size", self.batch_size, 1, 1 << 20)
        check_range("pretraining", "patience", self.patience, 1, 10_000)
        check_range("pretraining", "negatives_per_row", self.negatives_per_row, 0, 100)
        check_range("pretraining", "query_share", self.query_share, 0.01, 1.0)
        check_range("pretraining", "next_item_weight", self.next_item_weight, 0.0, 1000.0)
        check_range("pretraining", "next_item_user_dropout", self.next_item_user_dropout, 0.0, 0.9)
        check_range("pretraining", "next_item_samples", self.next_item_samples, 0, 1 << 20)
        if self.targets == "masked" and self.mask_ratio == 0.0:
            raise ValueError("`pretraining.mask_ratio` must be above 0 when `targets` is 'masked'. Received: 0.0.")


@dataclasses.dataclass(frozen=True)
class Predictor:
    """F_theta (eqs. 14 to 18) and its departures from the paper, each a switch."""

    contexts: Literal["both", "history", "future", "none"] = "both"
    """Which contexts of the neighbours are read (Table 5)."""
    own_history: bool = True
    """True: the target user's history state h_t is read (eq. 17)."""
    target_state: bool = True
    """Departure: the candidate as the last, masked element of its own history, s_t."""
    residual_logit: bool = True
    """Departure, with `target_state`: the pretraining head's logit on s_t is added to the predictor's."""
    next_item_logit: bool = False
    """Departure, with `pretraining.next_item`: the logit of the candidate as the next item is a feature, and a learnt multiple of it
    is added to the predictor's."""
    raw_inputs: bool = True
    """Departure: x_t, x_r and their products in eq. 17, beside the pairwise products of eq. 16."""
    neighbour_label: bool = True
    """Departure: the neighbours' labels as a value under the same attention (as RIM)."""
    score_bias: bool = True
    """Departure: BM25 scores are added to eq. 14's logits with a learnt weight."""
    match_statistics: bool = True
    """Departure: how many pool rows agree with the candidate on each match set, and their rate of positives, as of the target's time."""
    history_statistics: bool = False
    """Departure: how many of the user's last L rows agree with the candidate on each item field, their rate of positives, and the time
    since the last."""
    recency_days: tuple[float, ...] = ()
    """Departure, in rolling mode: how many pool rows hold the candidate's value of each item field within the last so many days before the
    target's time, for each of these lengths, and the time since the newest. Empty: not read. A served model's pool ends with its export:
    export again well within the shortest length."""
    standardise: bool = False
    """Departure, with any of these three: those numbers have mean 0 and deviation 1 over the train candidates."""
    joint: bool = False
    """Departure: the encoder's weights are trained with the predictor (contexts still come from the datastore)."""
    initial_embeddings: Literal["pretrained", "random"] = "pretrained"
    """Where the predictor's embedding tables start."""
    freeze_embeddings: bool = False
    """True: they stay there; pretrained ones of fields that the encoder did not read (`encoder.user_fields`) are 0."""
    hidden_dims: tuple[int, ...] = (200, 80)
    """Widths of the MLP of eq. 18."""
    dropout_rate: float = 0.2
    """Dropout inside the MLP."""

    def __post_init__(self) -> None:
        check_range("predictor", "dropout_rate", self.dropout_rate, 0.0, 0.9)
        for days in self.recency_days:
            check_range("predictor", "recency_days", days, 1e-4, 36_525.0)


@dataclasses.dataclass(frozen=True)
class Training:
    """Training of the predictor, and what both trainings share."""

    batch_size: int = 128
    """Slates of a step, over all replicas."""
    num_epochs: int = 10
    """Most passes over the train examples."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    learning_rate_decay: LearningRateDecay = "none"
    """`cosine`: it falls to 0 along half a cosine over `num_epochs`, all of which are run; `none`: it stays."""
    loss: Literal["pointwise", "listwise"] = "pointwise"
    """`pointwise`: binary cross-entropy of each candidate. `listwise`: softmax cross-entropy over a slate's candidates, which learns
    their order; Platt's scaling on validation makes probabilities of it."""
    l2: float = 1e-4
    """Weight of the squared norm of the MLP's kernels in the loss."""
    patience: int = 2
    """Epochs without a better validation loss before stopping, where the rate stays: LogLoss, or the slates' cross-entropy where `loss` is
    listwise."""
    strategy: Literal["none", "mirrored", "multi_worker"] = "none"
    """tf.distribute strategy. `multi_worker` reads TF_CONFIG."""
    num_logical_devices: int = 0
    """Above 0: the CPU is split into this many logical devices, to run `mirrored` without GPUs."""

    def __post_init__(self) -> None:
        check_range("training", "batch_size", self.batch_size, 1, 1 << 20)
        check_range("training", "num_epochs", self.num_epochs, 1, 10_000)
        check_range("training", "patience", self.patience, 1, 10_000)
        check_range("training", "num_logical_devices", self.num_logical_devices, 0, 64)
