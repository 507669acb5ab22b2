"""A small program in the place of vLLM: answers /health and /metrics, and misbehaves on demand.

    python tests/stand_in_server.py --port 8000 --ready-after 0.2 --orphan orphan.pid

It takes vLLM's flags as well and leaves them alone. Standard library only, so that it starts fast.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 100.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 80.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
vllm:generation_tokens_total{engine="0",model_name="m"} TOKENS
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 6.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 1.0
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready-after", type=float, default=0.0, help="seconds")
    parser.add_argument("--say", default="loading the model", help="written to stderr at the start")
    parser.add_argument("--crash", type=float, help="seconds after it is ready to end, with exit code 3")
    parser.add_argument("--crash-once", type=Path, help="a file: end like that unless it is there, and make it")
    parser.add_argument("--crash-early", action="store_true", help="end like that before it is ready")
    parser.add_argument("--hang-after", type=float, help="seconds after it is ready from which nothing is answered")
    parser.add_argument("--orphan", type=Path, help="start a process that leaves the session; write its id here")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--pid", type=Path, help="write the own id here")
    return parser


def _orphan(path: Path) -> None:
    """A grandchild in a session of its own that ignores SIGTERM and whose parent has ended."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            path.write_text(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    os.wait()


def _end() -> None:
    print("ValueError: the stand-in was told to end", file=sys.stderr, flush=True)
    os._exit(3)


def main() -> None:
    args, _ = _parser().parse_known_args()
    if args.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(args.say, file=sys.stderr, flush=True)
    if args.pid:
        args.pid.write_text(str(os.getpid()))
    if args.orphan:
        _orphan(args.orphan)
    if args.crash_early:
        _end()
    time.sleep(args.ready_after)
    started = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now = time.monotonic() - started
            if args.hang_after is not None and now > args.hang_after:
                time.sleep(600)
            body = METRICS.replace("TOKENS", f"{1000 * now:.1f}") if self.path == "/metrics" else ""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", args.port), Handler) as server:
        crash = args.crash
        if args.crash_once is not None and not args.crash_once.exists():
            args.crash_once.touch()
            crash = 0.3
        if crash is not None:
            threading.Timer(crash, _end).start()
        server.serve_forever()


if __name__ == "__main__":
    main()
