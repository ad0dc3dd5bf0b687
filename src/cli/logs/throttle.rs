//! How many events one place in the code may log: some per window of time, and then one line that says how
//! many more there were.
//!
//! A window begins with a place's first event. What was suppressed is told when the window is over, by
//! whoever logs or asks next; there is no timer here. Places are as many as the code has.

use std::collections::HashMap;
use std::time::Duration;

use tracing::Level;

/// Length of a window.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// Counts the events of each place in the code.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Events of a place per window; 0 is no limit.
    events_max: u32,
    sites: HashMap<usize, Site>,
    /// Before this moment no window with suppressed events ends.
    next_end: Duration,
}

/// A place in the code while its window is open.
#[derive(Debug)]
struct Site {
    opened: Duration,
    written_count: u32,
    suppressed: Option<Suppressed>,
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is written.
    Write,
    /// It is counted, and as it is the first of its window, [`Throttle::describe`] wants to know it.
    SuppressFirst,
    /// It is counted.
    Suppress,
}

/// What was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suppressed {
    /// Events.
    pub(crate) count: u64,
    /// Of this level.
    pub(crate) level: Level,
    /// What the first of them said.
    pub(crate) message: String,
}

impl Throttle {
    /// A throttle that has seen nothing.
    pub(crate) fn new(events_max: u32) -> Self {
        Self { events_max, sites: HashMap::new(), next_end: Duration::MAX }
    }

    /// Changes the limit from the next event on.
    pub(crate) const fn set_events_max(&mut self, events_max: u32) {
        self.events_max = events_max;
    }

    /// What becomes of an event of the place `site` at the moment `now`.
    ///
    /// Ask [`Self::take_ended`] first, or an ended window swallows its count.
    pub(crate) fn judge(&mut self, site: usize, level: Level, now: Duration) -> Verdict {
        if self.events_max == 0 {
            return Verdict::Write;
        }
        let begun = || Site { opened: now, written_count: 0, suppressed: None };
        let site = self.sites.entry(site).or_insert_with(begun);
        if now.saturating_sub(site.opened) >= WINDOW {
            debug_assert!(site.suppressed.is_none(), "ended windows are taken first");
            *site = begun();
        }
        if site.written_count < self.events_max {
            site.written_count += 1;
            return Verdict::Write;
        }
        self.next_end = self.next_end.min(site.opened + WINDOW);
        match &mut site.suppressed {
            Some(suppressed) => {
                suppressed.count += 1;
                Verdict::Suppress
            }
            none => {
                *none = Some(Suppressed { count: 1, level, message: String::new() });
                Verdict::SuppressFirst
            }
        }
    }

    /// What the first suppressed event of the place `site` said.
    pub(crate) fn describe(&mut self, site: usize, message: String) {
        if let Some(suppressed) =
            self.sites.get_mut(&site).and_then(|site| site.suppressed.as_mut())
        {
            suppressed.message = message;
        }
    }

    /// What was suppressed in windows that ended by the moment `now`, each told once.
    pub(crate) fn take_ended(&mut self, now: Duration) -> Vec<Suppressed> {
        if now < self.next_end { Vec::new() } else { self.take(now) }
    }

    /// What was suppressed in all windows, as at the end of the process.
    pub(crate) fn take_all(&mut self) -> Vec<Suppressed> {
        self.take(Duration::MAX)
    }

    fn take(&mut self, now: Duration) -> Vec<Suppressed> {
        let mut ended: Vec<(Duration, Suppressed)> = Vec::new();
        self.next_end = Duration::MAX;
        for site in self.sites.values_mut() {
            let end = site.opened + WINDOW;
            if end <= now {
                ended.extend(site.suppressed.take().map(|suppressed| (end, suppressed)));
            } else if site.suppressed.is_some() {
                self.next_end = self.next_end.min(end);
            }
        }
        ended.sort_by(|(a_end, a), (b_end, b)| (a_end, &a.message).cmp(&(b_end, &b.message)));
        ended.into_iter().map(|(_, suppressed)| suppressed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logs `count` events of `site` at second `second`; how many are written, and what is told before.
    fn log(throttle: &mut Throttle, site: usize, second: u64, count: u32) -> (u32, Vec<u64>) {
        let now = Duration::from_secs(second);
        let told = throttle.take_ended(now).into_iter().map(|ended| ended.count).collect();
        let mut written_count = 0;
        for index in 0..count {
            match throttle.judge(site, Level::WARN, now) {
                Verdict::Write => written_count += 1,
                Verdict::SuppressFirst => {
                    throttle.describe(site, format!("event {index} of {site}"));
                }
                Verdict::Suppress => {}
            }
        }
        (written_count, told)
    }

    #[test]
    fn a_place_gets_its_share_of_each_window() {
        let mut throttle = Throttle::new(3);
        assert_eq!(log(&mut throttle, 1, 100, 2), (2, vec![]));
        assert_eq!(log(&mut throttle, 1, 105, 1_000), (1, vec![]));
        assert_eq!(log(&mut throttle, 2, 109, 1), (1, vec![]), "another place has its own");
        assert_eq!(log(&mut throttle, 2, 110, 5), (2, vec![999]), "told when its window is over");
        assert_eq!(log(&mut throttle, 1, 111, 4), (3, vec![]), "once");
        assert_eq!(log(&mut throttle, 1, 119, 1), (0, vec![3]), "the other one's");
        assert_eq!(log(&mut throttle, 1, 121, 0), (0, vec![2]));
        assert_eq!(throttle.take_all(), []);
    }

    #[test]
    fn what_is_left_is_told_at_the_end() {
        let mut throttle = Throttle::new(1);
        log(&mut throttle, 1, 0, 3);
        let told = throttle.take_all();
        let message = "event 1 of 1".to_owned();
        assert_eq!(told, [Suppressed { count: 2, level: Level::WARN, message }]);
        assert_eq!(throttle.take_all(), []);
    }

    #[test]
    fn zero_is_no_limit() {
        let mut throttle = Throttle::new(0);
        assert_eq!(log(&mut throttle, 1, 0, 10_000), (10_000, vec![]));
        throttle.set_events_max(1);
        assert_eq!(log(&mut throttle, 1, 1, 10), (1, vec![]));
    }
}
