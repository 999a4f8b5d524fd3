"""``make bench``: dragoman as it ships, beside direct, nginx and LiteLLM, in one interleaved run.

    bench.py [-r ROUNDS] [--scale FACTOR] [--litellm VENV | --no-litellm] [-s scenario,...]

Prints the tables and keeps the figures as JSON in bench/results/. What is missing on this machine is named and left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

KIT = Path(__file__).resolve().parent
LITELLM = "litellm[proxy]==1.102.4"
SCENARIOS = "json-c1,json-c64,sse-burst,sse-paced-200,sse-low"
OURS = ("dragoman-openai", "dragoman-ollama", "dragoman-ollama-openai")


def litellm(venv: Path) -> Path | None:
    """A virtual environment with LiteLLM's proxy, made if need be; None when that fails."""
    if not (venv / "bin" / "litellm").exists():
        print(f"installing {LITELLM} into {venv} (some minutes, once)", file=sys.stderr)
        try:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", LITELLM], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"! LiteLLM is left out: {error}", file=sys.stderr)
            return None
    return venv


def nginx() -> bool:
    """Whether nginx is here; on Debian, root gets it installed."""
    if Path("/usr/sbin/nginx").exists():
        return True
    if os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "nginx-light"]
        # Debian starts what it installs; the kit starts its own.
        policy = Path("/usr/sbin/policy-rc.d")
        own = not policy.exists()
        if own:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            if subprocess.run(install, stdout=subprocess.DEVNULL).returncode:
                subprocess.run(["apt-get", "update", "--quiet"], stdout=subprocess.DEVNULL)
                subprocess.run(install, stdout=subprocess.DEVNULL)
        finally:
            if own:
                policy.unlink()
    if Path("/usr/sbin/nginx").exists():
        return True
    print("! nginx is left out: /usr/sbin/nginx is not here", file=sys.stderr)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("-s", "--scenarios", default=SCENARIOS)
    parser.add_argument("--scale", type=float, default=0.6, help="factor on the measured seconds")
    parser.add_argument("--litellm", type=Path, default=KIT / "build" / "litellm", help="its virtual environment")
    parser.add_argument("--no-litellm", action="store_true")
    options = parser.parse_args()
    (KIT / "results").mkdir(exist_ok=True)
    (KIT / "build").mkdir(exist_ok=True)
    names = ["direct", *OURS]
    values = ["--set", f"PYTHON={sys.executable}"]
    baseline: list[str] = []
    if nginx():
        names.insert(1, "nginx")
    venv = None if options.no_litellm else litellm(options.litellm.absolute())
    if venv is not None:
        names.insert(-len(OURS), "litellm")
        values += ["--set", f"LITELLM={venv}"]
        baseline = ["-b", "litellm"]
    files = [part for name in ("anchors", "gateways", "targets") for part in ("-t", str(KIT / f"{name}.toml"))]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run = [sys.executable, str(KIT / "run.py")]
    common = [*files, "-T", ",".join(names), *values]
    out = KIT / "results" / stamp
    status = subprocess.run(
        [
            *run,
            "bench",
            *common,
            *baseline,
            "-s",
            options.scenarios,
            "-r",
            str(options.rounds),
            "--scale",
            str(options.scale),
            "-o",
            f"{out}.json",
        ]
    ).returncode
    print(f"\n### startup  (median of {options.rounds} rounds)\n", flush=True)
    status |= subprocess.run(
        [*run, "startup", *common, "-r", str(options.rounds), "-o", f"{out}-startup.json"]
    ).returncode
    print(f"\nkept in {out}.json and {out}-startup.json", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
