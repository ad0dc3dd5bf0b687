//! How fast Vector's parser reads VPC Flow Logs: a compiled VRL program in a loop over lines in memory,
//! without Vector's source, channels and sink.
//!
//! ```text
//! flowgauge-bench-vrl FILE RECORDS PASSES
//! ```
//!
//! Reads the first RECORDS lines of FILE (default format, no header), runs the program PASSES times over
//! all of them on one thread, and prints one JSON object: nanoseconds a record and GB/s, best and
//! median pass. Compares the sum of `bytes` that the program finds with that of plain code.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use vrl::compiler::{Program, TargetValue, TimeZone, compile, runtime::Runtime};
use vrl::value::{ObjectMap, Secrets, Value};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a Vector user writes into a `remap` transform, less the assignment to the event.
const SOURCE: &str = "parse_aws_vpc_flow_log!(.message)";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, records, passes] = arguments.as_slice() else {
        return Err("usage: flowgauge-bench-vrl FILE RECORDS PASSES".into());
    };
    let lines = first_lines(file, records.parse()?)?;
    let passes: usize = passes.parse()?;
    if lines.is_empty() || passes == 0 {
        return Err("there is nothing to measure".into());
    }
    let functions = [Box::new(vrl::stdlib::ParseAwsVpcFlowLog) as _];
    let program = compile(SOURCE, &functions).map_err(|faults| format!("{faults:?}"))?.program;
    let mut events: Vec<TargetValue> = lines.iter().map(|line| event(line)).collect();

    let found: i64 = events.iter_mut().map(|event| bytes_of(&run(&program, event))).sum();
    let expected: i64 =
        lines.iter().filter_map(|line| line.split(' ').nth(9)?.parse::<i64>().ok()).sum();
    if found != expected {
        return Err(format!("the program finds {found} bytes, plain code {expected}").into());
    }

    let mut times: Vec<Duration> = (0..passes).map(|_| pass(&program, &mut events)).collect();
    times.sort_unstable();
    let text_bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    let ns_a_record = |time: Duration| time.as_secs_f64() * 1e9 / lines.len() as f64;
    let gb_a_second = |time: Duration| text_bytes as f64 / time.as_secs_f64() / 1e9;
    let (best, median) = (times[0], times[passes / 2]);
    println!(
        r#"{{"records":{},"bytes":{found},"ns_best":{:.1},"ns_median":{:.1},"gb_per_second_best":{:.4},"gb_per_second_median":{:.4}}}"#,
        lines.len(),
        ns_a_record(best),
        ns_a_record(median),
        gb_a_second(best),
        gb_a_second(median),
    );
    Ok(())
}

fn first_lines(file: &str, count: usize) -> std::io::Result<Vec<String>> {
    BufReader::new(std::fs::File::open(file)?).lines().take(count).collect()
}

/// An event as Vector's sources make them: the line in `message`.
fn event(line: &str) -> TargetValue {
    let fields = ObjectMap::from([("message".into(), Value::from(line))]);
    TargetValue {
        value: Value::Object(fields),
        metadata: Value::Object(ObjectMap::new()),
        secrets: Secrets::default(),
    }
}

fn run(program: &Program, event: &mut TargetValue) -> Value {
    let resolved = Runtime::default().resolve(event, program, &TimeZone::default());
    resolved.expect("every line is a record")
}

fn pass(program: &Program, events: &mut [TargetValue]) -> Duration {
    let mut runtime = Runtime::default();
    let timezone = TimeZone::default();
    let began = Instant::now();
    for event in events {
        let record = runtime.resolve(event, program, &timezone);
        black_box(record.expect("every line is a record"));
    }
    began.elapsed()
}

/// The record's `bytes`, 0 for a record without traffic.
fn bytes_of(record: &Value) -> i64 {
    record.as_object().and_then(|fields| fields.get("bytes")?.as_integer()).unwrap_or(0)
}
