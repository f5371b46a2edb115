"""Warnings at the user's own line."""

import sys
import warnings

# Frames of these packages, and of Python's own library, are not the user's.
_PACKAGES = {
    "keras_initkit",
    "tensorboard_plugin_initkit",
    "keras",
    "tensorflow",
    "jax",
    "jaxlib",
    "torch",
    "optree",
}


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line of the stack that is the user's, as at a call of `fit`.

    Skipped are the frames of this package, of Keras and its backends, and of Python's library.
    Where none is left, as in a thread that runs `fit` itself, the outermost frame is named.
    """
    frame = sys._getframe(1)
    while _is_inside(frame.f_globals.get("__name__", "")) and frame.f_back is not None:
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__", "<string>"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_inside(module: str) -> bool:
    package = module.partition(".")[0]
    return package in _PACKAGES or package in sys.stdlib_module_names
