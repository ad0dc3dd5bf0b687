//! The sequencer's state as bytes: where every input goes on, and all that was counted so far.
//!
//! What parse workers still have is not in it: an input's position is that after the last part that was
//! forwarded, and everything counted is what was forwarded up to there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{
    FailedInput, InputReport, InputState, MALFORMED_SAMPLES_MAX, MalformedSample, NAMED_INPUTS_MAX,
    Rank, Sequencer, keep_first,
};
use crate::aggregate::{InputFate, TimeSettings, Totals, Watermarks};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::framing::{FinishedInputs, InputId, InputKind, Positions, ReadUntil, ResumePoint};
use crate::pipeline::parse_stage::ParseStage;

/// The fewest bytes of anything that has a name: its length.
const NAMED_BYTES_MIN: usize = 8;

impl InputState {
    /// Where it goes on in a later run, `None` if it begins anew.
    fn resume_point(&self) -> Option<ResumePoint> {
        let position = self.position.clone()?;
        Some(ResumePoint {
            position,
            layout: Arc::clone(&self.layout),
            file_start: self.file_start,
        })
    }

    fn fate(&self) -> InputFate {
        if self.fault.is_some() {
            // What follows a fault is not known to be the input's, today or later.
            InputFate::Ended
        } else if self.position.is_some() {
            InputFate::GoesOn(Arc::clone(&self.rank.1))
        } else {
            InputFate::BeginsAnew
        }
    }

    fn save(&self, point: &ResumePoint, out: &mut Encoder) {
        save_rank(&self.rank, out);
        point.save(out);
        out.bool(self.is_auto);
        for count in
            [self.line_count, self.header_count, self.good_count, self.miscounted, self.late_count]
        {
            out.u64(count);
        }
        save_samples(&self.samples, out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let rank = load_rank(from)?;
        let point = ResumePoint::load(from)?;
        Ok(Self {
            rank,
            layout: point.layout,
            file_start: point.file_start,
            position: Some(point.position),
            is_auto: from.bool()?,
            line_count: from.counted()?,
            header_count: from.counted()?,
            good_count: from.counted()?,
            miscounted: from.counted()?,
            late_count: from.counted()?,
            samples: load_samples(from)?,
            ..Self::unopened()
        })
    }
}

impl Sequencer {
    /// Saves what a later run needs to go on as this one would.
    pub(in crate::pipeline) fn save(&self, out: &mut Encoder) {
        out.version(2);
        let states = || self.inputs.values().chain(self.earlier.values());
        let of_fate = |wanted: fn(&InputFate) -> bool| {
            states().filter(move |state| state.is_open() && wanted(&state.fate()))
        };
        let ended = || of_fate(|fate| *fate == InputFate::Ended);
        let anew = || of_fate(|fate| *fate == InputFate::BeginsAnew);

        out.u64(self.report.input_count - anew().count() as u64);
        out.u64(self.report.bytes_read);
        out.u64(self.report.bytes_decoded);
        self.report.totals.save(out);

        let open: BTreeMap<&Rank, (&InputState, ResumePoint)> =
            of_fate(|fate| matches!(fate, InputFate::GoesOn(_)))
                .filter_map(|state| Some((&state.rank, (state, state.resume_point()?))))
                .collect();
        out.count(open.len());
        for (state, point) in open.into_values() {
            state.save(&point, out);
        }

        let ending = ended().map(|state| (&*state.rank.1, state.kind()));
        self.finished.save(ending, out);

        let failed = self.failed.iter().map(|(rank, message)| (rank, message.as_str()));
        let failing = ended().filter_map(|state| Some((&state.rank, state.fault.as_deref()?)));
        let failed: BTreeMap<&Rank, &str> = failed.chain(failing).collect();
        out.count(failed.len());
        for (rank, message) in failed {
            save_rank(rank, out);
            out.text(message);
        }
        out.u64(self.report.failed_unnamed);

        let closed = self.samples.iter();
        let left = ended().chain(anew()).map(|state| (&state.rank, &state.samples));
        let left = left.filter(|(_, samples)| !samples.is_empty());
        let samples: BTreeMap<_, _> = closed.chain(left).collect();
        out.count(samples.len());
        for (rank, samples) in samples {
            save_rank(rank, out);
            save_samples(samples, out);
        }

        let mut late = self.report.late_by_input.clone();
        for state in ended().chain(anew()).filter(|state| state.late_count > 0) {
            *late.entry(Arc::clone(&state.rank.1)).or_default() += state.late_count;
        }
        out.count(late.len());
        for (name, count) in late {
            out.text(&name);
            out.u64(count);
        }

        let fate_of =
            |input: InputId| self.inputs.get(&input).map_or(InputFate::Ended, InputState::fate);
        self.watermarks.save(&fate_of, out);
    }

    /// What was saved, to go on at wall time `now` with `expected_inputs`, counted as for [`Self::new`]
    /// whether they were finished before or not.
    pub(in crate::pipeline) fn load(
        reparser: ParseStage,
        time: TimeSettings,
        expected_inputs: usize,
        now: Duration,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let form = from.version("the inputs", 1..=2)?;
        let mut report = InputReport {
            input_count: from.counted()?,
            bytes_read: from.counted()?,
            bytes_decoded: from.counted()?,
            totals: Totals::load(from)?,
            ..InputReport::default()
        };
        let mut earlier = BTreeMap::new();
        for _ in 0..from.count(NAMED_BYTES_MIN)? {
            let state = InputState::load(from)?;
            earlier.insert(Arc::clone(&state.rank.1), state);
        }
        let finished = match form {
            1 => load_names(expected_inputs, from)?,
            _ => FinishedInputs::load(expected_inputs, from)?,
        };
        let mut failed = BTreeMap::new();
        for _ in 0..from.count(NAMED_BYTES_MIN)? {
            failed.insert(load_rank(from)?, from.text()?.to_owned());
        }
        report.failed_unnamed = if form == 1 { 0 } else { from.counted()? };
        let mut samples = BTreeMap::new();
        for _ in 0..from.count(NAMED_BYTES_MIN)? {
            samples.insert(load_rank(from)?, load_samples(from)?);
        }
        for _ in 0..from.count(NAMED_BYTES_MIN)? {
            report.late_by_input.insert(Arc::from(from.text()?), from.counted()?);
        }
        let watermarks = Watermarks::load(time, expected_inputs, now, from)?;
        let (inputs, unknown_names) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self {
            reparser,
            inputs,
            earlier,
            finished,
            ended: Vec::new(),
            forgotten_told: 0,
            watermarks,
            report,
            samples,
            letters: None,
            failed,
            unknown_names,
            chunk_count: 0,
        })
    }

    /// How far inputs were read: what sources need to go on from what was loaded.
    pub(in crate::pipeline) fn positions(&self) -> Positions {
        let states = self.inputs.values().chain(self.earlier.values());
        let open = states.filter_map(|state| {
            let until = match state.fate() {
                InputFate::GoesOn(_) => ReadUntil::Point(state.resume_point()?),
                InputFate::Ended => ReadUntil::End,
                InputFate::BeginsAnew => return None,
            };
            Some((Arc::clone(&state.rank.1), until))
        });
        open.collect::<Positions>().with_finished(self.finished.clone())
    }
}

impl InputReport {
    /// Saves it for a process that puts several together.
    pub(in crate::pipeline) fn save(&self, out: &mut Encoder) {
        out.version(2);
        out.u64(self.input_count);
        out.u64(self.bytes_read);
        out.u64(self.bytes_decoded);
        self.totals.save(out);
        save_samples(&self.malformed_samples, out);
        out.count(self.failed.len());
        for FailedInput { name, message } in &self.failed {
            out.text(name);
            out.text(message);
        }
        out.u64(self.failed_unnamed);
        out.count(self.late_by_input.len());
        for (name, count) in &self.late_by_input {
            out.text(name);
            out.u64(*count);
        }
    }

    /// What was saved.
    pub(in crate::pipeline) fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let form = from.version("the report on inputs", 1..=2)?;
        let mut report = Self {
            input_count: from.counted()?,
            bytes_read: from.counted()?,
            bytes_decoded: from.counted()?,
            totals: Totals::load(from)?,
            malformed_samples: load_samples(from)?,
            ..Self::default()
        };
        for _ in 0..from.count(NAMED_BYTES_MIN)? {
            let (name, message) = (Arc::from(from.text()?), from.text()?.to_owned());
            report.failed.push(FailedInput { name, message });
        }
        report.failed_unnamed = if form == 1 { 0 } else { from.counted()? };
        for _ in 0..from.count(NAMED_BYTES_MIN)? {
            report.late_by_input.insert(Arc::from(from.text()?), from.counted()?);
        }
        Ok(report)
    }

    /// Adds what another process read. Samples and failures are kept in the order of their text, whatever the
    /// order of merging.
    pub(in crate::pipeline) fn merge(&mut self, other: Self) {
        self.input_count += other.input_count;
        self.bytes_read += other.bytes_read;
        self.bytes_decoded += other.bytes_decoded;
        self.totals.merge(&other.totals);
        self.malformed_samples.extend(other.malformed_samples);
        self.malformed_samples.sort_by(|one, other| one.origin.cmp(&other.origin));
        self.malformed_samples.truncate(MALFORMED_SAMPLES_MAX);
        self.failed.extend(other.failed);
        self.failed.sort_by(|one, other| one.name.cmp(&other.name));
        let surplus = self.failed.len().saturating_sub(NAMED_INPUTS_MAX);
        self.failed.truncate(NAMED_INPUTS_MAX);
        self.failed_unnamed += surplus as u64 + other.failed_unnamed;
        for (name, count) in other.late_by_input {
            *self.late_by_input.entry(name).or_default() += count;
            keep_first(&mut self.late_by_input, NAMED_INPUTS_MAX);
        }
    }
}

/// Inputs that ended, as the first form has them. It doesn't say what they were: they stay as long as shards.
fn load_names(
    expected_inputs: usize,
    from: &mut Decoder<'_>,
) -> Result<FinishedInputs, DecodeError> {
    let mut finished = FinishedInputs::new(expected_inputs);
    for _ in 0..from.count(NAMED_BYTES_MIN)? {
        finished.insert(from.text()?, InputKind::Shard);
    }
    Ok(finished)
}

fn save_rank((input, name): &Rank, out: &mut Encoder) {
    out.u32(input.0);
    out.text(name);
}

fn load_rank(from: &mut Decoder<'_>) -> Result<Rank, DecodeError> {
    Ok((InputId(from.u32()?), Arc::from(from.text()?)))
}

fn save_samples(samples: &[MalformedSample], out: &mut Encoder) {
    out.count(samples.len());
    for MalformedSample { origin, reason, column, text } in samples {
        out.text(origin);
        out.text(reason);
        out.u16(*column);
        out.text(text);
    }
}

fn load_samples(from: &mut Decoder<'_>) -> Result<Vec<MalformedSample>, DecodeError> {
    let count = from.count(NAMED_BYTES_MIN)?;
    if count > MALFORMED_SAMPLES_MAX {
        return Err(DecodeError::Invalid("samples"));
    }
    let sample = |from: &mut Decoder<'_>| {
        let (origin, reason) = (from.text()?.to_owned(), from.text()?.to_owned());
        Ok(MalformedSample { origin, reason, column: from.u16()?, text: from.text()?.to_owned() })
    };
    (0..count).map(|_| sample(from)).collect()
}

#[cfg(test)]
mod tests;
