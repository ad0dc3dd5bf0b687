//! What a sample's lines say: pure counting over parsed records.

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::needs::presets;
use super::sample::{InputSample, Lines, Sample};
use crate::framing::LayoutScope;
use crate::record::{
    ColumnSet, FaultSample, Faults, FieldId, FlowBatch, FormatChoice, Layout, LogStatus, Parser,
    Slot,
};
use crate::simd::Isa;

/// Longest interval in logs that aggregate over 60 s; they go over it by a second or two.
const SHORT_INTERVAL_SECONDS: i64 = 75;
/// An interval longer than this is none of AWS's.
const INTERVAL_SECONDS_MAX: i64 = 900;
/// Lines that are kept in mind to find those that come twice.
const LINES_KNOWN_MAX: usize = 2_000_000;
/// Interfaces that are counted.
const INTERFACES_MAX: usize = 1_000_000;
/// Malformed lines that are shown.
const SAMPLES_MAX: usize = 3;
/// Lines by which a format is guessed.
const GUESS_LINES_MAX: usize = 1_000;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) ok: u64,
    pub(super) nodata: u64,
    pub(super) skipdata: u64,
    pub(super) faults: Faults,
    pub(super) headers: u64,
    /// The layouts of the records, with how many had it; the most frequent first.
    pub(super) layouts: Vec<(Arc<Layout>, u64)>,
    pub(super) first_end: Option<i64>,
    pub(super) newest_end: Option<i64>,
    /// Records by how long their interval is: like those of 60 s logs, longer, and none of AWS's.
    pub(super) intervals: [u64; 3],
    pub(super) interval_seconds_max: i64,
    /// Records that end before one that came earlier in their input, and by how much at most.
    pub(super) out_of_order: u64,
    pub(super) disorder_seconds_max: i64,
    /// Lines that came before, byte for byte.
    pub(super) repeated: u64,
    pub(super) interface_count: u64,
    pub(super) line_bytes: u64,
    pub(super) samples: Vec<FaultSample>,
}

impl Survey {
    /// Surveys a sample; inputs whose lines bring no layout have that of `format`, if it says one.
    pub(super) fn of(sample: &Sample, format: Option<&FormatChoice>) -> Self {
        let mut surveyor = Surveyor::new();
        for input in &sample.inputs {
            surveyor.see_input(input, format);
        }
        for fault in &sample.faults {
            surveyor.survey.faults.record(fault.kind, || FaultSample {
                kind: fault.kind,
                line: fault.input_line,
                column: 0,
                reason: format!("{}: {}", fault.kind, fault.detail),
                text: fault.excerpt.to_vec(),
                length_bytes: fault.length_bytes,
            });
        }
        surveyor.finish()
    }

    /// Records that could be read.
    pub(super) const fn parsed(&self) -> u64 {
        self.ok + self.nodata + self.skipdata
    }

    /// Records of any kind.
    pub(super) fn total(&self) -> u64 {
        self.parsed() + self.faults.total()
    }

    /// The layout of most records.
    pub(super) fn layout(&self) -> Option<&Arc<Layout>> {
        self.layouts.first().map(|(layout, _)| layout)
    }

    /// The aggregation interval that the records show, 60 or 600 s.
    pub(super) fn interval_seconds(&self) -> Option<u32> {
        match self.intervals {
            [0, 0, _] => None,
            [_, 0, _] => Some(60),
            _ => Some(600),
        }
    }
}

struct Surveyor {
    survey: Survey,
    parser: Parser,
    hasher: FixedState,
    lines: HashSet<u64>,
    interfaces: HashSet<u64>,
}

impl Surveyor {
    fn new() -> Self {
        let wanted: ColumnSet =
            [FieldId::Start, FieldId::End, FieldId::LogStatus, FieldId::InterfaceId]
                .into_iter()
                .collect();
        Self {
            survey: Survey::default(),
            parser: Parser::new(Isa::detect(), wanted),
            hasher: FixedState::with_seed(0),
            lines: HashSet::new(),
            interfaces: HashSet::new(),
        }
    }

    fn see_input(&mut self, input: &InputSample, format: Option<&FormatChoice>) {
        let initial =
            format.map_or_else(|| input.info.first_layout(), FormatChoice::initial_layout);
        let mut current = Arc::clone(&initial);
        let mut newest_end = None;
        for part in &input.parts {
            for (range, scope) in &part.runs {
                let layout = match scope {
                    LayoutScope::Input => Arc::clone(&current),
                    LayoutScope::Record => Arc::clone(&initial),
                    LayoutScope::Fixed(layout) => Arc::clone(layout),
                };
                let after = self.see_lines(part, range.clone(), &layout, &mut newest_end);
                if *scope == LayoutScope::Input {
                    current = after;
                }
            }
        }
    }

    /// Counts some lines, and gives the layout after them.
    fn see_lines(
        &mut self,
        part: &Lines,
        range: std::ops::Range<usize>,
        layout: &Arc<Layout>,
        newest_end: &mut Option<i64>,
    ) -> Arc<Layout> {
        let base = part.text.range().start;
        let bounds = base + range.start..base + range.end;
        let block = self.parser.parse(part.text.text(), bounds, layout);
        self.survey.headers += block.header_count;
        self.survey.faults.add_counts(&block.faults);
        let room = SAMPLES_MAX.saturating_sub(self.survey.samples.len());
        self.survey.samples.extend(block.faults.samples().iter().take(room).cloned());
        for batch in block.batches {
            self.see_batch(&batch, newest_end);
            self.parser.recycle(batch);
        }
        self.see_repeated(&part.text[range]);
        block.layout_after.unwrap_or_else(|| Arc::clone(layout))
    }

    fn see_batch(&mut self, batch: &FlowBatch, newest_end: &mut Option<i64>) {
        let survey = &mut self.survey;
        match survey.layouts.iter_mut().find(|(layout, _)| layout == batch.layout()) {
            Some((_, count)) => *count += batch.rows() as u64,
            None => survey.layouts.push((Arc::clone(batch.layout()), batch.rows() as u64)),
        }
        let statuses = batch.log_statuses();
        let (starts, ends) = (batch.seconds(FieldId::Start), batch.seconds(FieldId::End));
        let interfaces = batch.texts(&Slot::Known(FieldId::InterfaceId));
        for row in 0..batch.rows() {
            match statuses.and_then(|statuses| statuses.get(row)).unwrap_or(LogStatus::Ok) {
                LogStatus::Ok => survey.ok += 1,
                LogStatus::NoData => survey.nodata += 1,
                LogStatus::SkipData => survey.skipdata += 1,
            }
            if let Some(interface) = interfaces.and_then(|interfaces| interfaces.get(row))
                && self.interfaces.len() < INTERFACES_MAX
            {
                self.interfaces.insert(self.hasher.hash_one(interface));
            }
            let Some(end) = ends.and_then(|ends| ends.get(row)) else { continue };
            survey.see_end(end, newest_end);
            if let Some(start) = starts.and_then(|starts| starts.get(row)) {
                survey.see_interval(end.saturating_sub(start));
            }
        }
    }

    fn see_repeated(&mut self, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.survey.line_bytes += line.len() as u64;
            if Layout::from_header(line).is_some() {
                continue;
            }
            let hash = self.hasher.hash_one(line);
            if self.lines.contains(&hash) {
                self.survey.repeated += 1;
            } else if self.lines.len() < LINES_KNOWN_MAX {
                self.lines.insert(hash);
            }
        }
    }

    fn finish(self) -> Survey {
        let mut survey = self.survey;
        survey.interface_count = self.interfaces.len() as u64;
        survey.layouts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if survey.samples.is_empty() {
            survey.samples = survey.faults.samples().iter().take(SAMPLES_MAX).cloned().collect();
        }
        survey
    }
}

impl Survey {
    fn see_end(&mut self, end: i64, newest_in_input: &mut Option<i64>) {
        self.first_end = Some(self.first_end.map_or(end, |first| first.min(end)));
        self.newest_end = Some(self.newest_end.map_or(end, |newest| newest.max(end)));
        let newest = newest_in_input.get_or_insert(end);
        if end < *newest {
            self.out_of_order += 1;
            self.disorder_seconds_max = self.disorder_seconds_max.max(newest.saturating_sub(end));
        }
        *newest = (*newest).max(end);
    }

    fn see_interval(&mut self, interval: i64) {
        let class = match interval {
            0..=SHORT_INTERVAL_SECONDS => 0,
            ..=INTERVAL_SECONDS_MAX if interval > 0 => 1,
            _ => 2,
        };
        self.intervals[class] += 1;
        if class < 2 {
            self.interval_seconds_max = self.interval_seconds_max.max(interval);
        }
    }
}

/// The preset that reads the lines of a sample best, if one reads nearly all of them.
pub(super) fn guess(sample: &Sample) -> Option<Arc<Layout>> {
    let lines = some_lines(sample);
    let length = lines.len();
    let text = Arc::new(lines.into());
    let mut parser = Parser::new(Isa::detect(), ColumnSet::new());
    let mut best: Option<(u64, Arc<Layout>)> = None;
    for layout in candidates() {
        let block = parser.parse(&text, 0..length, &layout);
        let parsed: u64 = block.batches.iter().map(|batch| batch.rows() as u64).sum();
        let is_good = parsed > 0 && parsed >= 9 * block.faults.total();
        if is_good && best.as_ref().is_none_or(|(most, _)| parsed > *most) {
            best = Some((parsed, layout));
        }
    }
    best.map(|(_, layout)| layout)
}

/// The orders of fields that circulate: AWS's own, and by name as the console writes them.
fn candidates() -> impl Iterator<Item = Arc<Layout>> {
    presets().flat_map(|(_, layout)| {
        let mut names: Vec<&str> = layout.slots().iter().map(Slot::name).collect();
        names.sort_unstable();
        let by_name = Layout::from_text(&names.join(" ")).expect("the same fields");
        [Arc::new(layout), Arc::new(by_name)]
    })
}

fn some_lines(sample: &Sample) -> Vec<u8> {
    let parts = sample.inputs.iter().flat_map(|input| &input.parts);
    let texts = parts.map(|part| &part.text[..]);
    let lines = texts.flat_map(|text| text.split_inclusive(|byte| *byte == b'\n'));
    let is_record = |line: &&[u8]| Layout::from_header(line.trim_ascii()).is_none();
    lines.filter(is_record).take(GUESS_LINES_MAX).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::InputInfo;
    use crate::record::TextSlice;

    fn sample(text: &str) -> Sample {
        let text = TextSlice::from(text.as_bytes().to_vec());
        let runs = vec![(0..text.len(), LayoutScope::Input)];
        let info = InputInfo::new("f".into(), FormatChoice::Auto);
        let inputs = vec![InputSample { info, parts: vec![Lines { text, runs }] }];
        Sample { inputs, ..Sample::default() }
    }

    fn line(start: i64, end: i64) -> String {
        format!("2 123456789012 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 40 {start} {end} ACCEPT OK\n")
    }

    #[test]
    fn intervals_and_order_are_seen() {
        let text = [line(1_000, 1_060), line(1_030, 1_090), line(1_000, 1_060)].concat();
        let survey = Survey::of(&sample(&text), None);
        assert_eq!((survey.ok, survey.total(), survey.interval_seconds()), (3, 3, Some(60)));
        assert_eq!((survey.out_of_order, survey.disorder_seconds_max), (1, 30));
        assert_eq!((survey.repeated, survey.interface_count), (1, 1));
        assert_eq!((survey.first_end, survey.newest_end), (Some(1_060), Some(1_090)));
        let survey = Survey::of(&sample(&line(1_000, 1_500)), None);
        assert_eq!((survey.interval_seconds(), survey.interval_seconds_max), (Some(600), 500));
        assert_eq!(Survey::of(&sample(&line(1, 1_000)), None).interval_seconds(), None);
    }

    #[test]
    fn a_format_is_guessed_by_what_it_reads() {
        let v3 = "3 123456789012 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 40 1 2 ACCEPT OK vpc-1 subnet-1 i-1 2 IPv4 10.0.0.1 10.0.0.2\n";
        let of_v3 = sample(v3);
        assert_eq!(Survey::of(&of_v3, None).parsed(), 0);
        let guessed = guess(&of_v3).unwrap();
        assert_eq!(*guessed, Layout::from_text("v3").unwrap());
        let format = FormatChoice::Fixed(guessed);
        assert_eq!(Survey::of(&of_v3, Some(&format)).ok, 1);
        assert!(guess(&sample("this is no flow log\n")).is_none());
    }

    #[test]
    fn a_header_says_the_layout() {
        let text = "srcaddr dstaddr end\n10.0.0.1 10.0.0.2 5\n";
        let survey = Survey::of(&sample(text), None);
        assert_eq!((survey.headers, survey.ok), (1, 1));
        assert_eq!(survey.layout().unwrap().header(), "srcaddr dstaddr end");
    }
}
