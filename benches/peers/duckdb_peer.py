"""DuckDB: `read_csv` with given types; the report from a temporary table."""

import duckdb

import flow_log

TYPES = {8: "UTINYINT", 16: "USMALLINT", 64: "UBIGINT", None: "VARCHAR"}


def connect(threads):
    connection = duckdb.connect()
    connection.execute(f"set threads = {threads}")
    connection.execute("set preserve_insertion_order = false")
    return connection


def reading(file):
    columns = ", ".join(f"'{name}': '{TYPES[bits]}'" for name, _, bits, _ in flow_log.COLUMNS)
    return (f"read_csv('{file}', delim = ' ', header = false, nullstr = '-', quote = '', escape = '', "
            f"auto_detect = false, columns = {{{columns}}})")


def answer_one(question, file, threads):
    return connect(threads).execute(flow_log.sql(reading(file))[question]).fetchall()


def answer_all(file, threads):
    connection = connect(threads)
    connection.execute(f"create temp table records as select * from {reading(file)}")
    return [connection.execute(statement).fetchall() for statement in flow_log.sql("records").values()]


flow_log.main(answer_one, answer_all)
