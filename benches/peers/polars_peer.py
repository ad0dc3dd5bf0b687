"""Polars: a lazy scan with given types on the streaming engine; the report as three queries of which
Polars reads the common scan once."""

import os
import sys

# Read when the module is loaded.
os.environ["POLARS_MAX_THREADS"] = sys.argv[3]

import polars as pl

import flow_log

TYPES = {8: pl.UInt8, 16: pl.UInt16, 64: pl.UInt64, None: pl.String}


def sum_of(name, kind):
    column = pl.col(name)
    values = column if kind is flow_log.NUMBER else column.str.len_bytes()
    return values.cast(pl.UInt64).sum().alias(name)


def queries(file):
    schema = {name: TYPES[bits] for name, _, bits, _ in flow_log.COLUMNS}
    scan = pl.scan_csv(file, separator=" ", has_header=False, schema=schema, null_values="-",
                       quote_char=None)
    traffic = scan.filter(pl.col("srcaddr").is_not_null())
    sums = [sum_of(name, kind) for name, kind, *_ in flow_log.COLUMNS]
    ports = pl.col("dstport").n_unique().alias("ports")
    return {
        "parse": scan.select(pl.len().alias("records"), *sums),
        "sources": traffic.group_by("srcaddr").agg(pl.col("bytes").sum())
                          .top_k(flow_log.TOP_ROWS, by="bytes"),
        "pairs": traffic.group_by("srcaddr", "dstaddr").agg(ports)
                        .filter(pl.col("ports") >= flow_log.PORTS_MIN)
                        .select(pl.len().alias("pairs"), pl.col("ports").cast(pl.UInt64).sum()),
    }


def answer_one(question, file, _threads):
    return queries(file)[question].collect(engine="streaming").rows()


def answer_all(file, _threads):
    frames = pl.collect_all(list(queries(file).values()), engine="streaming")
    return [frame.rows() for frame in frames]


flow_log.main(answer_one, answer_all)
