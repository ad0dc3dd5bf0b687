//! Tops as bytes, and back: tables as they lie in memory.
//!
//! What is loaded goes on exactly as what was saved would have: slots, numbers and seeds are the same.

use std::sync::Arc;

use super::TopSpec;
use super::carries::Carries;
use super::distinct::DistinctValues;
use super::gather::Gather;
use super::loss::Loss;
use super::plan::{TopPlan, is_dense};
use super::set::TopSet;
use super::sums::{Narrow, TopTable};
use crate::aggregate::key::is_packed;
use crate::aggregate::table::{ByteSet, DenseTable, Mixer, SumTable, WideKey};
use crate::codec::{DecodeError, Decoder, Encoder};

impl TopSet {
    /// Writes all tables.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.seed);
        out.count(self.tables.len());
        for table in &self.tables {
            out.text(&form(&table.spec));
            table.save(out);
        }
    }

    /// Reads the tables of these questions; `bytes_max` as in [`Self::new`].
    ///
    /// # Errors
    /// If the bytes are not the tables of these questions.
    pub fn load(
        specs: &[TopSpec],
        bytes_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        Self::load_of(Arc::new(TopPlan::new(specs)), bytes_max, from)
    }

    /// Reads the tables of questions that were planned for before.
    pub(in crate::aggregate) fn load_of(
        plan: Arc<TopPlan>,
        bytes_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        from.version("tops", 1..=1)?;
        let seed = from.u64()?;
        if from.count(1)? != plan.tops.len() {
            return Err(DecodeError::Invalid("number of tops"));
        }
        let mut tables = Vec::with_capacity(plan.tops.len());
        for (top, share) in plan.tops.iter().zip(Self::shares(&plan, bytes_max)) {
            if from.text()? != form(&top.spec) {
                return Err(DecodeError::Invalid("top of this question"));
            }
            tables.push(TopTable::load(top.spec.clone(), seed, share, from)?);
        }
        Ok(Self { plan, seed, bytes_max, tables, gather: Gather::default() })
    }
}

/// What a table counts, as text.
fn form(spec: &TopSpec) -> String {
    let names: Vec<&str> = spec.by.iter().map(crate::record::Slot::name).collect();
    let window = spec.window_seconds.unwrap_or(0);
    format!("{} by {} in {window} s", names.join(","), spec.metric.name())
}

impl TopTable {
    fn save(&self, out: &mut Encoder) {
        match &self.narrow {
            Narrow::Hashed(table) => table.save(out),
            Narrow::Dense(table) => table.save(out),
        }
        self.wide.save(out);
        self.long_keys.save(out);
        self.carries.save(out);
        self.loss.save(out);
        if let Some(values) = &self.distinct {
            values.save(out);
        }
    }

    fn load(
        spec: TopSpec,
        seed: u64,
        bytes_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let mut table = Self::new(spec, seed, bytes_max);
        let mixer = Mixer::with_seed(seed);
        table.narrow = if is_dense(&table.spec) {
            Narrow::Dense(DenseTable::load(from)?)
        } else {
            Narrow::Hashed(SumTable::load(mixer, from)?)
        };
        table.wide = SumTable::load(mixer, from)?;
        table.long_keys = ByteSet::load(seed, from)?;
        let last_number = u32::try_from(table.len());
        table.last_number = last_number.map_err(|_| DecodeError::Invalid("number of keys"))?;
        table.carries = Carries::load(table.last_number, from)?;
        table.loss = Loss::load(table.last_number, from)?;
        if table.distinct.is_some() {
            table.distinct = Some(DistinctValues::load(seed, table.last_number, from)?);
        }
        table.check()?;
        Ok(table)
    }

    /// That every key has a number of its own and can be unpacked.
    fn check(&self) -> Result<(), DecodeError> {
        let mut seen = vec![false; self.len() + 1];
        let mut is_valid = true;
        self.for_each(|_, counts| match seen.get_mut(counts.number as usize) {
            Some(seen) => is_valid &= !std::mem::replace(seen, true),
            None => is_valid = false,
        });
        let is_key = |key: &WideKey| {
            let is_kept =
                key.long().is_none_or(|(place, length)| self.long_keys.has(place, length));
            is_kept
                && is_packed(self.packed(key), &self.spec.by, self.spec.window_seconds.is_some())
        };
        is_valid &= self.wide.iter().all(|(key, _)| is_key(key));
        if is_valid { Ok(()) } else { Err(DecodeError::Invalid("top")) }
    }
}
