"""tf_lift ranks items for users by looking at what happened next to people in the same situation.

TensorFlow Recommenders needs Keras 2, so this module, and nothing else, selects it: `TF_USE_LEGACY_KERAS`
must be set before TensorFlow is imported for the first time.
"""

import os
import sys

if os.environ.setdefault("TF_USE_LEGACY_KERAS", "1") not in ("1", "true", "True"):
    raise ImportError(
        "tf_lift needs Keras 2 (tf_keras), as TensorFlow Recommenders does. Received: "
        f"TF_USE_LEGACY_KERAS={os.environ['TF_USE_LEGACY_KERAS']!r}. Unset the variable or set it to 1."
    )
if "tensorflow" in sys.modules:
    _version = getattr(sys.modules["tensorflow"].keras, "__version__", "2")  # Keras 2's has no version here
    if not _version.startswith("2"):
        raise ImportError(
            f"tf_lift needs Keras 2 (tf_keras), but tf.keras is Keras {_version} already. "
            "Import tf_lift before tensorflow, or set TF_USE_LEGACY_KERAS=1 in the environment."
        )

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notices hide our own log lines

from tf_lift._version import __version__

__all__ = ["__version__"]
