"""Compares flowgauge with DuckDB, ClickHouse (chdb), Polars and DataFusion: the same questions on the
same file, whole processes in turn, answers compared before any time is printed."""

import argparse
import dataclasses
import ipaddress
import json
import os
import pathlib
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What the comparison installs and makes; nothing of it is committed.
SCRATCH = ROOT / ".benchenv"
PYTHON = SCRATCH / "python/bin/python"
PACKAGES = ["duckdb==2.0.0", "polars==2.1.0", "datafusion==55.0.0", "chdb==4.4.0", "pyarrow==26.0.1"]

PEERS = {name: ROOT / f"benches/peers/{name}_peer.py"
         for name in ["duckdb", "clickhouse", "polars", "datafusion"]}
US = "flowgauge"
# Options of `flowgauge analyze` that ask what the peers are asked. The report asks more than they can
# answer in one program: five tops and all detectors, where they do parse, sources and pairs.
PAIRS = ["--by", "srcaddr,dstaddr", "--metric", "distinct:dstport", "--min", "100", "--no-detect"]
QUESTIONS = {
    "parse": ["--top", "0", "--no-detect"],
    "sources": ["--by", "srcaddr", "--no-detect"],
    "pairs": PAIRS,
    "report": [],
}
# Pairs of which the check run adds up the ports; far more than any sensible file has.
PAIR_ROWS_MAX = 1_000_000
# Lines that Vector's parser is given each time; it takes more than a microsecond for each.
VECTOR_RECORDS = 200_000


def fail(message):
    sys.exit(f"bench-peers: {message}")


def tell(message):
    print(f"bench-peers: {message}", file=sys.stderr, flush=True)


@dataclasses.dataclass
class Run:
    """One process: what it answered and what it took."""
    answer: dict
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclasses.dataclass
class Contest:
    """A question at a number of threads, and everybody's runs."""
    question: str
    threads: int
    runs: dict

    def median(self, name, figure="wall_seconds"):
        return statistics.median(getattr(run, figure) for run in self.runs[name])

    def best(self, name, figure="wall_seconds"):
        return min(getattr(run, figure) for run in self.runs[name])

    def peak_bytes(self, name):
        return max(run.peak_bytes for run in self.runs[name])

    def fastest_peer(self):
        return min((name for name in self.runs if name != US), key=self.median, default=None)


# Set-up


def arguments():
    def numbers(text):
        return [int(part) for part in text.split(",")]

    def names(known):
        def read(text):
            unknown = set(text.split(",")) - set(known)
            if unknown:
                raise argparse.ArgumentTypeError(f"`{min(unknown)}` is none of {', '.join(known)}")
            return text.split(",")
        return read

    parser = argparse.ArgumentParser(prog="scripts/bench-peers", description=__doc__)
    parser.add_argument("--file", type=pathlib.Path,
                        help="version 2 lines without header; made by `flowgauge generate` if left out")
    parser.add_argument("--records", default="10m", help="records of the file that is made (10m)")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="1,2 if left out")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each (5)")
    parser.add_argument("--questions", type=names(QUESTIONS), default=list(QUESTIONS),
                        help="some of parse,sources,pairs,report; all if left out")
    parser.add_argument("--peers", type=names(PEERS), default=list(PEERS),
                        help="some of duckdb,clickhouse,polars,datafusion; all if left out")
    parser.add_argument("--vrl", action="store_true",
                        help="also Vector's parser in process (its first build takes minutes)")
    parser.add_argument("--flowgauge", type=pathlib.Path,
                        help="the program to measure; built from this checkout if left out")
    parser.add_argument("--markdown", action="store_true", help="tables for benches/README.md")
    given = parser.parse_args()
    if given.runs < 1 or min(given.threads) < 1:
        parser.error("runs and threads are at least 1")
    return given


def install_peers():
    """Installs the peers at the versions that the record was made with; a folder that carries other
    versions is made anew."""
    stamp = SCRATCH / "python/installed"
    wanted = " ".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    tell(f"installing {wanted} into {SCRATCH.relative_to(ROOT)}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", SCRATCH / "python"], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                    *PACKAGES], check=True)
    stamp.write_text(wanted)


def build(*options):
    # As it is released, whatever the shell asks of builds that are made again and again.
    environment = {**os.environ, "CARGO_INCREMENTAL": "0"}
    command = ["cargo", "build", "--release", "--quiet", *options]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def make_file(program, records):
    """Generated lines with planted port scans; the same from run to run."""
    file = SCRATCH / f"data/v2-{records}.txt"
    if not file.exists():
        tell(f"making {file.relative_to(ROOT)}")
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        subprocess.run([program, "generate", "--quiet", "--records", records, "--attacks",
                        "port_scan=20", "--output", part], check=True)
        part.rename(file)
    return file


# Runs


def environment():
    """The environment without what others may have set for NumPy's library on this machine."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}


def run(command, read_answer):
    """Runs a process to its end and measures all of it, start-up included."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            fail(f"status {process.returncode}: {shlex.join(map(str, command))}")
        output.seek(0)
        answer = read_answer(json.load(output))
    return Run(answer, wall_seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def our_answer(summary):
    """The parts of flowgauge's summary that peers answer too."""
    if summary["records"]["malformed"]:
        fail("the file holds malformed lines, which peers do not pass over")
    answer = {"records": summary["records"]["total"], "bytes": summary["bytes"],
              "packets": summary["packets"]}
    for top in summary["top"]:
        if top["by"] == ["srcaddr"]:
            answer["sources"] = [(row["key"][0], row["bytes"]) for row in top["rows"]]
        if top["metric"] == "distinct:dstport":
            answer["pairs"] = top["keys"]
            if len(top["rows"]) == top["keys"]:
                answer["pair_ports"] = sum(row["distinct"] for row in top["rows"])
    return answer


def peer_answer(printed):
    answer = {name: printed[name] for name in ["records", "pairs", "pair_ports"] if name in printed}
    if "sums" in printed:
        answer |= {"bytes": printed["sums"]["bytes"], "packets": printed["sums"]["packets"],
                   "sums": printed["sums"]}
    if "sources" in printed:
        answer["sources"] = [(str(ipaddress.ip_address(address)), total)
                             for address, total in printed["sources"]]
    return answer


def by_rank(sources):
    """Sources in an order that all agree on: ties at the last place may be any of their addresses."""
    least = min((total for _, total in sources), default=0)
    return sorted((total, address if total > least else "") for address, total in sources)


def compare(name, answer, others_name, others):
    """Fails if two answers differ in something that both have."""
    for part in sorted(answer.keys() & others.keys()):
        one, other = answer[part], others[part]
        if part == "sources":
            one, other = by_rank(one), by_rank(other)
        if one != other:
            fail(f"{name} and {others_name} differ in `{part}`: {answer[part]} and {others[part]}")


class Contenders:
    """Everybody's commands over one file, and the answers that all must give."""

    def __init__(self, program, file, peers):
        self.program, self.file = program, file
        self.names = [US, *peers]
        self.known = {}

    def run(self, name, question, threads):
        if name == US:
            command = self.ours([*QUESTIONS[question], "-j", threads])
            done = run(command, our_answer)
        else:
            done = run([PYTHON, PEERS[name], question, self.file, str(threads)], peer_answer)
        self.check(name, done.answer)
        return done

    def ours(self, options):
        return [self.program, "analyze", "--quiet", "--output", "json", *map(str, options), self.file]

    def check(self, name, answer):
        for others_name, others in self.known.items():
            compare(name, answer, others_name, others)
        self.known.setdefault(name, {}).update(answer)

    def check_pair_ports(self):
        """Has flowgauge tell the ports of every pair, which a timed run does not."""
        done = run(self.ours([*PAIRS, "--top", PAIR_ROWS_MAX]), our_answer)
        self.check(US, done.answer)

    def contest(self, question, threads, run_count):
        """Runs everybody once for the answer, then in turn for the times."""
        tell(f"{question}, threads {threads}")
        if question in ("pairs", "report"):
            self.check_pair_ports()
        for name in self.names:
            self.run(name, question, threads)
        contest = Contest(question, threads, {name: [] for name in self.names})
        for _ in range(run_count):
            for name in self.names:
                contest.runs[name].append(self.run(name, question, threads))
        return contest


def contest_with_vector(contenders, run_count):
    """Runs the bench of Vector's parser in turn with ours; returns both sides' nanoseconds a record."""
    manifest = ROOT / "benches/vrl/Cargo.toml"
    tell("building benches/vrl")
    build("--manifest-path", manifest, "--target-dir", manifest.parent / "target")
    program = manifest.parent / "target/release/flowgauge-bench-vrl"
    tell("Vector's parser, threads 1")
    ours, theirs = [], []
    for _ in range(run_count):
        done = contenders.run(US, "parse", 1)
        ours.append(done.wall_seconds / done.answer["records"] * 1e9)
        command = [program, contenders.file, str(VECTOR_RECORDS), "3"]
        ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment())
        theirs.append(json.loads(ran.stdout)["ns_median"])
    return ours, theirs


# Tables


def print_table(rows, markdown):
    """The first row heads the others; the first column is text."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for index, row in enumerate(rows):
        figures = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        cells = [row[0].ljust(widths[0]), *figures]
        print("| " + " | ".join(cells) + " |" if markdown else "  ".join(cells))
        if markdown and index == 0:
            print("|---|" + "---:|" * (len(row) - 1))
    print()


def contest_rows(contest, file_bytes):
    # A process that was started by this one cannot show less than this one's own peak.
    peak_floor = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield ["", "time ratio", "CPU ratio", "wall min", "wall median", "CPU min", "CPU median", "GB/s",
           "peak MiB"]
    for name in sorted(contest.runs, key=contest.median):
        peak_bytes = contest.peak_bytes(name)
        yield [
            name,
            f"{contest.median(name) / contest.median(US):.2f}",
            f"{contest.median(name, 'cpu_seconds') / contest.median(US, 'cpu_seconds'):.2f}",
            f"{contest.best(name):.3f} s",
            f"{contest.median(name):.3f} s",
            f"{contest.best(name, 'cpu_seconds'):.3f} s",
            f"{contest.median(name, 'cpu_seconds'):.3f} s",
            f"{file_bytes / contest.median(name) / 1e9:.3f}",
            f"{'≤ ' if peak_bytes <= peak_floor else ''}{peak_bytes / 2**20:.0f}",
        ]


def title(contest):
    return f"{contest.question}, {contest.threads} thread{'' if contest.threads == 1 else 's'}"


def verdicts(contests):
    """The ratios that the goals are about; times are medians of wall time."""
    by_kind = {(contest.question, contest.threads): contest for contest in contests}
    for contest in contests:
        ours, peer = contest.median(US), contest.fastest_peer()
        said = []
        if peer:
            leanest = min((name for name in contest.runs if name != US), key=contest.peak_bytes)
            said.append((f"times as fast as {peer}, the fastest peer", contest.median(peer) / ours))
            said.append((f"times the peak memory of {leanest}, the leanest peer",
                         contest.peak_bytes(US) / contest.peak_bytes(leanest)))
        parse = by_kind.get(("parse", contest.threads))
        if contest.question == "report" and parse and peer:
            said.append((f"times as fast as {parse.fastest_peer()} parses alone",
                         parse.median(parse.fastest_peer()) / ours))
        one = by_kind.get((contest.question, 1))
        if one and contest.threads > 1:
            said.append(("times as fast as with 1 thread", one.median(US) / ours))
        for text, ratio in said:
            yield [f"{title(contest)}: {text}", f"{ratio:.2f}"]


def print_vector(ours, theirs, markdown):
    best, median = min, statistics.median
    rows = [["Vector's parser, 1 thread", "best", "median"],
            ["parse_aws_vpc_flow_log, in process, ns a record"]
            + [f"{of(theirs):.0f}" for of in (best, median)],
            ["flowgauge parse, whole process, ns a record"]
            + [f"{of(ours):.1f}" for of in (best, median)],
            ["time ratio"] + [f"{of(theirs) / of(ours):.1f}" for of in (best, median)]]
    print_table(rows, markdown)


def told(command):
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return ran.stdout.decode().strip()


def print_conditions(file, given):
    processors = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in processors if line.startswith("model name")]
    commit = told(["git", "rev-parse", "--short=10", "HEAD"]) or "unknown"
    is_changed = told(["git", "status", "--porcelain", "--untracked-files=no"])
    print(f"CPU: {models[0] if models else 'unknown'}, {os.cpu_count()} logical; "
          f"load {os.getloadavg()[0]:.1f} at the start")
    program = f"; program: {given.flowgauge}" if given.flowgauge else ""
    print(f"commit: {commit}{' with changes' if is_changed else ''}{program}")
    print(f"command: {shlex.join(['scripts/bench-peers', *sys.argv[1:]])}")
    print(f"file: {file.name}, {file.stat().st_size:,} bytes; {given.runs} runs of each, in turn; "
          "ratios are of medians, to flowgauge's")
    print()


def main():
    given = arguments()
    SCRATCH.mkdir(exist_ok=True)
    install_peers()
    program = given.flowgauge
    if program is None:
        build("--locked")
        program = ROOT / "target/release/flowgauge"
    file = (given.file or make_file(program, given.records)).resolve()
    print_conditions(file, given)
    # The page cache: no run is to wait for the disk.
    with open(file, "rb") as opened:
        while opened.read(1 << 20):
            pass

    contenders = Contenders(program.resolve(), file, given.peers)
    contests = [contenders.contest(question, threads, given.runs)
                for threads in given.threads for question in given.questions]
    for contest in contests:
        print(f"{'### ' if given.markdown else ''}{title(contest)}\n")
        print_table(list(contest_rows(contest, file.stat().st_size)), given.markdown)
    rows = list(verdicts(contests))
    if rows:
        print_table([["flowgauge", "ratio"], *rows], given.markdown)
    if given.vrl:
        print_vector(*contest_with_vector(contenders, given.runs), given.markdown)


if __name__ == "__main__":
    main()
