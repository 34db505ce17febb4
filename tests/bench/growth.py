"""Memory and time of stages that decide over all rows at once, at 10^6 prompts and 10^7 rows.

    python growth.py HALFTONE FOLDER [nearest] [compare] [evaluate] [bootstrap] [calibrate] [--rows ROWS]

HALFTONE is the binary, FOLDER a place with some 10 GB of room. Each case makes its tables there, runs one stage in a
process of its own, prints a row of a table and drops what it made. Needs numpy and pyarrow.
"""

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

AT_ONCE = 65_536
PART = 1 << 20
WIDTH = 384
TOPICS = 1000
# Figures that are printed.
TOLD = ["recall of nearest prompts", "comparisons", "win_rate", "gold labels", "log_loss/change"]


def required(name, kind):
    return pa.field(name, kind, nullable=False)


TEXT = pa.string()
MESSAGES = pa.list_(required("item", pa.struct([required("role", TEXT), required("content", TEXT), pa.field("extra", TEXT)])))


def texts(before, numbers, after=""):
    return pc.binary_join_element_wise(before, pa.array(numbers).cast(TEXT), after, "")


def ids(prefix, numbers):
    return pc.binary_join_element_wise(prefix, pc.utf8_lpad(pa.array(numbers).cast(TEXT), 8, "0"), "")


def same(text, count):
    return pa.repeat(pa.scalar(text), count)


def messages(role, contents):
    count = len(contents)
    parts = [same(role, count), contents, pa.nulls(count, TEXT)]
    item = pa.StructArray.from_arrays(parts, fields=list(MESSAGES.value_type))
    offsets = pa.array(np.arange(count + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, item, type=MESSAGES)


def table(folder, rows, columns):
    """Writes a table of `rows` rows in parts; `columns` gives those of some rows, by name."""
    folder.mkdir(parents=True)
    for part, first in enumerate(range(0, rows, PART)):
        writer = None
        for start in range(first, min(first + PART, rows), AT_ONCE):
            numbers = np.arange(start, min(start + AT_ONCE, first + PART, rows))
            made = columns(numbers)
            schema = pa.schema([required(name, column.type) for name, column in made.items()])
            writer = writer or pq.ParquetWriter(folder / f"part-{part:05}.parquet", schema, compression="zstd")
            writer.write_table(pa.table(list(made.values()), schema=schema))
        writer.close()


def responses(each):
    """So many responses to each prompt, about 600 bytes a row."""

    def columns(numbers):
        prompts, k = numbers // each, numbers % each
        answers = texts("answer ", numbers, " and so on it goes" * 10)
        return {
            "response_id": ids("r", numbers),
            "prompt_id": ids("p", prompts),
            "prompt": messages("user", texts("question ", prompts, " of some words" * 12)),
            "messages": messages("assistant", answers),
            "text": answers,
            "k": pa.array(k.astype(np.uint32)),
            "count": pa.array(np.ones(len(numbers), np.uint32)),
        }

    return columns


def embeddings(seed=4):
    """Vectors around topics, each as far from its topic as the topic is from 0."""
    random = np.random.default_rng(seed)
    topics = random.uniform(-1, 1, (TOPICS, WIDTH)).astype(np.float32)

    def columns(numbers):
        vectors = random.uniform(-1, 1, (len(numbers), WIDTH)).astype(np.float32) + topics[numbers * 7919 % TOPICS]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        offsets = pa.array(np.arange(len(numbers) + 1, dtype=np.int32) * WIDTH)
        kind = pa.list_(required("item", pa.float32()))
        lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()), type=kind)
        return {"prompt_id": ids("p", numbers), "embedding": lists}

    return columns


def verdicts(seed=5, gold=False):
    """A verdict for each two responses of a prompt. Gold ones prefer a side, the more often the surer the judge is."""
    random = np.random.default_rng(seed)

    def columns(numbers):
        odds = np.random.default_rng(numbers[0]).normal(0, 2, len(numbers))
        p = 1 / (1 + np.exp(-odds))
        if gold:
            p = (random.random(len(numbers)) < 1 / (1 + np.exp(-odds / 2))).astype(np.float64)
        prompt, asked = ids("p", numbers), messages("user", texts("question ", numbers, " of some words" * 12))
        return {
            "comparison_id": ids("c", numbers),
            "form": same("same", len(numbers)),
            "a_prompt_id": prompt,
            "a_response_id": ids("a", numbers),
            "a_prompt": asked,
            "a_response": messages("assistant", texts("first answer ", numbers, " and so on" * 6)),
            "b_prompt_id": prompt,
            "b_response_id": ids("b", numbers),
            "b_prompt": asked,
            "b_response": messages("assistant", texts("second answer ", numbers, " and so on" * 6)),
            "p_hat": pa.array(p),
        }

    return columns


def nearest(folder, rows):
    rows = rows or 10**6
    table(folder / "responses", rows, responses(1))
    table(folder / "embeddings", rows, embeddings())
    return rows, "kind: compare, from: ./responses, embeddings: ./embeddings, joint: {nearest: 4}"


def compare(folder, rows):
    rows = rows or 10**7
    table(folder / "responses", rows, responses(2))
    return rows, "kind: compare, from: ./responses, within: all"


def evaluate(folder, rows):
    rows = rows or 10**7
    table(folder / "verdicts", rows, verdicts())
    return rows, "kind: evaluate, verdicts: ./verdicts, policy_side: a, ties: half"


def bootstrap(folder, rows):
    rows, stage = evaluate(folder, rows)
    return rows, f"{stage}, bootstrap: 200"


def calibrate(folder, rows):
    rows = rows or 10**7
    table(folder / "verdicts", rows, verdicts())
    table(folder / "gold", rows // 50, verdicts(gold=True))
    return rows, "kind: calibrate, verdicts: ./verdicts, gold: ./gold, method: platt"


CASES = [nearest, compare, evaluate, bootstrap, calibrate]


def measured(program, folder):
    """Seconds, those of the processor, the greatest resident memory in MiB, and the figures of the stage."""
    began = time.monotonic()
    command = [program, "run", "pipeline.yaml", "--json"]
    with open(folder / "events", "wb") as events:
        child = subprocess.Popen(command, cwd=folder, stdout=events)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{program} ended with {child.returncode}")
    ended = [event for event in map(json.loads, open(folder / "events")) if event["event"] == "stage_finished"]
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, ended[-1]["figures"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("halftone", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--rows", type=int, help="in place of those of a case")
    args = parser.parse_args()
    names = [case.__name__ for case in CASES]
    if unknown := set(args.cases) - set(names):
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(names)}")
    print("| stage | rows | seconds | processor seconds | MiB | figures |\n| --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        if args.cases and case.__name__ not in args.cases:
            continue
        folder = args.folder / case.__name__
        shutil.rmtree(folder, ignore_errors=True)
        try:
            rows, stage = case(folder, args.rows)
            (folder / "pipeline.yaml").write_text(f"name: growth\nseed: 1\nstages:\n  grown: {{{stage}}}\n")
            seconds, processor, mib, figures = measured(args.halftone.resolve(), folder)
            said = "; ".join(f"{name} {figures[name]}" for name in TOLD if name in figures)
            print(f"| {case.__name__} | {rows} | {seconds:.0f} | {processor:.0f} | {mib:.0f} | {said} |", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
