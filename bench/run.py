"""Benchmark runner for LLM gateways: paired, interleaved, loopback only.

    run.py bench   -t targets.toml [-T name,name] [-s scenario,...] [-r ROUNDS] [-o out.json]
    run.py startup -t targets.toml [-T name,name] [-r ROUNDS] [-o out.json]

It builds mock_upstream and loadgen with a C compiler, starts the mock and every target on free loopback ports, then
runs  for round: for scenario: for target  with the order of targets rotated each round. Targets not under test are
stopped (SIGSTOP), so they cost nothing. See README.md for the target file.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics as st
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

KIT = Path(__file__).resolve().parent
BUILD = KIT / "build"
TICK = os.sysconf("SC_CLK_TCK")

# What each name stands for: connections, model, whether it streams, seconds, warm-up, ramp.
SCENARIOS = {
    "json-c1": (1, "mock-64-0", False, 3, 0.5, 0),
    "json-c16": (16, "mock-64-0", False, 3, 0.5, 0),
    "json-c64": (64, "mock-64-0", False, 3, 0.5, 0),
    "json-c256": (256, "mock-64-0", False, 3, 0.5, 0),
    "sse-low": (1, "mock-64-5ms", True, 3, 0.5, 0),
    "sse-burst": (64, "mock-64-0", True, 3, 0.5, 0),
    "sse-paced": (1000, "mock-100-50ms", True, 5, 1.0, 4),
    "sse-paced-200": (200, "mock-100-50ms", True, 5, 1.0, 3),
}
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {
        "role": "user",
        "content": "Explain in a few sentences how a reverse proxy streams tokens from a language model to its client.",
    },
]


def build() -> None:
    for name in ("mock_upstream", "loadgen"):
        src, exe = KIT / "src" / f"{name}.c", BUILD / name
        if not exe.exists() or exe.stat().st_mtime < src.stat().st_mtime:
            BUILD.mkdir(exist_ok=True)
            subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-o", exe, src], check=True)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pin(cpus: str) -> list[str]:
    return ["taskset", "-c", cpus] if cpus and shutil.which("taskset") else []


def session_pids(sid: int) -> list[int]:
    out = []
    for d in (entry.name for entry in Path("/proc").iterdir()):
        if d.isdigit():
            with contextlib.suppress(OSError):
                f = Path(f"/proc/{d}/stat").read_text().rsplit(")", 1)[1].split()
                if int(f[3]) == sid:
                    out.append(int(d))
    return out


def cpu_seconds(sid: int) -> float:
    t = 0
    for p in session_pids(sid):
        with contextlib.suppress(OSError):
            f = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
            t += int(f[11]) + int(f[12])
    return t / TICK


def memory_mb(sid: int) -> float:
    """PSS of all the target's processes (shared pages counted once)."""
    kb = 0
    for p in session_pids(sid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{p}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kb += int(line.split()[1])
    return kb / 1024


def get(port: int, path: str, timeout: float = 2) -> tuple[int, bytes]:
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


class Mock:
    def __init__(self, cpus: str):
        self.p = subprocess.Popen(
            [*pin(cpus), BUILD / "mock_upstream"], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.port = int(self.p.stdout.readline().split()[1])

    def stats(self) -> dict:
        return json.loads(get(self.port, "/stats")[1])

    def stop(self) -> None:
        self.p.terminate()
        self.p.wait()


class Target:
    def __init__(self, spec: dict, mock_port: int, cpus: str, variables: dict[str, str]):
        self.spec, self.name = spec, spec["name"]
        self.path = spec.get("path", "/v1/chat/completions")
        self.model_prefix = spec.get("model_prefix", "")
        self.proc = None
        self.direct = "cmd" not in spec
        self.cpus = spec.get("cpus", cpus)
        self.tmp = Path(tempfile.mkdtemp(prefix=f"bench-{self.name}-"))
        self.mock_port = mock_port
        self.vars = variables
        self.port = self.port2 = mock_port
        self.headers = {}

    def fill(self, s: str) -> str:
        v = {
            "PORT": self.port,
            "PORT2": self.port2,
            "UPSTREAM_PORT": self.mock_port,
            "UPSTREAM": f"http://127.0.0.1:{self.mock_port}",
            "TMP": self.tmp,
            "KIT": KIT,
            "ROOT": KIT.parent,
            **self.vars,
        }
        for k, x in v.items():
            s = s.replace(f"@{k}@", str(x))
        return s

    def start(self, timeout: float = 120) -> float:
        """Start it; seconds until its health URL answered 200."""
        if self.direct:
            self.headers = {}
            return 0.0
        self.port, self.port2 = free_port(), free_port()
        self.headers = {k: self.fill(v) for k, v in self.spec.get("headers", {}).items()}
        for name, text in self.spec.get("files", {}).items():
            (self.tmp / name).write_text(self.fill(text))
        env = {**os.environ, **{k: self.fill(v) for k, v in self.spec.get("env", {}).items()}}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        log = (self.tmp / "log").open("wb")  # the process's own, for as long as it runs
        t = time.perf_counter()
        self.proc = subprocess.Popen(
            [*pin(self.cpus), *map(self.fill, self.spec["cmd"])],
            env=env,
            stdout=log,
            stderr=log,
            cwd=self.fill(self.spec.get("cwd", "@TMP@")),
            start_new_session=True,
        )
        health = self.spec.get("health", "/health")
        while time.perf_counter() - t < timeout:
            if self.proc.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                code = get(self.port, health)[0]
                if code == 200 or (code < 500 and self.spec.get("health_any")):
                    return time.perf_counter() - t
            time.sleep(0.005)
        self.stop()
        raise RuntimeError(f"{self.name} did not start: {(self.tmp / 'log').read_text(errors='replace')[-1500:]}")

    def signal(self, s: int) -> None:
        if self.proc:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.proc.pid, s)

    def stop(self) -> None:
        if not self.proc:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.proc.wait(6)
        self.signal(signal.SIGKILL)
        self.proc.wait()
        self.proc = None


def measure(t: Target, scenario: str, mock: Mock, load_cpus: str, scale: float) -> dict:
    conns, model, stream, secs, warm, ramp = SCENARIOS[scenario]
    secs = secs * scale
    body = {"model": t.model_prefix + model, "messages": MESSAGES, **t.spec.get("body", {})}
    body["stream"] = stream
    cmd = [
        *pin(load_cpus),
        str(BUILD / "loadgen"),
        "-P",
        str(t.port),
        "-u",
        t.path,
        "-b",
        json.dumps(body),
        "-c",
        str(conns),
        "-d",
        str(secs),
        "-w",
        str(warm),
        "-r",
        str(ramp),
        "-m",
        model.split("-")[1] if stream else "1",
    ]
    if stream and t.spec.get("tail", "[DONE]"):
        cmd += ["-t", t.spec.get("tail", "[DONE]")]
    for k, v in t.headers.items():
        cmd += ["-H", f"{k}: {v}"]
    s0 = mock.stats()
    sid = t.proc.pid if t.proc else mock.p.pid
    idle_mb = memory_mb(sid)
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, text=True)
    time.sleep(warm + ramp)
    c0, m0, w0 = cpu_seconds(sid), cpu_seconds(mock.p.pid), time.perf_counter()
    time.sleep(secs * 0.9)
    busy_mb = memory_mb(sid)
    time.sleep(secs * 0.1)
    c1, m1, w1 = cpu_seconds(sid), cpu_seconds(mock.p.pid), time.perf_counter()
    try:
        out, _ = p.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        p.kill()
        return {"target": t.name, "scenario": scenario, "error": "load generator timed out"}
    r = json.loads(out)
    s1 = mock.stats()
    cpu = c1 - c0
    r.update(
        target=t.name,
        scenario=scenario,
        cpu_pct=100 * cpu / (w1 - w0),
        mock_cpu_pct=100 * (m1 - m0) / (w1 - w0),
        cpu_us_per_request=1e6 * cpu / (r["rps"] * (w1 - w0)) if r["ok"] else None,
        cpu_us_per_chunk=1e6 * cpu / (r["chunks_per_s"] * (w1 - w0)) if r["chunks"] else None,
        idle_mb=idle_mb,
        busy_mb=busy_mb,
        kb_per_stream=1024 * (busy_mb - idle_mb) / conns,
        upstream_connections=s1["accepted"] - s0["accepted"],
        loadavg=os.getloadavg()[0],
        at=time.time(),
    )
    time.sleep(0.2)
    return r


def settle(t: Target, limit: float = 10) -> None:
    """Let it finish work it put off (logging queues), so the next run doesn't pay."""
    end = time.perf_counter() + limit
    while t.proc and time.perf_counter() < end:
        c = cpu_seconds(t.proc.pid)
        time.sleep(0.25)
        if cpu_seconds(t.proc.pid) - c <= 0.02:
            return


def med(xs):
    xs = [x for x in xs if x is not None]
    return st.median(xs) if xs else None


def q(r: dict, key: str, quant: str):
    return r[key][quant] if r.get(key) else None


COLUMNS = {
    "rps": lambda r: r["rps"],
    "chunks/s": lambda r: r["chunks_per_s"],
    "rps/core": lambda r: 1e6 / r["cpu_us_per_request"] if r["cpu_us_per_request"] else None,
    "chunks/s/core": lambda r: 1e6 / r["cpu_us_per_chunk"] if r["cpu_us_per_chunk"] else None,
    "cpu%": lambda r: r["cpu_pct"],
    "cpu us/req": lambda r: r["cpu_us_per_request"],
    "cpu us/chunk": lambda r: r["cpu_us_per_chunk"],
    "total p50": lambda r: q(r, "total_us", "p50"),
    "total p99": lambda r: q(r, "total_us", "p99"),
    "ttft p50": lambda r: q(r, "ttft_us", "p50"),
    "ttft p99": lambda r: q(r, "ttft_us", "p99"),
    "transit p50": lambda r: q(r, "transit_us", "p50"),
    "transit p99": lambda r: q(r, "transit_us", "p99"),
    "jitter p50": lambda r: q(r, "jitter_us", "p50"),
    "jitter p99": lambda r: q(r, "jitter_us", "p99"),
    "MB": lambda r: r["busy_mb"],
    "KB/stream": lambda r: r["kb_per_stream"],
    "errors": lambda r: r["errors"],
}
SHOW = {
    "json": ["rps", "rps/core", "cpu us/req", "cpu%", "total p50", "total p99", "errors"],
    "sse-low": ["ttft p50", "ttft p99", "transit p50", "transit p99", "jitter p99", "cpu us/chunk", "errors"],
    "sse-burst": ["chunks/s", "chunks/s/core", "cpu us/chunk", "cpu%", "ttft p50", "transit p50", "errors"],
    "sse-paced": [
        "chunks/s",
        "cpu%",
        "cpu us/chunk",
        "transit p50",
        "transit p99",
        "jitter p50",
        "jitter p99",
        "MB",
        "KB/stream",
        "errors",
    ],
}


def fmt(x) -> str:
    if x is None:
        return "-"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}"


def table(results: list[dict], baseline: str | None) -> str:
    out = []
    names = list(dict.fromkeys(r["target"] for r in results))
    for sc in dict.fromkeys(r["scenario"] for r in results):
        rows = [r for r in results if r["scenario"] == sc and "error" not in r]
        cols = next(v for k, v in SHOW.items() if sc.startswith(k))
        n = max((sum(r["target"] == t for r in rows) for t in names), default=0)
        keys = ["chunks/s", "chunks/s/core"] if sc == "sse-burst" else ["rps", "rps/core"]
        extra = [f"{k} x {baseline}" for k in keys] if baseline and (sc.startswith("json") or sc == "sse-burst") else []
        out.append(f"\n### {sc}  (median of {n} rounds; times in microseconds)\n")
        out.append("| target | " + " | ".join(cols + extra) + " |")
        out.append("|---|" + "---:|" * len(cols + extra))
        for t in names:
            mine = [r for r in rows if r["target"] == t]
            if not mine:
                continue
            cells = [fmt(med([COLUMNS[c](r) for r in mine])) for c in cols]
            for key in keys if extra else []:  # paired within the round
                base = {r["round"]: COLUMNS[key](r) for r in rows if r["target"] == baseline}
                ra = [COLUMNS[key](r) / base[r["round"]] for r in mine if base.get(r["round"]) and COLUMNS[key](r)]
                cells.append(f"{st.median(ra):.2f} ({min(ra):.2f}-{max(ra):.2f})" if ra else "-")
            out.append(f"| {t} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def load_targets(a, mock: Mock) -> list[Target]:
    variables = dict(v.split("=", 1) for v in a.set)
    specs = [s for f in a.targets for s in tomllib.loads(Path(f).read_text())["target"]]
    if a.only:
        want = a.only.split(",")
        by = {s["name"]: s for s in specs}
        specs = [by[w] for w in want]
    return [Target(s, mock.port, a.gateway_cpus, variables) for s in specs]


def bench(a) -> None:
    mock = Mock(a.load_cpus)
    targets = load_targets(a, mock)
    results, live = [], []
    try:
        for t in targets:
            try:
                took = t.start()
            except (RuntimeError, OSError) as e:
                print(f"! {t.name}: {e}", file=sys.stderr)
                continue
            print(f"  started {t.name} in {took:.2f} s", file=sys.stderr)
            for sc in ("json-c16", "sse-burst"):  # first requests import and compile things
                for _ in range(4):
                    if measure(t, sc, mock, a.load_cpus, a.prime).get("ok", 0) >= 20:
                        break
            settle(t)
            t.signal(signal.SIGSTOP)
            live.append(t)
        for rnd in range(a.rounds):
            for sc in a.scenarios.split(","):
                for i in range(len(live)):
                    t = live[(i + rnd) % len(live)]
                    if sc in t.spec.get("skip", []):
                        continue
                    t.signal(signal.SIGCONT)
                    time.sleep(0.05)
                    r = measure(t, sc, mock, a.load_cpus, a.scale)
                    settle(t)
                    t.signal(signal.SIGSTOP)
                    r["round"] = rnd
                    results.append(r)
                    if "error" in r:
                        print(f"! {t.name} {sc}: {r['error']}", file=sys.stderr)
                        continue
                    bad = f"  ERR {r['errors']} {r['err']} {r['first_bad'][:160]}" if r["errors"] else ""
                    print(
                        f"  [{rnd}] {sc:10} {t.name:24} rps {r['rps']:9.1f} chunks/s {r['chunks_per_s']:9.0f} cpu {r['cpu_pct']:5.1f}% "
                        f"cpu/req {fmt(r['cpu_us_per_request'])}us load {r['loadavg']:.1f}{bad}",
                        file=sys.stderr,
                        flush=True,
                    )
            if a.out:
                Path(a.out).write_text(
                    json.dumps({"args": {k: str(v) for k, v in vars(a).items()}, "results": results})
                )
    finally:
        for t in targets:
            t.stop()
            shutil.rmtree(t.tmp, ignore_errors=True)
        mock.stop()
    print(table(results, a.baseline))


def startup(a) -> None:
    mock = Mock(a.load_cpus)
    targets = load_targets(a, mock)
    rows = []
    try:
        for rnd in range(a.rounds):
            for t in targets:
                if t.direct:
                    continue
                try:
                    took = t.start()
                except (RuntimeError, OSError) as e:
                    print(f"! {t.name}: {e}", file=sys.stderr)
                    continue
                time.sleep(1.0)
                rows.append(
                    {
                        "target": t.name,
                        "round": rnd,
                        "seconds": took,
                        "cpu_s": cpu_seconds(t.proc.pid),
                        "idle_mb": memory_mb(t.proc.pid),
                        "processes": len(session_pids(t.proc.pid)),
                    }
                )
                t.stop()
    finally:
        for t in targets:
            t.stop()
            shutil.rmtree(t.tmp, ignore_errors=True)
        mock.stop()
    print("| target | to first 200 (s) | CPU (s) | idle PSS (MB) | processes |\n|---|---:|---:|---:|---:|")
    for n in dict.fromkeys(r["target"] for r in rows):
        m = [r for r in rows if r["target"] == n]
        print(
            f"| {n} | {med([r['seconds'] for r in m]):.2f} | {med([r['cpu_s'] for r in m]):.2f} | {med([r['idle_mb'] for r in m]):.0f} | {m[0]['processes']} |"
        )
    if a.out:
        Path(a.out).write_text(json.dumps(rows))


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("mode", choices=["bench", "startup"])
    ap.add_argument("-t", "--targets", action="append", required=True)
    ap.add_argument("-T", "--only", help="names, comma separated, in this order")
    ap.add_argument("-s", "--scenarios", default="json-c1,json-c64,sse-burst")
    ap.add_argument("-r", "--rounds", type=int, default=3)
    ap.add_argument("-b", "--baseline", help="target for the ratio column")
    ap.add_argument("-o", "--out")
    ap.add_argument("--scale", type=float, default=1.0, help="factor on the measured seconds")
    ap.add_argument("--prime", type=float, default=0.3, help="factor on the unmeasured first run")
    cpus = sorted(os.sched_getaffinity(0))
    ap.add_argument(
        "--gateway-cpus", default=str(cpus[0]) if len(cpus) > 1 else "", help="taskset list, '' = not pinned"
    )
    ap.add_argument("--load-cpus", default=str(cpus[1]) if len(cpus) > 1 else "")
    ap.add_argument("--set", action="append", default=[], help="NAME=VALUE for @NAME@ in the target file")
    a = ap.parse_args()
    build()
    {"bench": bench, "startup": startup}[a.mode](a)


if __name__ == "__main__":
    main()
