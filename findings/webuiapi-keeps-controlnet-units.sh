#!/bin/sh
# A ControlNet unit that webuiapi was given for one picture is sent with every later one as well, by
# every client of the process: txt2img writes it into the default value of its argument
# alwayson_scripts, and so does img2img. A server sees requests that ask for the unit, hint and all.
# A caller that passes alwayson_scripts={} sends what it asked for.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet webuiapi==0.9.17
venv/bin/python -W ignore - <<'PYTHON'
import base64
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from PIL import Image
from webuiapi import ControlNetUnit, WebUIApi

file = io.BytesIO()
Image.new("RGB", (8, 8)).save(file, "PNG")
PICTURE = base64.b64encode(file.getvalue()).decode()
REPLY = json.dumps({"images": [PICTURE], "parameters": {}, "info": "{}"}).encode()
asked: list[list[str]] = []


class WebUI(BaseHTTPRequestHandler):
    """Answers with one picture, and notes the units of the request."""

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(b'{"txt2img": [], "img2img": []}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        units = body["alwayson_scripts"].get("ControlNet", {"args": []})["args"]
        asked.append([unit["model"] for unit in units])
        self.answer(REPLY)

    def log_message(self, *_: object) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), WebUI)
threading.Thread(target=server.serve_forever, daemon=True).start()
unit = ControlNetUnit(image=Image.new("RGB", (8, 8)), module="canny", model="edges")
first, second = (WebUIApi("127.0.0.1", server.server_port) for _ in range(2))
first.txt2img(prompt="a castle")
first.txt2img(prompt="a castle", controlnet_units=[unit])
first.txt2img(prompt="a cat")
second.txt2img(prompt="a dog")
second.txt2img(prompt="a dog", alwayson_scripts={})
print("webuiapi", version("webuiapi"))
for when, units in zip(("before", "with the unit", "after", "another client", "own {}"), asked):
    print(f"{when}: units {units}")
sys.exit(0 if asked == [[], ["edges"], ["edges"], ["edges"], []] else 1)
PYTHON
