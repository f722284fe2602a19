"""The typed configuration of a data set or an experiment: one TOML file."""

from tf_lift.config.config import Config, load_config
from tf_lift.config.export_section import Export
from tf_lift.config.sections import (
    AttributeTable,
    Behaviour,
    Encoder,
    Negatives,
    Pipeline,
    Predictor,
    Pretraining,
    Retrieval,
    Source,
    Split,
    Training,
)

__all__ = [
    "AttributeTable",
    "Behaviour",
    "Config",
    "Encoder",
    "Export",
    "Negatives",
    "Pipeline",
    "Predictor",
    "Pretraining",
    "Retrieval",
    "Source",
    "Split",
    "Training",
    "load_config",
]
