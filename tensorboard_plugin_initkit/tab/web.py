"""Answers to the requests of the tab: GET and HEAD; an error is JSON with a sentence."""

import functools
import gzip
import json
from collections.abc import Callable, Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from tensorboard.backend.http_util import Respond
from tensorboard.plugins import base_plugin
from tensorboard.util import tb_logging
from werkzeug.wrappers import Request, Response

from tensorboard_plugin_initkit import PLUGIN_NAME

Handler = Callable[[Request], Response]
Apps = dict[str, Callable[..., Iterable[bytes]]]

_SCRIPTS = ["index", "state", "controls", "panels", "findings"]
_SCRIPTS += ["chart", "server", "host", "elements", "texts", "verdict"]
OWN_FILES = {f"{name}.js": "text/javascript" for name in _SCRIPTS} | {"style.css": "text/css"}
_BOKEH = ("bokeh.min.js", "bokeh-widgets.min.js")
_YEAR = 365 * 24 * 3600


class HttpError(Exception):
    """A request without an answer; the tab shows the sentence.

    Args:
        code: HTTP status.
        sentence: The fault, and the fix.
    """

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class TabPlugin(base_plugin.TBPlugin):
    """The tab: its place in TensorBoard, and the files of its page."""

    plugin_name = PLUGIN_NAME

    def is_active(self) -> bool:
        """Leave it to TensorBoard to look for runs of this plugin."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Return the name and the page of the tab."""
        return base_plugin.FrontendMetadata(
            es_module_path="/static/index.js", tab_name="Gradient Flow"
        )

    def get_plugin_apps(self) -> Apps:
        """Return the routes, each a WSGI application."""
        handlers = {"/static/*": serve_static, **self.handlers()}
        return {route: _application(handler) for route, handler in handlers.items()}

    def handlers(self) -> dict[str, Handler]:
        """Return the routes besides those of static files."""
        raise NotImplementedError


class BrokenPlugin(TabPlugin):
    """A tab with nothing but the error of a failed start."""

    def __init__(self, error: Exception) -> None:
        super().__init__(None)
        tb_logging.get_logger().error("keras-initkit: the tab cannot be loaded", exc_info=error)
        self._problem = (
            f"The tab cannot be loaded ({type(error).__name__}: {error}). "
            "Run `pip install --upgrade keras-initkit tensorboard`, and start TensorBoard again."
        )

    def handlers(self) -> dict[str, Handler]:
        """Return the first route of the page."""
        content: dict[str, Any] = {"version": "", "bokeh": None, "runs": [], "notes": []}
        content["problem"] = self._problem
        return {"/runs": lambda request: respond_json(request, content)}


def respond_json(request: Request, content: dict[str, Any], code: int = 200) -> Response:
    """Answer with JSON."""
    # Not as a dict: TensorBoard would go through all of it, in pure Python.
    return Respond(request, json.dumps(content, allow_nan=False), "application/json", code)


def respond_gzipped(request: Request, content: bytes) -> Response:
    """Answer with compressed JSON."""
    return Respond(request, content, "application/json", content_encoding="gzip")


def serve_static(request: Request) -> Response:
    """Answer with a file of the page; its name is looked up in a list, and is no part of a path."""
    name = request.path.rpartition("/static/")[2]
    if name in OWN_FILES:
        return Respond(request, _own(name), OWN_FILES[name])
    if name in _BOKEH:
        content = bokeh_file(name)
        return Respond(request, content, "text/javascript", content_encoding="gzip", expires=_YEAR)
    raise HttpError(404, "There is no such file.")


def _own(name: str) -> bytes:
    try:
        return (Path(__file__).parent / "static" / name).read_bytes()
    except OSError as error:
        raise HttpError(404, f"{name} is missing. Install keras-initkit again.") from error


@functools.cache
def bokeh_file(name: str) -> bytes:
    """Read a JavaScript file of the installed Bokeh, compressed."""
    # Bokeh is found, not imported: that takes half a second.
    path = distribution("bokeh").locate_file(f"bokeh/server/static/js/{name}")
    return gzip.compress(Path(str(path)).read_bytes(), 6, mtime=0)


def _application(handler: Handler) -> Callable[..., Iterable[bytes]]:
    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        try:
            if request.method not in ("GET", "HEAD"):
                sentence = f"The method must be GET or HEAD. Received: {request.method}."
                response = respond_json(request, {"error": sentence}, 405)
                response.headers["Allow"] = "GET, HEAD"
            else:
                response = handler(request)
        except HttpError as error:
            response = respond_json(request, {"error": str(error)}, error.code)
        except Exception as error:
            tb_logging.get_logger().exception("keras-initkit: %s", request.path)
            sentence = f"{type(error).__name__}: {error}"
            response = respond_json(request, {"error": sentence}, 500)
        return response(environ, start_response)

    return application
