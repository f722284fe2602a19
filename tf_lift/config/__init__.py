"""The typed configuration of a data set or an experiment: one TOML file."""

from tf_lift.config.config import Config, convert_value, load_config, parse_assignment, parse_assignments
from tf_lift.config.export_section import Export
from tf_lift.config.model_sections import Encoder, Predictor, Pretraining, Training
from tf_lift.config.sections import (
    AttributeTable,
    Behaviour,
    Negatives,
    Pipeline,
    Retrieval,
    Source,
    Split,
)
from tf_lift.config.situation_section import RELATIONS, Relation, Situation

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
    "RELATIONS",
    "Relation",
    "Retrieval",
    "Situation",
    "Source",
    "Split",
    "Training",
    "convert_value",
    "load_config",
    "parse_assignment",
    "parse_assignments",
]
