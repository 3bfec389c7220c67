"""A server that breaks off, stalls, lies and refuses."""

import hashlib
import http.server
import random
import threading

from vqdna_jax.runtime.remote.download import Patience
from vqdna_jax.runtime.remote.places import Checksum

CONTENT = random.Random(3).randbytes(700_000)
MD5 = Checksum("md5", hashlib.md5(CONTENT).hexdigest())
HASTY = Patience(connect_s=2, stall_s=0.25, tries=4, pause_s=0.001, longest_pause_s=0.05)


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of `acts`, the last for ever; `requests` are the headers that came."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.acts, self.requests = {"/genome.fa.gz": CONTENT}, [], []
        self.over = threading.Event()

    def url(self, path: str = "/genome.fa.gz") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request, client_address):
        pass  # a client that has had enough


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append(dict(self.headers))
        acts = self.server.acts
        act = acts.pop(0) if len(acts) > 1 else acts[0] if acts else whole
        act(self, self.server.files.get(self.path, CONTENT))

    def start(self, status: int, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def part_of(handler, content) -> tuple[int, dict, bytes]:
    """Status, headers and body that the request asks for."""
    etag = f'"{hashlib.md5(content).hexdigest()}"'
    asked, condition = handler.headers["Range"], handler.headers["If-Range"]
    if not asked or condition not in (None, etag):
        return 200, {"ETag": etag, "Content_Length": len(content)}, content
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        return 416, {"Content_Range": f"bytes */{len(content)}", "Content_Length": 0}, b""
    span = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return 206, {"ETag": etag, "Content_Range": span, "Content_Length": len(content) - start}, content[start:]


def whole(handler, content):
    status, headers, body = part_of(handler, content)
    handler.start(status, **headers)
    handler.wfile.write(body)


def cut(size, stall=False):
    def act(handler, content):
        status, headers, body = part_of(handler, content)
        handler.start(status, **headers)
        handler.wfile.write(body[:size])
        handler.wfile.flush()
        if stall:
            handler.server.over.wait(5)

    return act


def ignores_range(handler, content):
    handler.start(200, Content_Length=len(content))
    handler.wfile.write(content)


def no_length(handler, content):
    handler.start(200)
    handler.wfile.write(content)


def short_length(handler, content):
    handler.start(200, Content_Length=len(content) - 1000)
    handler.wfile.write(content)


def wrong_range(handler, content):
    handler.start(206, Content_Range=f"bytes 0-{len(content) - 1}/{len(content)}", Content_Length=len(content))
    handler.wfile.write(content)


def calls_it_gzip(handler, content):
    handler.start(200, Content_Length=len(content), Content_Encoding="gzip")
    handler.wfile.write(content)


def other_bytes(handler, content):
    whole(handler, content[:-1] + b"?")


def says(status, **headers):
    return lambda handler, content: handler.start(status, Content_Length=0, **headers)


def silent(handler, content):
    handler.close_connection = True
