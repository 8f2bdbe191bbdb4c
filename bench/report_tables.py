"""The tables of docs/benchmarks.md and README.md, in Markdown, from the figures of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from results import Results, Row, ratio

Cell = Callable[[Row], str]
NONE = "—"
MIB = 1 << 20
_LATER_SHOWN = 40


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; its first column is text, the others are numbers."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """So many significant digits, without an exponent."""
    if value is None:
        return NONE
    if value == 0:
        return f"0{unit}"
    # Whole numbers stay whole, however many digits they have.
    text = f"{value:.{digits}g}"
    text = f"{float(text):,.0f}" if "e" in text or abs(value) >= 10 ** (digits - 1) else text
    return f"{text}{unit}"


def milliseconds(row: Row) -> str:
    """Median and 99th percentile."""
    seconds = row["figures"]["seconds"]
    return f"{number(seconds['p50'] * 1e3)} / {number(seconds['p99'] * 1e3)}"


def mebibytes(*names: str) -> Cell:
    """The sum of these figures in MiB."""
    return lambda row: number(sum(row["figures"].get(name, 0) for name in names) / MIB, digits=4)


def named(way: str) -> str:
    """The way's name; ours stand out."""
    return f"**{way}**" if way.startswith("mapcell") else way


def pivot(results: Results, bench: str, key: str, title: str, cell: Cell, unit: str = "", **case: object) -> str:
    """Ways by the values of `key`; beneath it, why figures are missing."""
    columns = results.values(bench, key, **case)
    if all(isinstance(column, int) for column in columns):
        columns.sort()
    lines = []
    for way in results.ways(bench, **case):
        found = {row["case"].get(key): row for row in results.rows(bench, **case) if row["way"] == way}
        cells = [cell(found[c]) if c in found and "figures" in found[c] else NONE for c in columns]
        lines.append([named(way), *cells])
    if not lines:
        return "Not measured."
    return table([title, *(f"{c:,}{unit}" if isinstance(c, int) else f"{c}{unit}" for c in columns)], lines) + missing(
        results, bench, **case
    )


def missing(results: Results, bench: str, **case: object) -> str:
    """One line for each reason, with the ways that it kept from being measured."""
    reasons: dict[str, dict[str, None]] = {}
    for row, why in results.failures(bench, **case):
        reasons.setdefault(why, {})[row["way"]] = None
    lines = [f"{NONE} {', '.join(ways)}: {plain(why)}" for why, ways in reasons.items()]
    return "\n\n" + "  \n".join(lines) if lines else ""


def plain(why: str) -> str:
    """A reason, safe within Markdown."""
    return "`" + why.replace("`", "'").replace("|", "/") + "`"


def figures(results: Results, bench: str, columns: Mapping[str, Cell], title: str = "", **case: object) -> str:
    """Ways by figures, for one case."""
    lines = [
        [named(row["way"]), *(cell(row) for cell in columns.values())]
        for way in results.ways(bench, **case)
        for row in results.rows(bench, **case)
        if row["way"] == way and "figures" in row
    ]
    if not lines and not missing(results, bench, **case):
        return "Not measured."
    return table([title, *columns], lines) + missing(results, bench, **case)


def machine(results: Results) -> str:
    """Where and when, in a sentence."""
    if not results.documents:
        return "Not measured."
    documents = sorted(results.documents.values(), key=lambda document: str(document["date"]))
    about, used = documents[-1]["machine"], documents[-1]["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in used.items() if version)
    huge = f"{about['huge_pages']} free huge pages" if about["huge_pages"] else "no huge pages"
    return (
        f"Measured on {documents[-1]['date'][:10]}: Linux {about['kernel']}, {about['cpu']}, {about['cores']} cores, "
        f"{about['memory'] / (1 << 30):.0f} GiB of memory, {huge}; load {max(d['machine']['load'] for d in documents)} "
        f"at most when a script began. Python {about['python']}, {packages}."
    )


def whole(results: Results) -> str:
    """Every tensor of the large model, by what is done with it."""
    return pivot(results, "whole_model", "look", "ms, p50 / p99", milliseconds)


def memory(results: Results, cast: bool) -> str:
    """Everybody's memory together, by the number of workers."""
    total = mebibytes("pss", "keeper")
    return pivot(results, "memory", "workers", "MiB by number of workers", total, cast=cast)


def memory_detail(results: Results) -> str:
    """Every figure for the largest number of workers."""
    workers = max(results.values("memory", "workers"), default=0)
    columns = {
        "Pss": mebibytes("pss"),
        "private": mebibytes("uss"),
        "Rss": mebibytes("rss"),
        "huge pages": mebibytes("hugetlb"),
        "page tables": mebibytes("page_tables"),
        "keeper": mebibytes("keeper"),
        "MemAvailable less": mebibytes("host"),
        "control group": mebibytes("group"),
    }
    return figures(results, "memory", columns, f"MiB, {workers} workers", workers=workers, cast=False)


def ready(results: Results, model: str) -> str:
    """The steps of each way, for one model."""
    steps = ("interpreter", "imports", "construct", "load", "bind", "forward")

    def step(name: str) -> Cell:
        def cell(row: Row) -> str:
            seconds = row["figures"]["steps"].get(name)
            return NONE if seconds is None else number(seconds * 1e3)

        return cell

    columns: dict[str, Cell] = {"all, p50 / p99": milliseconds} | {name: step(name) for name in steps}
    return figures(results, "ready", columns, "ms", model=model)


def readies(results: Results) -> str:
    """That for each model."""
    parts = []
    for model in results.values("ready", "model"):
        size = next((row["case"].get("mib") for row in results.rows("ready", model=model)), None)
        title = f"{model}, {size} MiB" if size else str(model)
        parts.append(f"**{title}**\n\n{ready(results, model)}")
    return "\n\n".join(parts) or "Not measured."


def staging(results: Results, cache: str) -> str:
    """Time and throughput of each way, of the checkpoint as its readers have it."""
    mib = max(results.values("staging", "mib", what="stage"), default=0)

    def throughput(row: Row) -> str:
        return number(mib * MIB / row["figures"]["seconds"]["p50"] / 1e9)

    columns: dict[str, Cell] = {"ms, p50 / p99": milliseconds, "GB/s": throughput}
    return figures(results, "staging", columns, f"{mib:,} MiB", what="stage", cache=cache)


def decrypting(results: Results) -> str:
    """What a key costs."""
    return figures(results, "staging", {"ms, p50 / p99": milliseconds}, what="decrypt")


def serve(results: Results, name: str) -> str:
    """One figure of the daemon's service by the number of clients."""
    cells: dict[str, Cell] = {
        "per_second": lambda row: number(row["figures"]["per_second"]),
        "latency": milliseconds,
        "daemon_cpu": lambda row: number(row["figures"].get("daemon_cpu", 0) * 1e6 or None),
    }
    return pivot(results, "serve", "clients", "by number of clients", cells[name])


def many_attaches(results: Results) -> str:
    """What the daemon and a worker hold as the attaches become many."""
    columns: dict[str, Cell] = {
        "daemon, KiB": lambda row: f"{row['figures']['daemon'] // 1024:,}",
        "worker, KiB": lambda row: f"{row['figures']['worker'] // 1024:,}",
        "descriptors of the daemon": lambda row: str(row["figures"]["descriptors"]),
        "µs of the daemon's processor time each": lambda row: number(row["figures"]["daemon_cpu"] * 1e6),
    }
    lines = [
        [f"{row['case']['attaches']:,}", *(cell(row) for cell in columns.values())]
        for row in results.rows("many_attaches")
    ]
    return table(["attaches", *columns], lines) if lines else "Not measured."


def network(results: Results) -> str:
    """What a network costs, per Parameter where there are many."""
    lines = []
    for row in results.rows("network"):
        case, found = row["case"], row.get("figures")
        what = {"forward": f"forward, batch {case.get('batch')}"}.get(case["what"], case["what"])
        count = case.get("parameters", 0) if case["what"] in ("construct", "bind", "first use") else 0
        each = number(found["seconds"]["p50"] / count * 1e6) if found and count else ""
        lines.append([f"{what}: {named(row['way'])}", milliseconds(row) if found else NONE, each])
    if not lines:
        return "Not measured."
    return table(["", "ms, p50 / p99", "µs a Parameter"], lines) + missing(results, "network")


def imports(results: Results) -> str:
    """What each import costs, and what mapcell brings with it."""
    columns: dict[str, Cell] = {
        "ms, p50 / p99": milliseconds,
        "modules": lambda row: str(row["figures"]["modules"]),
        "packages that can wait": lambda row: ", ".join(row["figures"]["also"])[:_LATER_SHOWN] or "none",
    }
    return figures(results, "import_time", columns)


def compute(results: Results) -> str:
    """A forward pass by the number of threads."""
    return pivot(results, "compute", "threads", "ms, p50 / p99, by number of threads", milliseconds)


def listing(results: Results) -> str:
    """Each format's header."""
    columns: dict[str, Cell] = {
        "ms": lambda row: number(row["figures"]["seconds"] * 1e3),
        "times json.loads": lambda row: number(row["figures"]["ratio"]),
        "peak MiB": mebibytes("peak"),
        "held MiB": mebibytes("held"),
    }
    tensors = next(iter(results.values("listing", "tensors")), 0)
    return figures(results, "listing", columns, f"{tensors:,} tensors")


def while_staging(results: Results) -> str:
    """Attaching while something is staged."""
    return pivot(results, "attach_while_staging", "daemon", "ms, p50 / p99", milliseconds)


def soak(results: Results) -> str:
    """What happened, and what was left behind."""
    for row in results.rows("soak"):
        found = row.get("figures", {})
        return (
            f"{found.get('operations', 0):,} operations in {found.get('seconds', 0):,.0f} s, "
            f"{sum(found.get('refused', {}).values()):,} refused as they may be; leaked: "
            f"{', '.join(found.get('leaked', {})) or 'nothing'}; faults: {len(found.get('faults', []))}; the daemon "
            f"grew by {number(found.get('daemon_grew_bytes', 0) / MIB)} MiB."
        )
    return "Not measured."


TABLES: Mapping[str, Callable[[Results], str]] = {
    "machine": machine,
    "attach-tensors": lambda r: pivot(
        r, "attach_latency", "tensors", "ms, p50 / p99, by number of tensors", milliseconds, mib=64
    ),
    "attach-size": lambda r: pivot(
        r, "attach_latency", "mib", "ms, p50 / p99, by size", milliseconds, " MiB", tensors=1000
    ),
    "attach-turns": lambda r: pivot(r, "attach_latency", "model", "ms, p50 / p99", milliseconds, what="in turns"),
    "whole": whole,
    "memory": lambda r: memory(r, False),
    "memory-cast": lambda r: memory(r, True),
    "memory-detail": memory_detail,
    "ready": readies,
    "staging-warm": lambda r: staging(r, "warm"),
    "staging-cold": lambda r: staging(r, "cold"),
    "decrypt": decrypting,
    "serve-rate": lambda r: serve(r, "per_second"),
    "serve-latency": lambda r: serve(r, "latency"),
    "serve-cpu": lambda r: serve(r, "daemon_cpu"),
    "many-attaches": many_attaches,
    "network": network,
    "imports": imports,
    "compute": compute,
    "listing": listing,
    "while-staging": while_staging,
    "guard": lambda r: pivot(r, "guard_delay", "bytes", "ms, p50 / p99, by size", milliseconds, " bytes"),
    "soak": soak,
}
__all__ = ["NONE", "TABLES", "named", "number", "ratio", "table"]
