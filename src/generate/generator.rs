//! The stream itself: ordinary traffic and planted attacks in one order, written line by line.
//!
//! Event time moves with the number of records. Records are drawn in blocks and each block is
//! shuffled, so that the two directions of a conversation are apart; together with a random delay of
//! each conversation this stays within the disorder that the settings allow.

use super::attack::Schedule;
use super::background::{Background, look_alikes};
use super::exchange::{Flow, Status};
use super::labels::{Labels, attack_label, benign_label};
use super::line::LineWriter;
use super::network::{InterfaceIndex, Network};
use super::random::{Random, mix2};
use super::settings::GenerateSettings;

/// Most records that are shuffled at a time.
const BLOCK_RECORDS_MAX: u64 = 512;

/// Makes a synthetic stream, line by line.
#[derive(Clone, Debug)]
pub struct Generator {
    settings: GenerateSettings,
    network: Network,
    writer: LineWriter,
    background: Background,
    schedule: Schedule,
    period: u64,
    random: Random,
    timing: Timing,
    block: Vec<Flow>,
    /// Places of the block that are still to be written, in random order; the last one is next.
    order: Vec<u16>,
    drawn: u64,
    totals: Totals,
}

/// One line of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The record with its LF.
    pub text: &'a [u8],
    /// The interface that recorded it.
    pub interface: InterfaceIndex,
    /// Its `start`, Unix seconds.
    pub start: i64,
}

/// How records are spread over event time.
#[derive(Clone, Debug)]
struct Timing {
    /// Second of the first record if it is not delayed.
    first_second: i64,
    /// Most seconds that a conversation is held back.
    delay_max: u64,
    block_records: usize,
}

impl Timing {
    fn new(settings: &GenerateSettings) -> Self {
        let disorder = u64::from(settings.disorder_seconds);
        let rate = settings.records_per_second;
        // A block takes at most half of the allowed disorder; one conversation is always a block.
        let block_records = (rate * disorder / 2).clamp(1, BLOCK_RECORDS_MAX);
        let block_seconds = (block_records - 1).div_ceil(rate);
        assert!(block_seconds <= disorder);
        let before = i64::from(settings.disorder_seconds) + i64::from(settings.aggregation_seconds);
        Self {
            first_second: settings.start + before,
            delay_max: disorder - block_seconds,
            block_records: usize::try_from(block_records).expect("at most BLOCK_RECORDS_MAX"),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Totals {
    records: u64,
    accept: u64,
    reject: u64,
    packets: u64,
    span: Option<(i64, i64)>,
}

impl Totals {
    fn count(&mut self, flow: &Flow) {
        self.records += 1;
        if flow.status == Status::Ok {
            self.accept += u64::from(!flow.rejected);
            self.reject += u64::from(flow.rejected);
            self.packets += flow.packets;
        }
        let (start, end) = self.span.unwrap_or((flow.start, flow.end));
        self.span = Some((start.min(flow.start), end.max(flow.end)));
    }
}

impl Generator {
    /// The stream that the settings describe.
    ///
    /// # Panics
    /// If [`GenerateSettings::check`] finds a fault.
    #[must_use]
    pub fn new(settings: &GenerateSettings) -> Self {
        if let Err(fault) = settings.check() {
            panic!("settings must be checked before they are used: {fault}");
        }
        let network = Network::new(settings);
        Self {
            writer: LineWriter::new(settings.format.clone()),
            background: Background::new(settings, &network),
            schedule: Schedule::plan(settings, &network, 0, 0),
            period: 0,
            random: Random::new(mix2(settings.seed, 0x7469_6d65)),
            timing: Timing::new(settings),
            block: Vec::new(),
            order: Vec::new(),
            drawn: 0,
            totals: Totals::default(),
            network,
            settings: settings.clone(),
        }
    }

    /// The settings that it was made with.
    #[must_use]
    pub const fn settings(&self) -> &GenerateSettings {
        &self.settings
    }

    /// The pretended network.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The line that names the fields, with its LF, if the settings want one. It is no record, and
    /// [`Self::fill`] does not write it.
    #[must_use]
    pub fn header_line(&self) -> Option<String> {
        self.settings.header.then(|| format!("{}\n", self.settings.format.header()))
    }

    /// Event time that has passed since the first record, milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.ms_of(self.totals.records)
    }

    /// Appends up to `lines_max` lines and returns how many there were; fewer only at the end.
    pub fn fill(&mut self, out: &mut Vec<u8>, lines_max: usize) -> usize {
        for written in 0..lines_max {
            let Some(line) = self.next_line() else { return written };
            out.extend_from_slice(line.text);
        }
        lines_max
    }

    /// The next record, or `None` after the last.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        if self.settings.records > 0 && self.totals.records == self.settings.records {
            return None;
        }
        if self.order.is_empty() {
            self.draw_block();
        }
        let place = self.order.pop().expect("a block holds at least one record");
        let flow = &self.block[usize::from(place)];
        self.totals.count(flow);
        if let Some(attack) = flow.attack {
            self.schedule.count(attack, flow);
        }
        let text = self.writer.write(&self.network, flow);
        Some(Line { text, interface: flow.interface, start: flow.start })
    }

    fn ms_of(&self, record: u64) -> u64 {
        let ms = u128::from(record) * 1_000 / u128::from(self.settings.records_per_second);
        u64::try_from(ms).expect("a stream is shorter than 584 million years")
    }

    fn draw_block(&mut self) {
        self.plan_next_period();
        self.block.clear();
        let mut attacked = false;
        while self.block.len() < self.timing.block_records {
            let now_ms = self.ms_of(self.drawn + self.block.len() as u64);
            let now_seconds = i64::try_from(now_ms / 1_000).expect("far less than 2^63");
            let delay = self.random.below(self.timing.delay_max + 1);
            let delay = i64::try_from(delay).expect("at most an hour");
            let end = self.timing.first_second + now_seconds - delay;
            // Between two contacts of attacks there is always something ordinary, however late they are.
            attacked = !attacked && self.schedule.act(&self.network, now_ms, end, &mut self.block);
            if !attacked {
                self.background.draw(&self.network, end, &mut self.block);
            }
        }
        self.drawn += self.block.len() as u64;
        self.shuffle();
    }

    /// In a stream without end, the attacks of the next period once the last one is over. Records that
    /// are still to be written all belong to blocks before, so no tally is lost half-way.
    fn plan_next_period(&mut self) {
        if self.settings.records > 0 {
            return;
        }
        let period_ms = u64::from(self.settings.attack_period_seconds) * 1_000;
        let period = self.ms_of(self.drawn) / period_ms;
        if period > self.period {
            self.period = period;
            self.schedule =
                Schedule::plan(&self.settings, &self.network, period, period * period_ms);
        }
    }

    fn shuffle(&mut self) {
        let count = u16::try_from(self.block.len()).expect("a block and one conversation");
        self.order.clear();
        self.order.extend((0..count).rev());
        for last in (1..u32::from(count)).rev() {
            let other = self.random.below_u32(last + 1);
            self.order.swap(last as usize, other as usize);
        }
    }

    /// The truth about what was written so far; in a stream without end, the attacks of the current
    /// period only.
    #[must_use]
    pub fn labels(&self) -> Labels {
        let (t_start, t_end) =
            self.totals.span.unwrap_or((self.settings.start, self.settings.start));
        let attacks = self.schedule.attacks().iter().enumerate();
        let mut attacks: Vec<_> =
            attacks.filter_map(|(place, attack)| attack_label(place, attack)).collect();
        attacks.sort_by(|a, b| (a.start, &a.id).cmp(&(b.start, &b.id)));
        let groups = look_alikes(&self.network);
        Labels {
            set: "generated",
            t_start,
            t_end,
            hours: (t_end - t_start).max(1) as f64 / 3_600.0,
            records: self.totals.records,
            accept: self.totals.accept,
            reject: self.totals.reject,
            packets: self.totals.packets,
            aggregation_s: self.settings.aggregation_seconds,
            attacks,
            benign: groups.iter().map(|group| benign_label(&self.network, group)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use sha2::{Digest, Sha256};

    use super::super::settings::AttackKind;
    use super::*;
    use crate::net::Addr;
    use crate::record::{FieldKind, Layout};

    fn settings() -> GenerateSettings {
        GenerateSettings {
            records: 100_000,
            interfaces: 2_000,
            external_addresses: 20_000,
            ..GenerateSettings::default()
        }
    }

    fn text(settings: &GenerateSettings) -> String {
        let mut out = Vec::new();
        Generator::new(settings).fill(&mut out, usize::MAX);
        String::from_utf8(out).unwrap()
    }

    fn digest(settings: &GenerateSettings) -> u64 {
        let digest = Sha256::digest(text(settings));
        u64::from_be_bytes(digest[..8].try_into().unwrap())
    }

    fn all_attacks(count: u32) -> BTreeMap<AttackKind, u32> {
        AttackKind::ALL.into_iter().map(|kind| (kind, count)).collect()
    }

    #[test]
    fn one_seed_gives_the_same_bytes_everywhere() {
        let settings = GenerateSettings { records: 20_000, attacks: all_attacks(1), ..settings() };
        let v5 = Layout::from_text("v5").unwrap().into();
        assert_eq!(digest(&settings), 0xdb0f6e518ab8288b);
        assert_eq!(
            digest(&GenerateSettings { format: v5, ..settings.clone() }),
            0xeeac0288382d6484
        );
        assert_ne!(digest(&GenerateSettings { seed: 2, ..settings }), 0xdb0f6e518ab8288b);
    }

    fn fits(kind: FieldKind, value: &str) -> bool {
        let number = |max: u64| value.parse::<u64>().is_ok_and(|number| number <= max);
        match kind {
            FieldKind::Addr => value.parse::<Addr>().is_ok(),
            FieldKind::Port => number(65_535),
            FieldKind::Protocol => number(255),
            FieldKind::Counter => number(u64::MAX),
            FieldKind::Seconds | FieldKind::Int32 => number(1 << 31),
            FieldKind::Action => ["ACCEPT", "REJECT"].contains(&value),
            FieldKind::LogStatus => ["OK", "NODATA", "SKIPDATA"].contains(&value),
            FieldKind::Text => !value.is_empty(),
        }
    }

    #[test]
    fn every_layout_has_its_fields_and_their_kinds() {
        let formats = ["v2", "v3", "v4", "v5", "v7", "v8", "v9", "v10", "v11", "tgw"];
        let others = ["bytes brand-new srcaddr", "${log-status} ${tgw-id} ${dstport}"];
        for format in formats.into_iter().chain(others) {
            let layout = Layout::from_text(format).unwrap();
            let settings = GenerateSettings {
                records: 3_000,
                format: layout.clone().into(),
                ipv6_share: 0.3,
                ..settings()
            };
            let mut filled = vec![false; layout.field_count()];
            for line in text(&settings).lines() {
                let values: Vec<&str> = line.split(' ').collect();
                assert_eq!(values.len(), layout.field_count(), "{format}: {line}");
                for (place, (slot, value)) in layout.slots().iter().zip(&values).enumerate() {
                    let known = *value != "-";
                    assert!(!known || fits(slot.kind(), value), "{}: {line}", slot.name());
                    filled[place] |= known;
                }
            }
            let never_filled = ["sublocation-type", "sublocation-id", "ecs-second-container-id"]
                .into_iter()
                .chain(["reject-reason", "resource-id", "instance-tag-2", "interface-tag-2"])
                .chain(["asg-tag-2", "brand-new"]);
            let never_filled: HashSet<&str> = never_filled.collect();
            for (slot, filled) in layout.slots().iter().zip(filled) {
                assert_eq!(filled, !never_filled.contains(slot.name()), "{}", slot.name());
            }
        }
    }

    #[test]
    fn the_version_is_the_highest_of_the_fields() {
        for (format, version) in [("v2", "2 "), ("v5", "5 "), ("v11", "11 "), ("tgw", "6 ")] {
            let format = Layout::from_text(format).unwrap().into();
            let lines = text(&GenerateSettings { records: 100, format, ..settings() });
            assert!(lines.lines().all(|line| line.starts_with(version)));
        }
    }

    #[test]
    fn shares_are_met() {
        let check = |ipv6_share: f64, reject_share: f64, nodata_share: f64| {
            let settings =
                GenerateSettings { ipv6_share, reject_share, nodata_share, ..settings() };
            let lines = text(&settings);
            let share = |wanted: &dyn Fn(&str) -> bool| {
                lines.lines().filter(|line| wanted(line)).count() as f64 / 100_000.0
            };
            let near = |got: f64, wanted: f64| (got - wanted).abs() < 0.005;
            let gaps = share(&|line| line.ends_with("DATA"));
            let rejects = share(&|line| line.contains(" REJECT "));
            let v6 = share(&|line| line.contains(':')) / (1.0 - gaps).max(1e-9);
            assert!(near(gaps, nodata_share), "{gaps} of {nodata_share}");
            assert!(near(rejects, reject_share), "{rejects} of {reject_share}");
            assert!(nodata_share > 0.99 || near(v6, ipv6_share), "{v6} of {ipv6_share}");
        };
        check(0.05, 0.035, 0.01);
        check(0.0, 0.0, 0.0);
        check(1.0, 0.5, 0.2);
        check(0.4, 0.7, 0.3);
        check(0.0, 0.0, 1.0);
    }

    #[test]
    fn conversations_are_recorded_in_both_directions() {
        let lines = text(&GenerateSettings { nodata_share: 0.0, reject_share: 0.0, ..settings() });
        let mut seen: HashMap<Vec<&str>, u32> = HashMap::new();
        let key = |line: &'static str| -> Vec<&'static str> { line.split(' ').collect() };
        let lines: &'static str = lines.leak();
        for fields in lines.lines().map(key) {
            *seen.entry(fields[2..8].to_vec()).or_default() += 1;
        }
        let answered = |flow: &&Vec<&str>| {
            let answer = vec![flow[0], flow[2], flow[1], flow[4], flow[3], flow[5]];
            seen.contains_key(&answer)
        };
        let count = seen.keys().filter(answered).count();
        // The dead host is polled in vain; at the end of the stream some answers are cut off.
        let share = count as f64 / seen.len() as f64;
        assert!((0.98..1.0).contains(&share), "{share}");
    }

    #[test]
    fn records_are_late_by_no_more_than_the_setting() {
        for (disorder_seconds, records_per_second) in
            [(0, 10_000), (0, 3), (1, 1), (2, 100), (30, 5), (45, 10_000)]
        {
            let settings = GenerateSettings {
                records: 5_000,
                disorder_seconds,
                records_per_second,
                attacks: all_attacks(1),
                ..settings()
            };
            let (mut latest, mut most_late) = (0, 0);
            for line in text(&settings).lines() {
                let fields: Vec<&str> = line.split(' ').collect();
                let [start, end]: [i64; 2] = [10, 11].map(|place| fields[place].parse().unwrap());
                assert!(settings.start <= start && start <= end && end - start <= 60, "{line}");
                latest = latest.max(end);
                most_late = most_late.max(latest - end);
            }
            assert!(most_late <= i64::from(disorder_seconds), "{most_late}");
            // At a few records a second, conversations hardly overlap.
            let overlap = records_per_second > 10;
            assert!(!overlap || most_late * 2 >= i64::from(disorder_seconds), "{most_late}");
        }
    }

    #[test]
    fn a_stream_without_end_plants_anew_in_each_period() {
        let settings = GenerateSettings {
            records: 0,
            records_per_second: 200,
            attack_period_seconds: 60,
            attacks: all_attacks(1),
            ..settings()
        };
        let mut generator = Generator::new(&settings);
        let mut out = Vec::new();
        let mut actors = HashSet::new();
        for _ in 0..5 {
            out.clear();
            assert_eq!(generator.fill(&mut out, 200 * 58), 200 * 58);
            let labels = generator.labels();
            let outside = labels.attacks.iter().filter(|attack| !attack.internal);
            for actor in outside.map(|attack| attack.actors[0].clone()) {
                assert!(actors.insert(actor.clone()), "{actor}");
            }
            generator.fill(&mut out, 200 * 2);
        }
        assert!(actors.len() >= 10, "{actors:?}");
        assert!((299_000..=301_000).contains(&generator.elapsed_ms()));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn settings_that_pass_the_check_make_their_records(
            seed: u64,
            records in 1_u64..6_000,
            (interfaces, external_addresses) in (16_u32..300, 16_u32..5_000),
            (zipf, ipv6_share) in (0.0..3.0, 0.0..=1.0),
            (reject_share, nodata_share) in (0.0..=1.0, 0.0..=1.0),
            (disorder_seconds, aggregation_seconds) in (0_u32..3_600, 1_u32..3_600),
            records_per_second in proptest::prop_oneof![1_u64..100, 1_u64..1_000_000_000],
            attacks in 0_u32..3,
        ) {
            let settings = GenerateSettings {
                seed,
                records,
                interfaces,
                external_addresses,
                zipf,
                ipv6_share,
                reject_share,
                nodata_share,
                disorder_seconds,
                aggregation_seconds,
                records_per_second,
                attacks: all_attacks(attacks),
                ..GenerateSettings::default()
            };
            proptest::prop_assume!(settings.check().is_ok());
            let mut generator = Generator::new(&settings);
            let mut out = Vec::new();
            proptest::prop_assert_eq!(generator.fill(&mut out, usize::MAX) as u64, records);
            let labels = generator.labels();
            proptest::prop_assert_eq!(labels.records, records);
            let planted: u64 = labels.attacks.iter().map(|attack| attack.records).sum();
            proptest::prop_assert!(planted <= records);
        }
    }
}
