//! Partial runs: what several processes have seen of one stream, put together as if one had seen it all.
//!
//! A partial run judges nothing. It writes the contacts of each pane when the pane is complete, and its totals and
//! tops at the end. Merging reads the panes of all in order, and asks the detectors then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::job::{Detectors, Latencies, RunReport, TalkersReport};
use super::memory::MemoryPlan;
use super::sequence::InputReport;
use super::snapshot::SnapshotReport;
use crate::aggregate::{FlowSizes, Metric, PaneContacts, TopSet, TopSpec};
use crate::checkpoint::{
    CheckpointError, Part, PartialReader, PartialWriter, Refusal, RefusalReason, Snapshot,
};
use crate::clock::Clock;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::detect::{DetectorSet, Suppressed};
use crate::finding::Finding;
use crate::metrics::Profile;
use crate::record::Slot;
use crate::units::PaneIndex;

const JOB: &str = "job";
const INPUTS: &str = "inputs";
/// How large flows are; partials of older versions do without it.
const SIZES: &str = "sizes";

/// Writes what a run has seen.
pub(super) struct PartialExport {
    writer: PartialWriter,
    clock: Arc<dyn Clock>,
}

impl PartialExport {
    pub(super) const fn new(writer: PartialWriter, clock: Arc<dyn Clock>) -> Self {
        Self { writer, clock }
    }

    /// Writes what the shards have of a pane.
    pub(super) fn pane(
        &mut self,
        pane: PaneIndex,
        shards: &[PaneContacts],
    ) -> Result<(), CheckpointError> {
        let parts: Vec<Part> = (0..)
            .zip(shards)
            .map(|(index, contacts)| part(shard(index), |out| contacts.save(out)))
            .collect();
        self.writer.pane(pane, self.clock.now(), &parts)
    }

    /// Writes the rest and completes the partials.
    pub(super) fn finish(
        mut self,
        job: &PartialJob,
        tops: &[TopSet],
        sizes: Option<&FlowSizes>,
        inputs: &InputReport,
    ) -> Result<(), CheckpointError> {
        let mut parts = vec![
            part(JOB.to_owned(), |out| job.save(out)),
            part(INPUTS.to_owned(), |out| inputs.save(out)),
        ];
        parts.extend((0..).zip(tops).map(|(index, tops)| part(shard(index), |out| tops.save(out))));
        parts.extend(sizes.map(|sizes| part(SIZES.to_owned(), |out| sizes.save(out))));
        self.writer.rest(self.clock.now(), &parts)
    }
}

fn shard(index: usize) -> String {
    format!("shard-{index}")
}

fn part(name: String, save: impl FnOnce(&mut Encoder)) -> Part {
    let mut out = Encoder::default();
    save(&mut out);
    Part { name, segments: out.into_segments() }
}

/// What a partial run was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialJob {
    /// Length of a pane.
    pub pane_seconds: i64,
    /// Whether there are contacts for detectors.
    pub with_contacts: bool,
    /// Questions for the largest keys.
    pub tops: Vec<TopSpec>,
}

impl PartialJob {
    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.i64(self.pane_seconds);
        out.bool(self.with_contacts);
        out.count(self.tops.len());
        for top in &self.tops {
            out.count(top.by.len());
            top.by.iter().for_each(|slot| out.text(slot.name()));
            out.text(&top.metric.name());
            out.u64(top.rows_max as u64);
            out.u128(top.metric_min);
            out.option(top.window_seconds, Encoder::i64);
        }
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("partial job", 1..=1)?;
        let (pane_seconds, with_contacts) = (from.i64()?, from.bool()?);
        if pane_seconds <= 0 {
            return Err(DecodeError::Invalid("length of a pane"));
        }
        let tops = (0..from.count(8)?).map(|_| load_top(from)).collect::<Result<_, _>>()?;
        Ok(Self { pane_seconds, with_contacts, tops })
    }
}

fn load_top(from: &mut Decoder<'_>) -> Result<TopSpec, DecodeError> {
    let slots = 0..from.count(8)?;
    let by = slots.map(|_| from.text().map(Slot::from_name)).collect::<Result<_, _>>()?;
    let metric = match from.text()? {
        "bytes" => Metric::Bytes,
        "packets" => Metric::Packets,
        "flows" => Metric::Flows,
        other => {
            let field = other.strip_prefix("distinct:").ok_or(DecodeError::Invalid("metric"))?;
            Metric::Distinct(Slot::from_name(field))
        }
    };
    let rows_max = usize::try_from(from.u64()?).map_err(|_| DecodeError::Invalid("row count"))?;
    let (metric_min, window_seconds) = (from.u128()?, from.option(Decoder::i64)?);
    if window_seconds.is_some_and(|seconds| seconds <= 0) {
        return Err(DecodeError::Invalid("window"));
    }
    Ok(TopSpec { by, metric, rows_max, metric_min, window_seconds })
}

/// Why partials could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A file cannot be used.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// They answer different questions.
    #[error(
        "`{first}` and `{other}` are partials of different questions; run both with the same `--by`, `--metric`, `--top`, `--window` and `--no-detect`"
    )]
    Different {
        /// A directory.
        first: String,
        /// One that does not go with it.
        other: String,
    },
}

/// Puts the partials of several processes together, in whatever order they are given: the report, and the
/// findings in the order in which one process would have made them.
///
/// # Errors
/// If a file is missing or damaged, or they are not of the same questions.
///
/// # Panics
/// If there are no partials.
pub fn merge(
    partials: &[(String, PartialReader)],
    detectors: &Detectors,
    memory: MemoryPlan,
) -> Result<(RunReport, Vec<Finding>), MergeError> {
    let mut job: Option<PartialJob> = None;
    let mut tops: Option<TopSet> = None;
    let mut inputs = InputReport::default();
    let mut flow_sizes: Option<FlowSizes> = None;
    for (name, reader) in partials {
        let of_this = reader.rest(|file| file.decode(JOB, PartialJob::load))?;
        if job.get_or_insert_with(|| of_this.clone()) != &of_this {
            let (first, other) = (partials[0].0.clone(), name.clone());
            return Err(MergeError::Different { first, other });
        }
        reader.rest(|file| {
            inputs.merge(file.decode(INPUTS, InputReport::load)?);
            if file.names().any(|name| name == SIZES) {
                let part = file.decode(SIZES, FlowSizes::load)?;
                *flow_sizes.get_or_insert_default() += &part;
            }
            let mut has_shards = false;
            for name in shards(file) {
                has_shards = true;
                let bytes_max = memory.tops_bytes;
                let part =
                    file.decode(name, |from| TopSet::load(&of_this.tops, bytes_max, from))?;
                match &mut tops {
                    Some(tops) => tops.absorb(&part),
                    None => tops = Some(part),
                }
            }
            if has_shards { Ok(()) } else { Err(RefusalReason::Missing { name: shard(0) }) }
        })?;
    }
    let (job, tops) = (job.expect("there are partials"), tops.expect("each has a shard"));
    let (mut findings, mut suppressed) = (Vec::new(), Suppressed::default());
    if job.with_contacts {
        let Detectors { settings, network, trials: _ } = detectors.clone();
        let detectors = DetectorSet::new(&settings, network, job.pane_seconds);
        let mut detectors = detectors.with_bytes_max(memory.detectors_bytes);
        judge(partials, &mut detectors, &mut findings)?;
        suppressed = detectors.suppressed().clone();
    }
    let answers = TopSet::answers(&[tops]);
    let mut findings_by_kind = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.revision == 0) {
        *findings_by_kind.entry(finding.kind).or_default() += 1;
    }
    let report = RunReport {
        inputs,
        tops: job.tops,
        answers,
        flow_sizes,
        talkers: TalkersReport::default(),
        findings_by_kind,
        suppressed,
        trials: Vec::new(),
        latencies: Latencies::default(),
        profile: Profile::default(),
        elapsed: Duration::ZERO,
        journal: None,
        dead_letters: None,
        snapshots: SnapshotReport::default(),
        back_pressure: BTreeMap::new(),
    };
    Ok((report, findings))
}

fn shards(file: &Snapshot) -> impl Iterator<Item = &str> {
    file.names().filter(|name| name.starts_with("shard-"))
}

/// Judges all panes in order.
fn judge(
    partials: &[(String, PartialReader)],
    detectors: &mut DetectorSet,
    findings: &mut Vec<Finding>,
) -> Result<(), MergeError> {
    let panes: BTreeSet<PaneIndex> =
        partials.iter().flat_map(|(_, reader)| reader.panes()).copied().collect();
    for pane in panes {
        let mut merged: Option<PaneContacts> = None;
        let with_pane = partials.iter().filter(|(_, reader)| reader.panes().contains(&pane));
        for (_, reader) in with_pane {
            reader.pane(pane, |file| {
                for name in shards(file) {
                    let contacts = file.decode(name, PaneContacts::load)?;
                    if contacts.pane != pane {
                        let error = DecodeError::Invalid("pane");
                        return Err(RefusalReason::Part { name: name.to_owned(), error });
                    }
                    match &mut merged {
                        Some(merged) => merged.merge(&contacts),
                        None => merged = Some(contacts),
                    }
                }
                Ok(())
            })?;
        }
        detectors.on_pane(pane, merged.into_iter().collect(), findings);
    }
    detectors.on_end(findings);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::StateDirectory;
    use crate::checkpoint::disk::MemoryDisk;
    use crate::detect::{DetectSettings, Network};
    use crate::units::UnixSeconds;

    #[test]
    fn partials_without_a_shard_are_refused() {
        let (disk, path) = (Arc::new(MemoryDisk::new(1)), Path::new("/partials"));
        let directory = StateDirectory::open(Arc::clone(&disk) as _, path).unwrap();
        let job = PartialJob { pane_seconds: 60, with_contacts: false, tops: Vec::new() };
        let parts = [
            part(JOB.to_owned(), |out| job.save(out)),
            part(INPUTS.to_owned(), |out| InputReport::default().save(out)),
        ];
        PartialWriter::new(directory).unwrap().rest(UnixSeconds(0), &parts).unwrap();
        let reader = PartialReader::open(disk, path).unwrap();
        let settings = DetectSettings::default();
        let detectors = Detectors { settings, network: Network::default(), trials: None };
        let merged =
            merge(&[("one".to_owned(), reader)], &detectors, MemoryPlan::of(1 << 30, 1, false));
        assert!(merged.unwrap_err().to_string().contains("it has no part `shard-0`"));
    }
}
