"""What all peer scripts share: the columns of a version 2 line, the questions, and how answers are
printed. Every peer reads all 14 columns with their types and answers the same questions:

  parse     count and sum (of text: of lengths) of every column
  sources   the ten sources with most bytes
  pairs     (source, destination) pairs with at least 100 distinct destination ports: how many, and
            the sum of their ports
  report    all three from one reading

usage of a peer script: PEER.py QUESTION FILE THREADS
"""

import json
import sys

NUMBER, TEXT = "number", "text"
# Name, whether number or text, bits of the number, whether `-` may stand for it.
COLUMNS = [
    ("version", NUMBER, 8, False),
    ("account", NUMBER, 64, False),
    ("interface", TEXT, None, False),
    ("srcaddr", TEXT, None, True),
    ("dstaddr", TEXT, None, True),
    ("srcport", NUMBER, 16, True),
    ("dstport", NUMBER, 16, True),
    ("protocol", NUMBER, 8, True),
    ("packets", NUMBER, 64, True),
    ("bytes", NUMBER, 64, True),
    ("start_time", NUMBER, 64, False),
    ("end_time", NUMBER, 64, False),
    ("action", TEXT, None, True),
    ("status", TEXT, None, False),
]
NAMES = [name for name, *_ in COLUMNS]
PORTS_MIN = 100
TOP_ROWS = 10
QUESTIONS = ["parse", "sources", "pairs", "report"]


def sql(table, count_distinct="count(distinct dstport)"):
    """The statements of the questions in SQL, over a table or table function."""
    sums = [f"sum({name})" if kind is NUMBER else f"sum(length({name}))" for name, kind, *_ in COLUMNS]
    traffic = f"from {table} where srcaddr is not null"
    groups = (f"select {count_distinct} as ports {traffic} group by srcaddr, dstaddr "
              f"having {count_distinct} >= {PORTS_MIN}")
    return {
        "parse": f"select count(*), {', '.join(sums)} from {table}",
        "sources": f"select srcaddr, sum(bytes) as total {traffic} group by srcaddr "
                   f"order by total desc limit {TOP_ROWS}",
        "pairs": f"select count(*), sum(ports) from ({groups}) as pairs",
    }


def answer(question, rows):
    """The rows of a question as the driver compares them."""
    rows = [list(row) for row in rows]
    if question == "parse":
        count, *sums = map(int, rows[0])
        return {"records": count, "sums": dict(zip(NAMES, sums))}
    if question == "sources":
        return {"sources": [[address, int(total)] for address, total in rows]}
    count, ports = rows[0]
    return {"pairs": int(count), "pair_ports": int(ports or 0)}


def main(answer_one, answer_all):
    """Runs a peer: `answer_one(question, file, threads)` gives the rows of a question,
    `answer_all(file, threads)` those of parse, sources and pairs."""
    question, file, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if question == "report":
        parts = dict(zip(["parse", "sources", "pairs"], answer_all(file, threads), strict=True))
    else:
        parts = {question: answer_one(question, file, threads)}
    merged = {}
    for part, rows in parts.items():
        merged.update(answer(part, rows))
    print(json.dumps(merged))
