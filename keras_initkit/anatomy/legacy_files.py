"""Keras's legacy files, `.h5`: no method of a layer is called only to save it to one.

Keras internals: the function that writes their weights.
"""

import sys
from types import FrameType


def is_saved_to_legacy_file() -> bool:
    """Check for a call from inside Keras's writing of a legacy file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "save_weights_to_hdf5_group":
        frame = frame.f_back
    return frame is not None
