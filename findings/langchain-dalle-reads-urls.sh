#!/bin/sh
# LangChain's DallEAPIWrapper sends no response_format and reads data[].url only: to an answer with
# b64_json alone, which is what OpenAI's gpt-image models give, it says TypeError. A server that it
# is to draw with has to send a url where response_format is missing; both beside each other do.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet langchain-community==0.4.2 openai==3.57.0
venv/bin/python -W ignore - <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

URL = "http://127.0.0.1/picture.png"
REPLIES = {
    "text": {"b64_json": "aGVsbG8="},
    "address": {"url": URL},
    "both": {"b64_json": "aGVsbG8=", "url": URL},
}
asked: list[list[str]] = []


class Images(BaseHTTPRequestHandler):
    """Answers with one picture, in the form that the model is called by."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append(sorted(body))
        reply = json.dumps({"created": 0, "data": [REPLIES[body["model"]]]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        pass


def said(model: str, port: int) -> str:
    """What the wrapper returns or raises."""
    base = f"http://127.0.0.1:{port}/v1"
    try:
        return DallEAPIWrapper(base_url=base, api_key="any", model=model).run("a red house")
    except TypeError as error:
        return f"TypeError: {error}"


server = HTTPServer(("127.0.0.1", 0), Images)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen = {model: said(model, server.server_port) for model in REPLIES}
print("langchain-community", version("langchain-community"), "openai", version("openai"))
print("keys of the request:", *asked[0])
for model, text in seen.items():
    print(f"{model}: {text}")
expected = (
    asked[0] == ["model", "n", "prompt", "size"]
    and seen["text"].startswith("TypeError")
    and seen["address"] == seen["both"] == URL
)
sys.exit(0 if expected else 1)
PYTHON
