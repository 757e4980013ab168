"""The tables of the results and of the model card, from the files in docs/results and docs/logs.

    python docs/tables.py

What stands between `<!-- table NAME -->` and `<!-- end -->` is written anew; a test holds it to the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGES = [
    DOCS / "research" / "results.md", DOCS / "research" / "image-to-image.md", DOCS / "research" / "hints.md",
    DOCS / "research" / "training.md", DOCS / "research" / "systems.md", DOCS / "research" / "gan.md",
    DOCS / "model-card.md", DOCS / "use" / "video.md",
]  # fmt: skip
SETS = {"photos64": 0, "photos256": 1, "photos128": 2, "samples": 3}
# How names of figures of image-to-image networks end.
FIGURES = ("fid", "_frechet", "_kid", "_distance", "_diversity", "_score", "_accuracy", "_ratio", "_error", "psnr",
           "ssim", "ciede2000")  # fmt: skip
RECIPE_2 = "2026-11-25T18:56"  # since then each photo has noise of its own: see the versions in history.md
# Stage 1 of weights that were in the package before, by how their SHA-256 begins.
EARLIER = {"e9f57d17": "v2", "bf625fb6": "v2", "9175d8a5": "v2",
           "429c953f": "v2h", "ed8d89b0": "v2h", "37df4a86": "v2h"}  # fmt: skip
# Runs of stage 1 from the same weights or from the mean of two: what more pictures bring.
LONGER = ("long", "regular", "depth", "depth_half", "cuts", "film", "film_again", "film_most", "strong")


def stored(name: str) -> Any:
    return json.loads((DOCS / "results" / f"{name}.json").read_text())


def rows_of(name: str) -> dict[str, dict[str, Any]]:
    """The rows of a file by their names."""
    return {row["name"]: row for row in stored(name)["rows"]}


def logged(run: str) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (DOCS / "logs" / f"{run}.jsonl").read_text().splitlines()]


def link_to_logs(*runs: str) -> str:
    return "Logs: " + ", ".join(f"[{run}.jsonl](../logs/{run}.jsonl)" for run in runs) + "."


def lines(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body))


def is_of_recipe_1(record: dict[str, Any]) -> bool:
    """Whether the file has figures of draws, which have a seed, made before recipe 2."""
    return "seed" in record and record["date"] < RECIPE_2


def earlier_weights(record: dict[str, Any]) -> str | None:
    """The version of the weights that a file is of, where these are no longer in the package."""
    stage1 = (record.get("weights") or {}).get("stage1") if isinstance(record.get("weights"), dict) else None
    return EARLIER.get((stage1["sha256"] if isinstance(stage1, dict) else stage1 or "")[:8])


def source(*names: str) -> str:
    """The files of a table, with their commits, and recipe 1 or earlier weights where these made them."""
    parts = []
    for name in names:
        record = stored(name)
        commit = record["git"]["commit"] if "git" in record else record["commit"]
        marks = ", **recipe 1**" if is_of_recipe_1(record) else ""
        marks += f", **weights {version}**" if (version := earlier_weights(record)) else ""
        short = commit[:7] + "+" * commit.endswith("+")  # of a tree that had changes
        parts.append(f"[{name}.json](../results/{name}.json), commit `{short}`{marks}")
    return "Stored: " + "; ".join(parts) + "."


def said_of_earlier(table: str, *names: str) -> str:
    """A table of several files, and below it which of them are of recipe 1 or of earlier weights, if any."""
    old = [f"`{name}.json`" for name in names if is_of_recipe_1(stored(name))]
    parts = [table, f"**Recipe 1** made the figures of {', '.join(old)}." if old else ""]
    for version in sorted(set(EARLIER.values())):
        old = [f"`{name}.json`" for name in names if earlier_weights(stored(name)) == version]
        parts.append(f"**Weights {version}** made those of {', '.join(old)}." if old else "")
    return "\n\n".join(part for part in parts if part)


def figure(row: dict[str, Any], key: str, digits: int = 2, interval: bool = False) -> str:
    """The figure, in parentheses divided by plain gray's, and its interval."""
    if row.get(key) is None:
        return "-"
    text = f"{row[key]:.{digits}f}"
    if row["name"] != "plain gray" and key in row.get("relative_to_gray", {}):
        text += f" ({row['relative_to_gray'][key]:.2f})"
    if interval and f"{key}_95" in row:
        text += " [{:.0f}, {:.0f}]".format(*row[f"{key}_95"])
    return text


def between(difference: dict[str, Any], digits: int) -> str:
    low, high = difference["interval_95"]
    return f"{difference['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def scores(rows: Sequence[dict[str, Any]], *more: tuple[str, str]) -> str:
    """The usual columns; more: heads and keys of others."""
    head = ["system", "photos", "squeezenet_kid [95 %]", "squeezenet_distance", "CIEDE2000", "colorfulness ratio"]
    keys = ("squeezenet_distance", "ciede2000", "colorfulness_ratio", *(key for _, key in more))
    return lines([*head, *(name for name, _ in more)], [
        [row["name"], str(row["photos"]), figure(row, "squeezenet_kid", 0, True), *(figure(row, key) for key in keys)]
        for row in rows
    ])  # fmt: skip


def summary() -> str:
    pipeline, steps, cpu = rows_of("pipeline"), rows_of("steps"), rows_of("cpu")
    default, preview, gray = (pipeline[name] for name in ("default output", "one-pass preview", "plain gray"))
    six = steps["spectral, 6 evaluations, tuned"]["squeezenet_kid_minus_reference"]
    ranks = next(row for row in stored("uncertainty")["rows"] if row["errors_of"] == "default output")
    body = [
        [what, key, *(f"{row[key]:.{digits}f}" for row in (default, preview, gray))]
        for what, key, digits in (
            ("distance of color statistics from photographs'", "squeezenet_kid", 0),
            ("distance from the original in features", "squeezenet_distance", 2),
            ("distance from the original in color", "ciede2000", 2),
            ("liveliness, beside the originals'", "colorfulness_ratio", 2),
        )
    ]
    body += [
        ["the best of eight pictures", "ciede2000, divided by plain gray's",
         f"{pipeline['best of 8, chosen']['relative_to_gray']['ciede2000']:.2f}", "", "1"],
        ["six distilled steps against 50", "squeezenet_kid, more", between(six, 2), "", ""],
        ["do maps rank errors?", "Spearman's correlation", f"{ranks['spearman']:.2f}", "", ""],
        ["luma in written files", "worst pixel, levels", f"{max(row['worst'] for row in stored('luma')['rows']):.2f}",
         "", ""],
        ["one megapixel on two CPU cores", "seconds", f"{cpu['1 megapixel, PIL to PIL']['seconds']:.2f}",
         f"{cpu['1 megapixel, preview']['seconds']:.2f}", ""],
    ]  # fmt: skip
    table = lines(["question", "figure", "default", "preview", "plain gray"], body)
    return said_of_earlier(table, "pipeline", "steps", "uncertainty")


def card() -> str:
    names = ("default output", "one-pass preview", "plain gray")
    body = [
        [f"`{key}`", *(f"{rows_of('pipeline')[name][key]:.{digits}f}" for name in names)]
        for key, digits in (("squeezenet_kid", 0), ("ciede2000", 2), ("colorfulness_ratio", 2))
    ]
    count = rows_of("pipeline")["default output"]["photos"]
    table = lines([f"photos256/validation, {count} photographs", "default", "preview", "plain gray"], body)
    return said_of_earlier(table, "pipeline")


def pipeline() -> str:
    rows = list(rows_of("pipeline").values())
    return scores(rows, ("diversity", "diversity"), ("luma error", "luma_error_max")) + "\n\n" + source("pipeline")


def stage1() -> str:
    return scores(list(rows_of("stage1").values()), ("diversity", "diversity")) + "\n\n" + source("stage1")


def steps() -> str:
    body = []
    for row in rows_of("steps").values():
        if "evaluations" in row:
            more = row.get("squeezenet_kid_minus_reference")
            body.append([
                f"{row['evaluations']:.0f}", "yes" if row["tuned"] else "no",
                f"{row['squeezenet_kid']:.1f}", between(more, 2) if more else "0", f"{row['ciede2000']:.2f}",
                f"{row['colorfulness_ratio']:.2f}", f"{row['seconds_per_draw']:.3f}",
            ])  # fmt: skip
    head = ["steps", "distilled", "squeezenet_kid", "more than with 50 [95 %]", "CIEDE2000", "colorfulness ratio",
            "seconds per draw"]  # fmt: skip
    return lines(head, body) + "\n\n" + source("steps")


def distilled() -> str:
    bands = [f"band {k + 1}" for k in range(len(stored("tuned")["rows"][0]["relative_error_by_band"]))]
    body = [
        [name, *(f"{value:.3f}" for value in (row["relative_error"], *row["relative_error_by_band"]))]
        for name, row in zip(("before", "after"), stored("tuned")["rows"], strict=True)
    ]
    return lines(["six steps", "relative error", *bands], body) + "\n\n" + source("tuned")


def candidate(name: str) -> str:
    body = [
        [row["name"], figure(row, "squeezenet_kid", 0), figure(row, "ciede2000"), figure(row, "colorfulness_ratio")]
        for row in rows_of(name).values() if "colorfulness_ratio" in row
    ]  # fmt: skip
    head = ["picture", "squeezenet_kid", "CIEDE2000", "colorfulness ratio"]
    return lines(head, body) + "\n\n" + source(name)


def guidance() -> str:
    """Draws led away from the network without its condition, and from earlier weights."""
    body = []
    for away, name in (("no condition", "guidance"), ("weights v2", "guidance_weaker")):
        for row in rows_of(name).values():
            if "colorfulness_ratio" in row and row["name"].startswith("guidance"):
                less = row.get("ciede2000_minus_no_guidance")
                body.append([away, row["name"], figure(row, "squeezenet_kid", 0), figure(row, "ciede2000"),
                             between(less, 2) if less else "", figure(row, "colorfulness_ratio")])  # fmt: skip
    head = ["away from", "picture", "squeezenet_kid", "CIEDE2000", "minus that of 1 [95 %]", "colorfulness ratio"]
    return lines(head, body) + "\n\n" + source("guidance", "guidance_weaker")


def stage3() -> str:
    rows = [row for row in rows_of("stage3_steps").values() if not re.search(r" in \d+ steps", row["name"])]
    return scores(rows, ("PSNR", "psnr")) + "\n\n" + source("stage3_steps")


def stage3_steps() -> str:
    body = []
    for color in ("true rgb64", "sampled rgb64"):
        for form in ("", ", sharpened"):
            for count in ("", " in 2 steps", " in 4 steps", " in 50 steps"):
                row = rows_of("stage3_steps")[f"stage 3{count}{form}, {color}"]
                body.append([re.sub(r"\D", "", count) or "1", color, "yes" if form else "no",
                             figure(row, "squeezenet_kid", 0), figure(row, "ciede2000")])  # fmt: skip
    head = ["steps", "input", "sharpened", "squeezenet_kid", "CIEDE2000"]
    return lines(head, body) + "\n\n" + source("stage3_steps")


def stage2() -> str:
    log = logged("stage2")
    last = [entry for entry in log if entry["event"] == "report"][-1]
    commit = [entry for entry in log if entry["event"] == "start"][-1]["commit"]
    body = [[name, f"{last[f'ciede2000_{key}_centers']:.2f}", f"{last[f'ciede2000_{key}']:.2f}"]
            for name, key in (("exact", "exact"), ("disturbed", "disturbed"))]  # fmt: skip
    where = f"Stored: [stage2.jsonl](../logs/stage2.jsonl), commit `{commit[:7]}`."
    return lines(["3-bit colors", "bin centers", "after stage 2"], body) + "\n\n" + where


def stage2_beside() -> str:
    """Stage 2 beside that of v2h, on the same photographs."""
    body = []
    for version, name in (("v2h", "stage2_v2h"), ("v3", "stage2")):
        for colors in ("true", "disturbed"):
            row = rows_of(name)[f"stage 2, {colors} coarse"]
            body.append([version, colors, figure(row, "squeezenet_kid", 0), figure(row, "ciede2000"),
                         figure(row, "colorfulness_ratio")])  # fmt: skip
    head = ["weights", "3-bit colors", "squeezenet_kid", "CIEDE2000", "colorfulness ratio"]
    return lines(head, body) + "\n\n" + source("stage2_v2h", "stage2")


def kinds() -> str:
    body = []
    for kind in ("coltran", "pic", "diffusion"):
        record, rows = stored(f"kind_{kind}"), rows_of(f"kind_{kind}")
        bits = next((f"{record[key]:.2f} per {key.split('_')[-1]}" for key in ("bits_per_symbol", "bits_per_dimension")
                     if record.get(key) is not None), "-")  # fmt: skip
        best = figure(rows["best of 8, after stage 2"], "ciede2000")
        names = {"one-pass preview": "preview", "one plain sample, after stage 2": "one sample"}
        for name, short in names.items():
            row, sampled = rows[name], short == "one sample"
            body.append([
                kind, short, figure(row, "squeezenet_kid", 0, True), figure(row, "squeezenet_distance"),
                figure(row, "ciede2000"), figure(row, "colorfulness_ratio"), best if sampled else "-",
                bits if sampled else "-", f"{record['seconds_per_candidate']:.2f}" if sampled else "-",
            ])  # fmt: skip
    head = ["kind", "picture", "squeezenet_kid [95 %]", "squeezenet_distance", "CIEDE2000", "colorfulness ratio",
            "best of 8, CIEDE2000", "bits", "seconds per draw"]  # fmt: skip
    return lines(head, body) + "\n\n" + source("kind_coltran", "kind_pic", "kind_diffusion")


def uncertainty() -> str:
    body = [
        [row["errors_of"],
         row["name"].replace("map of doubt", "uncertainty map").replace("spread of", "standard deviation of"),
         f"{row['spearman']:.2f}", f"{row['spearman_within']:.2f} ± {row['standard_error']:.2f}"]
        for row in stored("uncertainty")["rows"]
    ]  # fmt: skip
    return lines(["errors of", "map", "all pixels", "within photographs"], body) + "\n\n" + source("uncertainty")


def luma() -> str:
    rows = sorted(stored("luma")["rows"], key=lambda row: (SETS[row["set"]], row["format"], row["bits"]))
    body = [
        [row["set"], row["format"], str(row["bits"]), str(row["files"]), f"{row['worst']:.2f}",
         f"{row['worst_mean']:.2f}"] for row in rows
    ]  # fmt: skip
    head = ["set", "format", "bits", "files", "worst pixel", "worst picture, mean"]
    return lines(head, body) + "\n\n" + source("luma")


def cost() -> str:
    plain, half, compiled = (rows_of(name) for name in ("cpu", "cpu_bf16", "cpu_compile"))

    def seconds(rows: dict[str, dict[str, Any]], name: str) -> str:
        return f"{rows[name]['seconds']:.2f}" if name in rows else "-"

    body = []
    for name, row in plain.items():
        memory = f"{row['peak_gb']:.2f} GB" if row.get("peak_gb") else "-"
        body.append([name.replace("map of doubt", "uncertainty map"), seconds(plain, name), seconds(half, name),
                     seconds(compiled, name), memory])  # fmt: skip
    head = ["call", "seconds, float32", "bfloat16", "compiled", "peak memory, float32"]
    return lines(head, body) + "\n\n" + source("cpu", "cpu_bf16", "cpu_compile")


def cost_v2() -> str:
    record = stored("compare_v2")
    body = [[row["name"], f"{row['base_seconds']:.3f}", f"{row['new_seconds']:.3f}", f"{row['ratio']:.2f}"]
            for row in record["rows"]]  # fmt: skip
    where = f"Stored: [compare_v2.json](../results/compare_v2.json), commit `{record['new'][:7]}`."
    return lines(["call", "seconds, v2", "today", "ratio"], body) + "\n\n" + where


def cost_gpu() -> str:
    """Seconds on a CUDA device beside the processor of its machine."""
    rows = rows_of("gpu").values()
    keys = ("cpu_float32", "cuda_float32", "cuda_bfloat16")
    body = [[f"{row['name']}, {row['size'][0]}x{row['size'][1]}", *(f"{row[key]:.2f}" for key in keys),
             f"{row['peak_gb_float32']:.2f} GB"] for row in rows]  # fmt: skip
    head = ["call", "seconds, processor, float32", "device, float32", "device, bfloat16", "memory there, float32"]
    return lines(head, body) + "\n\n" + source("gpu")


def curve() -> str:
    """Pictures against held-out figures, of the run with hints and of the one that went on from it."""
    body = []
    for name, every in (("stage1_hints", 4), ("stage1_regular", 3)):
        reports = [entry for entry in logged(name) if entry["event"] == "report"]
        body += [
            [f"`{name}`", str(one["pictures"]), f"{one['loss']:.2f}", f"{one['ciede2000_preview']:.2f}",
             f"{one['ciede2000_sample']:.2f}", f"{one['colorfulness_sample']:.2f}"]
            for one in (*reports[every - 1 : -1 : every], reports[-1])
        ]  # fmt: skip
    head = ["run", "pictures", "loss", "preview", "sample", "colorfulness ratio of samples"]
    return lines(head, body) + "\n\n" + link_to_logs("stage1_hints", "stage1_regular")


def longer() -> str:
    """The last report of runs of stage 1, from their logs."""
    body = []
    for name in LONGER:
        log = logged(f"stage1_{name}")
        config = next(entry for entry in log if entry["event"] == "start")["config"]
        last = [entry for entry in log if entry["event"] == "report"][-1]
        network, data, options = config["network"], config["data"], config["training"]
        body.append([
            f"`{name}`", f"{last['pictures']}", f"{network.get('drop_path', 0):g}", f"{options['weight_decay']:g}",
            f"{network['film']:g}", f"{data.get('smallest_cut', 0.5):g}", str(options["seed"]), f"{last['loss']:.2f}",
            f"{last['ciede2000_preview']:.2f}", f"{last['ciede2000_sample']:.2f}",
        ])  # fmt: skip
    head = ["run", "pictures", "stochastic depth", "weight decay", "film", "smallest cut", "seed", "loss", "preview",
            "sample"]  # fmt: skip
    return lines(head, body) + "\n\n" + link_to_logs(*(f"stage1_{name}" for name in LONGER))


def training() -> str:
    body = [
        [f"`{row['name']}`", f"{row['pictures_per_second']:.1f}", f"{row['gflop_per_picture']:.1f}",
         f"{row['share']:.0%} of {row['matrix_gflops']:.0f} GFLOP/s"] for row in stored("training")["rows"]
    ]  # fmt: skip
    head = ["config", "pictures per second", "GFLOP per picture", "share of the matrix rate"]
    return lines(head, body) + "\n\n" + source("training")


def image_to_image() -> str:
    """A table for each stored evaluation, docs/results/image_to_image_*.json."""
    names = sorted(path.stem for path in (DOCS / "results").glob("image_to_image_*.json"))
    tables = []
    for name in names:
        record = stored(name)
        pictures, condition = record["pictures"], record["condition"]
        keys = list(dict.fromkeys(key for row in record["rows"] for key in row if key.endswith(FIGURES)))
        body = [[row["name"], str(row["photos"]), *(figure(row, key, interval=True) for key in keys)]
                for row in record["rows"]]  # fmt: skip
        samplers = {f"{sampler}, {record['steps'][one]} steps" for one, sampler in record["sampler"].items()}
        correctors = {f"{one['steps']} corrector steps of r = {one['snr']:g}" if one["steps"] else "no corrector"
                      for one in record.get("corrector", {}).values()}  # fmt: skip
        what = ", ".join([record["task"], *(f"{key} {value}" for key, value in condition.items()),
                          *sorted(samplers), *sorted(correctors), record.get("dtype", "float32")])  # fmt: skip
        tables.append(
            f"**{what}.** {record['photos']['name']}, {pictures['crop']}, {pictures['resize']}, "
            f"{pictures['side']}x{pictures['side']}, seed {record['seed']}; Fréchet distances to the next "
            f"{record['real']['count']} photographs.\n\n"
            + lines(["system", "photos", *keys], body) + "\n\n" + source(name)
        )  # fmt: skip
    return "\n\n".join(tables) or "No figures are stored yet: none of the configs below has been trained to its end."


def systems(name: str = "systems") -> str:
    """All systems beside each other; empty cells are of those with one answer, and of pictures that nobody colored."""
    if not (DOCS / "results" / f"{name}.json").exists():
        return "No figures are stored yet: not all of the configs have been trained to their end."
    rows, body = stored(name)["rows"], []
    best = {row["name"].partition(", best of ")[0]: row for row in rows if ", best of " in row["name"]}
    for row in (row for row in rows if ", best of " not in row["name"]):
        more, used = best.get(row["name"], {"name": ""}), "parameters" in row
        body.append([
            row["name"], figure(row, "squeezenet_kid", 0, True), figure(row, "squeezenet_distance"),
            figure(row, "ciede2000"), figure(row, "colorfulness_ratio"), figure(more, "ciede2000"),
            figure(more, "diversity"),
            f"{seen:,}".replace(",", " ") if (seen := row.get("pictures_seen")) else "",
            *((f"{row['parameters'] / 1e6:.1f} M", f"{row['seconds']:.2f}", f"{row['memory']:.2f}")
              if used else [""] * 3),
        ])  # fmt: skip
    head = ["system", "squeezenet_kid [95 %]", "squeezenet_distance", "CIEDE2000", "colorfulness ratio",
            "best of 4, CIEDE2000", "diversity", "pictures seen", "parameters", "seconds", "GB"]  # fmt: skip
    return lines(head, body) + "\n\n" + source(name)


def critic() -> str:
    body = []
    for row in stored("critic")["rows"][1:]:
        apart = [between(row[f"{key}_minus_medoid"], digits) if f"{key}_minus_medoid" in row else ""
                 for key, digits in (("ciede2000", 2), ("squeezenet_kid", 0))]  # fmt: skip
        body.append([row["name"], figure(row, "ciede2000"), apart[0], figure(row, "squeezenet_kid", 0), apart[1],
                     figure(row, "squeezenet_distance"), figure(row, "colorfulness_ratio")])  # fmt: skip
    head = ["picture", "CIEDE2000", "minus the medoid's [95 %]", "squeezenet_kid", "minus the medoid's [95 %]",
            "squeezenet_distance", "colorfulness ratio"]  # fmt: skip
    return lines(head, body) + "\n\n" + source("critic")


def places() -> str:
    rows = stored("hint_places")["rows"]
    by_places = {(row["name"], row["hints"]): row for row in rows}
    counts = sorted({row["hints"] for row in rows} - {0})
    names = {"suggested": "suggested places", "random": "random places", "uncertain": "most uncertain pixels"}
    body = [["no hints", *[f"{by_places['none', 0]['ciede2000']:.2f}"] * len(counts)]]
    for name, words in names.items():
        cells = [by_places[name, count] for count in counts]
        body.append([words, *(f"{row['ciede2000']:.2f}" for row in cells)])
        if "minus_random" in cells[0]:
            body.append(["minus random [95 %]", *(between(row["minus_random"], 2) for row in cells)])
    plural = [f"{count} hint{'s' * (count > 1)}" for count in counts]
    return lines(["CIEDE2000", *plural], body) + "\n\n" + source("hint_places")


def reference() -> str:
    tables = {name: {(row["reference"], row["name"]): row for row in stored(name)["rows"]}
              for name in ("reference_choice", "reference")}  # fmt: skip
    body = []
    for kind, name in tables["reference"]:
        rows = [table[kind, name] for table in tables.values()]
        apart = [between(row["minus_no_reference"], 2) if name != "no reference" else "" for row in rows]
        pairs = [(f"{row['ciede2000']:.2f}", less) for row, less in zip(rows, apart, strict=True)]
        body.append([kind, name, *pairs[0], *pairs[1]])
    head = ["reference", "system", "held out", "minus none [95 %]", "validation", "minus none [95 %]"]
    return lines(head, body) + "\n\n" + source("reference_choice", "reference")


def video() -> str:
    record = stored("video")
    body = [
        [f"{row['clip']}, {row['photo']}", f"{row['flicker']:.2f}", f"{row['flicker_of_originals']:.2f}",
         f"{row['flicker_of_independent_frames']:.2f}", f"{row['flicker_bound']:.2f}",
         f"{row['drift']:.2f} of {row['drift_bound']:g}",
         f"{row['colorfulness']:.0f} ({row['colorfulness_by_itself']:.0f})"] for row in record["clips"]
    ]  # fmt: skip
    head = ["clip", "flicker", "of the photograph's own colors", "of frames one by one", "at most", "drift, at most",
            "colorfulness"]  # fmt: skip
    speed, threads = record["speed"], record["threads"]
    said = (f"{speed['size']}, {speed['frames']} frames, {threads} threads of {record['processor']}: "
            f"{speed['frames_per_second']:.1f} frames a second, at least {speed['bound']:g} are wanted.")
    return "\n\n".join([lines(head, body), said, source("video")])


def hints() -> str:
    """By number of hints, CIEDE2000 beside the classic's, at 64x64 and 256x256; and obedience."""
    record = stored("hints")["rows"]
    tables = []
    for side in (64, 256):
        rows = {(row["hints"], row["name"]): row for row in record if row["side"] == side}
        head = [f"hints, at {side}x{side}", "classic"]
        for name in ("preview", "default output"):
            head += [name, "minus that of fewer [95 %]", "of the classic's [95 %]", "minus v2h's [95 %]"]
        body = []
        for count in dict.fromkeys(count for count, _ in rows):
            body.append([str(count), f"{rows[count, 'classic']['ciede2000']:.2f}"])
            for row in (rows[count, name] for name in ("preview", "default output")):
                less = between(row["minus_fewer"], 2) if "minus_fewer" in row else ""
                body[-1] += [f"{row['ciede2000']:.2f}", less, between(row["share_of_first"], 3),
                             between(row["minus_the_others"], 2)]  # fmt: skip
        tables.append(lines(head, body))
    obeyed = {(row["hints"], row["name"]): f"{row['obedience']:.2f}" for row in record
              if row["side"] == 256 and "obedience" in row and row["name"] != "classic"
              and not row["name"].endswith(" of the others")}  # fmt: skip
    names = list(dict.fromkeys(name for _, name in obeyed))
    counts = dict.fromkeys(count for count, _ in obeyed)
    body = [[str(count), *(obeyed.get((count, name), "") for name in names)] for count in counts]
    tables.append(lines(["hints, obedience at 256x256", *names], body))
    return "\n\n".join([*tables, source("hints")])


def hint_regions() -> str:
    body = [
        [row["name"], f"{row['first']:.2f}", f"{row['first_moved']:.0%}", f"{row['second']:.2f}",
         f"{row['second_unmoved']:.0%}", f"{row['both']:.0%}"] for row in stored("hint_regions")["rows"]
    ]  # fmt: skip
    head = ["picture", "first moved by", "by at least half", "second by", "by at most a tenth", "both"]
    return lines(head, body) + "\n\n" + source("hint_regions")


def mix(name: str, of: str, other: str) -> str:
    """By share of the weights, the preview's CIEDE2000 on held-out photographs, divided by plain gray's."""
    files = [f"{name}_photos128", f"{name}_photos256", f"{name}_photos64"]
    rows = [{row["share"]: row for row in stored(name)["rows"]} for name in files]
    head = [f"share of {of}"]
    for name in files:
        photos = stored(name)["photos"]
        head += [f"{photos['name']}, {photos['count']}, of gray's", f"minus {other} [95 %]"]
    body = []
    for share in rows[0]:
        body.append([f"{share:g}"])
        for one in (of_set[share] for of_set in rows):
            body[-1] += [f"{one['share_of_gray']['value']:.3f}", between(one["minus_none"], 2) if share else ""]
    return lines(head, body) + "\n\n" + source(*files)


def averages() -> str:
    """The mean of power-function averages beside that of half-life averages, on held-out photographs."""
    record = stored("averages")
    row = next(row for row in record["rows"] if row["share"] == 1)
    base = next(row for row in record["rows"] if row["share"] == 0)
    body = [[record["photos"]["name"], str(record["photos"]["count"]), f"{base['ciede2000']:.3f}",
             f"{row['ciede2000']:.3f}", between(row["minus_none"], 4)]]  # fmt: skip
    head = ["photographs", "number", "half-life, preview", "relative width", "minus half-life [95 %]"]
    return lines(head, body) + "\n\n" + source("averages")


def aims() -> str:
    """What was to be reached on validation photographs, divided by plain gray's, and what was."""
    preview, default, best = "preview, at 64x64", "default output", "best of 8, chosen"
    wanted = (
        ("weights_photos128", preview, "ciede2000", "at most 0.80"),
        ("weights_photos128", default, "ciede2000", "at most 1.03"),
        ("weights_photos128", default, "squeezenet_kid", "at most 0.12"),
        ("weights_photos128", default, "squeezenet_distance", "at most 0.90"),
        ("weights_photos128", default, "colorfulness_ratio", "0.90 to 1.05"),
        ("best_photos128", best, "ciede2000", "at most 0.76"),
        ("weights_photos256", preview, "ciede2000", "at most 0.85"),
        ("weights_photos256", default, "ciede2000", "at most 1.03"),
    )
    body = []
    for name, picture, key, aim in wanted:
        row = rows_of(name)[picture]
        reached = row[key] if key == "colorfulness_ratio" else row["relative_to_gray"][key]
        body.append([stored(name)["photos"]["name"], str(row["photos"]), picture, key, aim, f"{reached:.3f}"])
    head = ["photographs", "number", "picture", "figure", "aim", "reached"]
    return lines(head, body) + "\n\n" + source("weights_photos128", "weights_photos256", "best_photos128")


def mirrored() -> str:
    body, files = [], ("mirrored_photos128", "mirrored_photos256")
    for name in files:
        one, both = rows_of(name)["one-pass preview"], rows_of(name)["mean of both previews"]
        body.append([stored(name)["photos"]["name"], str(one["photos"]), f"{one['ciede2000']:.2f}",
                     f"{both['ciede2000']:.2f}", between(both["ciede2000_minus_preview"], 3)])  # fmt: skip
    head = ["photographs", "number", "preview, CIEDE2000", "mean of both", "minus the preview's [95 %]"]
    return lines(head, body) + "\n\n" + source(*files)


def blind() -> str:
    row = stored("blind_pairs")["rows"][0]
    low, high = row["interval_95"]
    body = [[str(row["photos"]), str(row["preferred"]), str(row["others_preferred"]), str(row["same"]),
             f"{row['share']:.2f} [{low:.2f}, {high:.2f}]"]]  # fmt: skip
    head = ["photographs", "v3 preferred", "v2 preferred", "the same", "share of v3, a tie as half [95 %]"]
    return lines(head, body) + "\n\n" + source("blind_pairs")


def weights() -> str:
    body = []
    for name in ("weights_photos128", "weights_photos256"):
        for row in (row for row in stored(name)["rows"] if "ratio" in row):
            kid = row.get("squeezenet_kid_minus_the_others")
            body.append([stored(name)["photos"]["name"], str(row["photos"]), row["name"], f"{row['ciede2000']:.2f}",
                         f"{row['relative_to_gray']['ciede2000']:.3f}", between(row["ratio"], 3),
                         between(kid, 1) if kid else "-"])  # fmt: skip
    head = ["photographs", "number", "picture", "CIEDE2000", "of gray's", "of the earlier weights' [95 %]",
            "squeezenet_kid, minus theirs [95 %]"]  # fmt: skip
    return lines(head, body) + "\n\n" + source("weights_photos128", "weights_photos256")


TABLES: dict[str, Callable[[], str]] = {
    "summary": summary, "card": card, "pipeline": pipeline, "stage1": stage1, "steps": steps, "distilled": distilled,
    "candidate_photos128": partial(candidate, "candidate_photos128"),
    "candidate_photos256": partial(candidate, "candidate_photos256"), "guidance": guidance, "stage2": stage2,
    "stage2_beside": stage2_beside,
    "stage3": stage3, "stage3_steps": stage3_steps, "kinds": kinds, "uncertainty": uncertainty, "luma": luma,
    "cost": cost, "cost_gpu": cost_gpu, "cost_v2": cost_v2,
    "curve": curve, "longer": longer, "training": training, "places": places,
    "reference": reference, "image_to_image": image_to_image, "systems": systems,
    "systems_128": partial(systems, "systems_128"), "critic": critic, "video": video, "hints": hints,
    "hint_regions": hint_regions, "weights": weights, "aims": aims, "blind": blind, "mirrored": mirrored,
    "mix": partial(mix, "mix", "the branch", "v2"),
    "mix_regular": partial(mix, "mix_regular", "`stage1_regular`", "v2h"), "averages": averages,
    "mix_seven": partial(mix, "mix_seven", "the mean of seven", "v3"),
}  # fmt: skip


def renewed(text: str) -> str:
    """A page with its tables written anew."""
    return re.sub(
        r"(<!-- table (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}", text, flags=re.DOTALL,
    )  # fmt: skip


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renewed(page.read_text()))
