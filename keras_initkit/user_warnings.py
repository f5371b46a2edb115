"""Warnings at the user's own line."""

import sys
import warnings

# Frames of these packages, and of Python's own library, are not the user's.
_INSIDE = sys.stdlib_module_names.union(
    ("keras_initkit", "tensorboard_plugin_initkit", "keras"),
    ("tensorflow", "jax", "jaxlib", "torch", "optree"),
)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line of the stack that is the user's, as at a call of `fit`.

    Skipped are the frames of this package, of Keras and its backends, and of Python's library.
    Where none is left, as in a thread that runs `fit` itself, the outermost frame is named.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _INSIDE:
            break
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__", "<string>"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )
