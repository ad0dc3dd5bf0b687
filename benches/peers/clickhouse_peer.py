"""ClickHouse in process (chdb): the `file` table function; the report from a table in memory. Its CSV
format refuses a blank as delimiter, so lines are read as CustomSeparated."""

import json

import chdb
from chdb import session

import flow_log

TYPES = {8: "UInt8", 16: "UInt16", 64: "UInt64", None: "String"}


def structure():
    def typed(name, bits, may_be_absent):
        return f"{name} Nullable({TYPES[bits]})" if may_be_absent else f"{name} {TYPES[bits]}"
    return ", ".join(typed(name, bits, absent) for name, _, bits, absent in flow_log.COLUMNS)


def reading(file):
    return f"file('{file}', 'CustomSeparated', '{structure()}')"


def settings(threads):
    return (f" settings max_threads = {threads}, format_custom_field_delimiter = ' ', "
            "format_custom_escaping_rule = 'CSV', format_csv_null_representation = '-', "
            "format_custom_row_after_delimiter = '\\n'")


def rows(result):
    return [json.loads(line) for line in str(result).splitlines()]


def statements(table):
    return flow_log.sql(table, "uniqExact(dstport)")


def answer_one(question, file, threads):
    statement = statements(reading(file))[question]
    return rows(chdb.query(statement + settings(threads), "JSONCompactEachRow"))


def answer_all(file, threads):
    database = session.Session()
    database.query("create database peers engine = Atomic")
    database.query(f"create table peers.records ({structure()}) engine = Memory")
    database.query(f"insert into peers.records select * from {reading(file)}" + settings(threads))
    limit = f" settings max_threads = {threads}"
    answers = [rows(database.query(statement + limit, "JSONCompactEachRow"))
               for statement in statements("peers.records").values()]
    database.close()
    return answers


flow_log.main(answer_one, answer_all)
