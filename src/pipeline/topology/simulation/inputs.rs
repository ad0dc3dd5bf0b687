//! Made-up inputs: mostly good lines in two layouts with planted scans, some bad, some late.

use std::sync::Arc;

use super::random::Random;

/// Unix second at which inputs begin.
pub(super) const START: i64 = 1_767_225_600;

/// How far a record may be behind the newest of its input.
pub(super) const LATENESS_SECONDS: i64 = 60;

/// AWS's default order.
pub(super) const USUAL: &str = "version account-id interface-id srcaddr dstaddr srcport dstport \
                                protocol packets bytes start end action log-status";

/// The same fields in another order.
pub(super) const OTHER: &str = "version srcaddr dstaddr dstport srcport protocol action bytes \
                                packets interface-id account-id end start log-status";

/// A file, or a shard.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) name: Arc<str>,
    pub(super) lines: Vec<String>,
    /// Number of lines before the end of each chunk; the last is all.
    pub(super) chunk_ends: Vec<usize>,
}

/// One record's values.
struct Flow {
    src: String,
    dst: String,
    dst_port: i64,
    action: &'static str,
    end: i64,
}

/// One to four inputs.
pub(super) fn inputs(random: &mut Random) -> Vec<Input> {
    let count = 1 + random.below(4);
    let scanner = format!("203.0.113.{}", 1 + random.below(200));
    (0..count).map(|index| input(index, &scanner, random)).collect()
}

fn input(index: usize, scanner: &str, random: &mut Random) -> Input {
    let line_count = 40 + random.below(400);
    let scans_from = random.below(line_count);
    let scan_length = random.below(60);
    let pace = random.between(0, 3);
    let mut layout = USUAL;
    let mut now = START + random.between(0, 100);
    let mut lines = Vec::new();
    for number in 0..line_count {
        now += random.between(0, pace);
        if random.one_in(60) {
            layout = if random.one_in(2) { USUAL } else { OTHER };
            lines.push(layout.to_owned());
        }
        let is_scan = (scans_from..scans_from + scan_length).contains(&number);
        let behind = match random.below(40) {
            0 => 400,
            1..=20 => 0,
            _ => random.between(0, LATENESS_SECONDS - 1),
        };
        let flow = if is_scan {
            let port = 1000 + i64::try_from(number - scans_from).expect("small");
            let (src, dst) = (scanner.to_owned(), "10.0.0.5".to_owned());
            Flow { src, dst, dst_port: port, action: "REJECT", end: now - behind }
        } else {
            Flow {
                src: format!("198.51.100.{}", random.below(30)),
                dst: format!("10.0.0.{}", 1 + random.below(5)),
                dst_port: [22, 80, 443][random.below(3)],
                action: if random.one_in(4) { "REJECT" } else { "ACCEPT" },
                end: now - behind,
            }
        };
        lines.push(line(layout, &flow, random));
    }
    let mut chunk_ends = Vec::new();
    let mut end = 0;
    while end < lines.len() {
        end = (end + 1 + random.below(50)).min(lines.len());
        chunk_ends.push(end);
    }
    Input { name: format!("input-{index}").into(), lines, chunk_ends }
}

fn line(layout: &str, flow: &Flow, random: &mut Random) -> String {
    if random.one_in(50) {
        return ["this is no record", "2 - -", "2 a b c d e f g h i j k l m"][random.below(3)]
            .to_owned();
    }
    let has_data = !random.one_in(80);
    let packets = 1 + random.below(20);
    let value = |field: &str| match field {
        "version" => "2".to_owned(),
        "account-id" => "123456789012".to_owned(),
        "interface-id" => "eni-0123".to_owned(),
        "start" => (flow.end - 10).to_string(),
        "end" => flow.end.to_string(),
        "log-status" => if has_data { "OK" } else { "NODATA" }.to_owned(),
        _ if !has_data => "-".to_owned(),
        "srcaddr" => flow.src.clone(),
        "dstaddr" => flow.dst.clone(),
        "srcport" => "50000".to_owned(),
        "dstport" => flow.dst_port.to_string(),
        "protocol" => "6".to_owned(),
        "packets" => packets.to_string(),
        "bytes" => (packets * 44).to_string(),
        "action" => flow.action.to_owned(),
        other => unreachable!("no field `{other}`"),
    };
    layout.split(' ').map(value).collect::<Vec<_>>().join(" ")
}
