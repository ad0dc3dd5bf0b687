//! What is usual for an interface at an hour of the day: a seasonal baseline that outliers don't move.
//!
//! Values per minute are smoothed (EWMA), sampled every five minutes, and put together for each hour: their
//! median, their median deviation from it, and the highest. What is usual at an hour is the median of the
//! medians of that hour on the eight days before; its spread is the greater of how far days differ and of how
//! much the hour itself varies (both as median deviations). Eight days hold every day of the week once.
//! Medians, and not the mean or Holt-Winters, because a day of attack or of standstill must not become what is
//! usual; and no step of a day's course is missed, because the hours before and after count too.
//!
//! An hour takes 40 bytes for six series; hours in which no series comes near what would be raised take one
//! bit. Values are kept with eight binary digits, which is much less than the spread that is assumed.

use super::saved::Saved;
use crate::codec::{DecodeError, Decoder, Encoder};

/// Bytes, packets and flows, received and sent.
pub(super) const SERIES: usize = 6;

/// Days that are remembered.
pub(super) const DAYS: i64 = 8;

const HOURS: i64 = DAYS * 24;

/// A bit for each of [`HOURS`].
const HOUR_WORDS: usize = 3;

const _: () = assert!(HOURS == 192 && HOUR_WORDS * 64 == 192);

/// How much a minute counts in the smoothed value.
const SMOOTHING: f64 = 0.1;

/// Time between two samples of an hour, in seconds.
const SAMPLE_SECONDS: i64 = 300;

const SAMPLES_MAX: usize = 3600 / 300;

/// How far a value is taken to vary at least, as a part of it.
pub(super) const SPREAD_MIN: f64 = 0.05;

/// A number that isn't negative, with eight binary digits: the upper half of its single-precision form, whose
/// order is that of the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Short(u16);

impl Short {
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is wanted")]
    fn of(value: f64) -> Self {
        let bits = (value.max(0.0) as f32).to_bits();
        Self((bits >> 16) as u16)
    }

    fn value(self) -> f64 {
        let value = f32::from_bits(u32::from(self.0) << 16);
        if value.is_finite() { f64::from(value).max(0.0) } else { 0.0 }
    }
}

type Shorts = [Short; SERIES];

/// What an hour was like.
#[derive(Clone, Copy, Debug)]
struct Hour {
    /// Hours since 1970.
    number: i64,
    middle: Shorts,
    spread: Shorts,
    peak: Shorts,
}

/// What is usual at an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usual {
    /// The median of the days, at that hour or the one before or after, whichever is highest.
    pub(super) high: f64,
    /// Its spread.
    pub(super) high_spread: f64,
    /// The median of the days, at that hour or the one before or after, whichever is lowest.
    pub(super) low: f64,
    /// Its spread.
    pub(super) low_spread: f64,
    /// The lowest of any of these days and hours.
    pub(super) lowest: f64,
    /// The highest at any hour.
    pub(super) peak: f64,
}

/// The past of one interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    /// `None` before the first value.
    smoothed: Option<[f64; SERIES]>,
    /// The hour that goes on, in hours since 1970.
    hour: i64,
    samples: Vec<Shorts>,
    peak: Shorts,
    /// Which fifth minute was sampled last.
    sampled: Option<i64>,
    /// A bit for each of the last hours before `hour`, by its number.
    seen: [u64; HOUR_WORDS],
    /// Those that came near what would be raised, in order.
    hours: Vec<Hour>,
    /// How many days have seen this hour, and what is usual then.
    usual: (u32, [Usual; SERIES]),
}

/// Smoothed and plain values per minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) smoothed: [f64; SERIES],
    pub(super) plain: [f64; SERIES],
}

impl Baseline {
    /// Takes values of a pane that starts at `start_seconds` and lasts `pane_seconds`, which is not before one that
    /// was taken. Hours whose values are all below `quiet_below` are as if nothing had been there.
    pub(super) fn take(
        &mut self,
        start_seconds: i64,
        pane_seconds: i64,
        plain: [f64; SERIES],
        quiet_below: &[f64; SERIES],
    ) -> Now {
        let hour = start_seconds.div_euclid(3600);
        if self.smoothed.is_none() {
            self.hour = hour;
        }
        if hour > self.hour {
            self.end_hour(hour, quiet_below);
        }
        let weight = if pane_seconds == 60 {
            SMOOTHING
        } else {
            1.0 - (1.0 - SMOOTHING).powf(pane_seconds as f64 / 60.0)
        };
        let mut smoothed = self.smoothed.unwrap_or(plain);
        for (smoothed, plain) in smoothed.iter_mut().zip(plain) {
            *smoothed += weight * (plain - *smoothed);
        }
        self.smoothed = Some(smoothed);
        let sample = smoothed.map(Short::of);
        for (peak, sample) in self.peak.iter_mut().zip(sample) {
            *peak = (*peak).max(sample);
        }
        let number = start_seconds.div_euclid(SAMPLE_SECONDS);
        if self.sampled != Some(number) && self.samples.len() < SAMPLES_MAX {
            self.sampled = Some(number);
            self.samples.push(sample);
        }
        Now { smoothed, plain }
    }

    /// How many of the days before have seen this hour, and what is usual in it.
    pub(super) const fn usual(&self) -> (u32, &[Usual; SERIES]) {
        (self.usual.0, &self.usual.1)
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.hours.capacity() * size_of::<Hour>()
            + self.samples.capacity() * size_of::<Shorts>()
    }

    fn end_hour(&mut self, next: i64, quiet_below: &[f64; SERIES]) {
        let is_quiet = self.peak.iter().zip(quiet_below).all(|(peak, below)| peak.value() < *below);
        if !self.samples.is_empty() {
            self.mark(self.hour, true);
            if !is_quiet {
                let ended = self.ended_hour();
                self.hours.push(ended);
            }
        }
        self.samples.clear();
        self.peak = Shorts::default();
        // Hours without a value, of which no more than all are forgotten.
        for hour in self.hour.saturating_add(1).max(next.saturating_sub(HOURS))..next {
            self.mark(hour, false);
        }
        self.hour = next;
        let oldest = next.saturating_sub(HOURS);
        let forgotten = self.hours.partition_point(|hour| hour.number < oldest);
        self.hours.drain(..forgotten);
        self.usual = self.usual_now();
        // The bit of the hour that begins is that of eight days ago, which was looked at for the last time.
        self.mark(next, false);
    }

    fn ended_hour(&self) -> Hour {
        let mut ended = Hour {
            number: self.hour,
            middle: Shorts::default(),
            spread: Shorts::default(),
            peak: self.peak,
        };
        for series in 0..SERIES {
            let mut values: Vec<f64> =
                self.samples.iter().map(|sample| sample[series].value()).collect();
            let (middle, spread) = middle_and_spread(&mut values);
            ended.middle[series] = Short::of(middle);
            ended.spread[series] = Short::of(spread);
        }
        ended
    }

    fn bit(hour: i64) -> (usize, u64) {
        let place = usize::try_from(hour.rem_euclid(HOURS)).expect("below HOURS");
        (place / 64, 1 << (place % 64))
    }

    fn mark(&mut self, hour: i64, is_seen: bool) {
        let (word, bit) = Self::bit(hour);
        if is_seen {
            self.seen[word] |= bit;
        } else {
            self.seen[word] &= !bit;
        }
    }

    fn is_seen(&self, hour: i64) -> bool {
        let (word, bit) = Self::bit(hour);
        self.seen[word] & bit != 0
    }

    fn usual_now(&self) -> (u32, [Usual; SERIES]) {
        let mut usual = [Usual::default(); SERIES];
        let mut days = 0;
        let mut is_first = true;
        for beside in [0, -1, 1] {
            let seen = self.same_hours(self.hour.saturating_add(beside));
            if beside == 0 {
                days = u32::try_from(seen.len()).expect("at most eight");
            }
            if seen.is_empty() {
                continue;
            }
            for (series, usual) in usual.iter_mut().enumerate() {
                let value = |day: Option<&Hour>, part: fn(&Hour) -> &Shorts| {
                    day.map_or(0.0, |hour| part(hour)[series].value())
                };
                let mut middles: Vec<f64> =
                    seen.iter().map(|day| value(*day, |hour| &hour.middle)).collect();
                let mut spreads: Vec<f64> =
                    seen.iter().map(|day| value(*day, |hour| &hour.spread)).collect();
                let lowest = middles.iter().copied().fold(f64::INFINITY, f64::min);
                let (middle, of_days) = middle_and_spread(&mut middles);
                let spread = of_days.max(median(&mut spreads));
                if is_first || middle > usual.high {
                    (usual.high, usual.high_spread) = (middle, spread);
                }
                if is_first || middle < usual.low {
                    (usual.low, usual.low_spread) = (middle, spread);
                }
                usual.lowest = if is_first { lowest } else { usual.lowest.min(lowest) };
            }
            is_first = false;
        }
        for hour in &self.hours {
            for (usual, peak) in usual.iter_mut().zip(hour.peak) {
                usual.peak = usual.peak.max(peak.value());
            }
        }
        (days, usual)
    }

    /// That hour on each of the days before on which it was seen; `None` where it was quiet.
    fn same_hours(&self, hour: i64) -> Vec<Option<&Hour>> {
        (1..=DAYS)
            .map(|day| hour.saturating_sub(day * 24))
            .filter(|past| *past < self.hour && *past >= self.hour.saturating_sub(HOURS))
            .filter(|past| self.is_seen(*past))
            .map(|past| {
                let found = self.hours.binary_search_by_key(&past, |hour| hour.number);
                found.ok().map(|place| &self.hours[place])
            })
            .collect()
    }
}

/// The median; of an even number the lower of both in the middle. 0 if there is none.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// The median, and the median deviation from it.
fn middle_and_spread(values: &mut [f64]) -> (f64, f64) {
    let middle = median(values);
    values.iter_mut().for_each(|value| *value = (*value - middle).abs());
    (middle, median(values))
}

fn save_shorts(shorts: &Shorts, out: &mut Encoder) {
    shorts.iter().for_each(|short| out.u16(short.0));
}

fn load_shorts(from: &mut Decoder<'_>) -> Result<Shorts, DecodeError> {
    let mut shorts = Shorts::default();
    for short in &mut shorts {
        short.0 = from.u16()?;
    }
    Ok(shorts)
}

impl Saved for Baseline {
    const BYTES_MIN: usize = 54;

    fn save(&self, out: &mut Encoder) {
        out.option(self.smoothed.as_ref(), |out, smoothed| {
            smoothed.iter().for_each(|value| out.u64(value.to_bits()));
        });
        out.i64(self.hour);
        save_shorts(&self.peak, out);
        out.option(self.sampled, Encoder::i64);
        self.seen.iter().for_each(|word| out.u64(*word));
        out.count(self.samples.len());
        self.samples.iter().for_each(|sample| save_shorts(sample, out));
        out.count(self.hours.len());
        for Hour { number, middle, spread, peak } in &self.hours {
            out.i64(*number);
            [middle, spread, peak].into_iter().for_each(|shorts| save_shorts(shorts, out));
        }
        out.u32(self.usual.0);
        for usual in &self.usual.1 {
            let Usual { high, high_spread, low, low_spread, lowest, peak } = *usual;
            for value in [high, high_spread, low, low_spread, lowest, peak] {
                out.u64(value.to_bits());
            }
        }
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let number = |from: &mut Decoder<'_>| Ok(f64::from_bits(from.u64()?));
        let smoothed = from.option(|from| {
            let mut smoothed = [0.0; SERIES];
            for value in &mut smoothed {
                *value = number(from)?;
            }
            Ok(smoothed)
        })?;
        let mut loaded = Self { smoothed, hour: from.i64()?, ..Self::default() };
        loaded.peak = load_shorts(from)?;
        loaded.sampled = from.option(Decoder::i64)?;
        for word in &mut loaded.seen {
            *word = from.u64()?;
        }
        for _ in 0..from.count(2 * SERIES)? {
            loaded.samples.push(load_shorts(from)?);
        }
        for _ in 0..from.count(8 + 6 * SERIES)? {
            let number = from.i64()?;
            let (middle, spread) = (load_shorts(from)?, load_shorts(from)?);
            loaded.hours.push(Hour { number, middle, spread, peak: load_shorts(from)? });
        }
        if loaded.samples.len() > SAMPLES_MAX || !loaded.hours.is_sorted_by_key(|hour| hour.number)
        {
            return Err(DecodeError::Invalid("baseline"));
        }
        loaded.usual.0 = from.u32()?;
        for usual in &mut loaded.usual.1 {
            *usual = Usual {
                high: number(from)?,
                high_spread: number(from)?,
                low: number(from)?,
                low_spread: number(from)?,
                lowest: number(from)?,
                peak: number(from)?,
            };
        }
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is usual in the first series, by the definition: every hour's samples in a plain list.
    fn naive(hours: &[(i64, Vec<f64>)], now: i64) -> (u32, Usual) {
        let past: Vec<_> =
            hours.iter().filter(|(hour, _)| *hour < now && *hour >= now - HOURS).collect();
        let near = |value: f64| Short::of(value).value();
        let is_quiet = |samples: &[f64]| samples.iter().all(|sample| *sample < 100.0);
        let of_samples = |samples: &[f64]| {
            let (middle, spread) = middle_and_spread(&mut samples.to_vec());
            if is_quiet(samples) { (0.0, 0.0) } else { (near(middle), near(spread)) }
        };
        let mut usual: Option<Usual> = None;
        let mut days = 0;
        for beside in [0, -1, 1] {
            let before = |hour: i64| now + beside - hour;
            let is_same = |hour: i64| before(hour) >= 24 && before(hour) % 24 == 0;
            let same = past.iter().filter(|(hour, _)| is_same(*hour));
            let days_of: Vec<(f64, f64)> = same.map(|(_, samples)| of_samples(samples)).collect();
            if beside == 0 {
                days = u32::try_from(days_of.len()).unwrap();
            }
            if days_of.is_empty() {
                continue;
            }
            let mut middles: Vec<f64> = days_of.iter().map(|day| day.0).collect();
            let mut spreads: Vec<f64> = days_of.iter().map(|day| day.1).collect();
            let lowest = middles.iter().copied().fold(f64::MAX, f64::min);
            let (middle, of_days) = middle_and_spread(&mut middles);
            let spread = of_days.max(median(&mut spreads));
            let first = Usual {
                high: middle,
                high_spread: spread,
                low: middle,
                low_spread: spread,
                lowest,
                peak: 0.0,
            };
            let so_far = usual.get_or_insert(first);
            if middle > so_far.high {
                (so_far.high, so_far.high_spread) = (middle, spread);
            }
            if middle < so_far.low {
                (so_far.low, so_far.low_spread) = (middle, spread);
            }
            so_far.lowest = so_far.lowest.min(lowest);
        }
        let loud = past.iter().filter(|(_, samples)| !is_quiet(samples));
        let peak = loud.flat_map(|(_, samples)| samples).copied().fold(0.0, f64::max);
        let mut usual = usual.unwrap_or_default();
        usual.peak = peak;
        (days, usual)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_usual_is_that_of_plain_lists(
            hours in prop::collection::vec((1_i64..3, 1_usize..5, 0.0..400.0_f64), 1..400),
            gap in 0_i64..300,
            restart in 0_usize..400,
        ) {
            let mut baseline = Baseline::default();
            let mut listed: Vec<(i64, Vec<f64>)> = Vec::new();
            let mut hour = 1000;
            let below = [100.0; SERIES];
            for (number, (step, samples, value)) in hours.iter().enumerate() {
                hour += step + if number == 200 { gap } else { 0 };
                let mut of_hour = Vec::new();
                for sample in 0..*samples {
                    let start = hour * 3600 + i64::try_from(sample).unwrap() * 300;
                    let value = *value + 10.0 * sample as f64;
                    let mut plain = [0.0; SERIES];
                    plain[0] = value;
                    let now = baseline.take(start, 300, plain, &below);
                    prop_assert_eq!(now.plain.map(f64::to_bits), plain.map(f64::to_bits));
                    of_hour.push(Short::of(now.smoothed[0]).value());
                }
                let (days, usual) = baseline.usual();
                if number > 0 {
                    prop_assert_eq!((days, usual[0]), naive(&listed, hour));
                }
                listed.push((hour, of_hour));
                if number == restart {
                    let mut out = Encoder::default();
                    baseline.save(&mut out);
                    let bytes = out.into_bytes();
                    let mut from = Decoder::new(&bytes);
                    baseline = Baseline::load(&mut from).unwrap();
                    from.finish().unwrap();
                }
            }
        }
    }

    #[test]
    fn numbers_are_kept_with_eight_binary_digits() {
        for value in [0.0, 1.0, 3.0, 1e9, 123_456_789.0, 1e30] {
            let kept = Short::of(value).value();
            assert!(kept <= value && kept >= value * (1.0 - 1.0 / 128.0), "{value}: {kept}");
        }
        for odd in [Short::of(f64::NAN), Short::of(-1.0), Short(u16::MAX)] {
            assert!(odd.value() <= 0.0, "{odd:?}");
        }
    }
}
