"""Serve a saved model: POST a JSON list of raw rows, get a JSON list of predictions.

    python examples/serve.py MODEL.keras

Prints its address once it is ready. To load the model, it is enough to import keras_initkit.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_initkit  # noqa: F401 - registers the layers that the model is made of


def main() -> None:
    """Load the model and answer requests until stopped."""
    model = keras.saving.load_model(sys.argv[1])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            predictions = model.predict(np.array(rows, "float32"), verbose=0)
            body = json.dumps(predictions.tolist()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
