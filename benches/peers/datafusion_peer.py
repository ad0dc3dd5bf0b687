"""DataFusion: an external table of text whose columns a view turns into types, because its CSV reader
takes no `-` for an absent number; the report from the cached view."""

import datafusion

import flow_log

TYPES = {8: "TINYINT UNSIGNED", 16: "SMALLINT UNSIGNED", 64: "BIGINT UNSIGNED", None: "VARCHAR"}


def typed(name, bits, may_be_absent):
    value = f"nullif({name}, '-')" if may_be_absent else name
    return f"cast({value} as {TYPES[bits]}) as {name}" if bits else f"{value} as {name}"


def connect(file, threads):
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(threads))
    texts = ", ".join(f"{name} VARCHAR" for name in flow_log.NAMES)
    context.sql(f"create external table lines ({texts}) stored as csv location '{file}' "
                "options ('format.delimiter' ' ', 'format.has_header' 'false')").collect()
    columns = ", ".join(typed(name, bits, absent) for name, _, bits, absent in flow_log.COLUMNS)
    context.sql(f"create view records as select {columns} from lines").collect()
    return context


def rows(context, statement):
    batches = context.sql(statement).collect()
    return [row.values() for batch in batches for row in batch.to_pylist()]


def answer_one(question, file, threads):
    return rows(connect(file, threads), flow_log.sql("records")[question])


def answer_all(file, threads):
    context = connect(file, threads)
    context.register_view("cached", context.sql("select * from records").cache())
    return [rows(context, statement) for statement in flow_log.sql("cached").values()]


flow_log.main(answer_one, answer_all)
