//! Objects that are found by listing keys from time to time, without a queue.
//!
//! ```text
//! days:   … done … │ late_days before today │ today
//!         horizon ─┘ └── listed at every poll ────┘
//! ```
//!
//! Keys below folders of days are listed day by day, oldest first, so that event time moves in all partitions (accounts,
//! regions) together. The horizon is the position: days before it are never looked at again. Within it an object is
//! known by its name, so keys that appear late are read, and none twice. Other keys are listed as a whole at every poll.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::failure::{Failure, FailureKind};
use super::feed::Feed;
use super::layout::{Day, DayStyle, day_of, order_of};
use super::object::{Library, S3Object};
use super::readers::{Outcome, REMEMBERED_MAX, Readers, Standing};
use super::settings::ListingSettings;
use super::store::{Depth, NoAnswer, Page};
use super::url::S3_SCHEME;
use super::{Desk, Fatal};
use crate::framing::{ChunkData, ChunkEvent, InputInfo, Payload, Position};
use crate::record::TextSlice;

/// Time between two looks for new accounts and regions.
const WALK_INTERVAL: Duration = Duration::from_mins(10);
/// Folders within one another that are looked into for days.
const DEPTH_MAX: usize = 16;
/// Partitions at most: accounts times regions.
const PARTITIONS_MAX: usize = 10_000;
/// How soon a request to stop is seen.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// How flow logs call themselves below `AWSLogs/ACCOUNT/`; beside them lie other logs.
const SERVICE_FOLDERS: [&str; 3] =
    ["vpcflowlogs/", "aws-service=vpcflowlogs/", "service=vpcflowlogs/"];

/// A prefix that is listed for as long as the run lasts.
pub(super) struct Listing {
    desk: Arc<Desk>,
    settings: ListingSettings,
    readers: Readers,
    /// Days before it are done.
    horizon: Option<Day>,
    /// Objects that are not safe, and to which days they belong.
    open_days: BTreeMap<Arc<str>, Day>,
    map: Map,
    walk_at: Instant,
    /// Whether anything was listed: what is refused before that is refused for good.
    has_listed: bool,
}

/// What lies below the prefix.
#[derive(Debug, Default)]
struct Map {
    /// With what keys begin before the folders of days, and how those are written.
    partitions: Vec<(String, DayStyle)>,
    /// The first day that any of them has.
    first_day: Option<Day>,
    /// Objects that lie in no day.
    undated: Vec<S3Object>,
}

type Lister<T> = JoinHandle<Result<T, NoAnswer>>;

impl Listing {
    pub(super) fn new(desk: Arc<Desk>, settings: ListingSettings) -> Self {
        Self {
            readers: Readers::new(Arc::clone(&desk)),
            desk,
            settings,
            horizon: None,
            open_days: BTreeMap::new(),
            map: Map::default(),
            walk_at: Instant::now(),
            has_listed: false,
        }
    }

    /// Reads what it finds until a stop is requested or nothing more can be done.
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        let url = format!("{S3_SCHEME}{}/{}", self.settings.bucket, self.settings.prefix);
        let name: Arc<str> = format!("{url} (listing)").into();
        let info = InputInfo { file_start: None, ..self.desk.info(&name) };
        self.horizon = info.resume.as_ref().and_then(|point| point.position.as_day()).map(Day);
        let mut feed = Feed::new(self.desk.inputs.next(), self.desk.to.clone());
        let hung_up = |_| Fatal::HungUp;
        feed.tell(ChunkEvent::Open(info)).await.map_err(hung_up)?;
        let end = self.watch(&mut feed).await;
        if matches!(end, Err(Fatal::HungUp)) {
            return end;
        }
        self.readers.give_up_waiting();
        while self.readers.reading_count() > 0 {
            if let Some(end) = self.readers.step().await? {
                self.object_ended(end);
            }
        }
        feed.tell(ChunkEvent::Stop).await.map_err(hung_up)?;
        end
    }

    async fn watch(&mut self, feed: &mut Feed) -> Result<(), Fatal> {
        while !self.desk.stop.is_requested() {
            let next_poll = Instant::now() + self.settings.poll_interval;
            self.look().await?;
            loop {
                self.move_horizon(feed).await?;
                if self.desk.stop.is_requested() || Instant::now() >= next_poll {
                    break;
                }
                let wake_at = next_poll.min(Instant::now() + STOP_CHECK);
                tokio::select! {
                    end = self.readers.next() => { let end = end?; self.object_ended(end); }
                    () = sleep_until(wake_at) => {}
                }
            }
        }
        Ok(())
    }

    /// Lists what may be new, and has it read.
    async fn look(&mut self) -> Result<(), Fatal> {
        if Instant::now() >= self.walk_at || !self.map.undated.is_empty() {
            self.walk_at = Instant::now() + WALK_INTERVAL;
            let (library, settings) = (Arc::clone(&self.desk.library), self.settings.clone());
            let walk = tokio::spawn(async move { walk(&library, &settings).await });
            let Some(map) = self.await_listed(walk).await? else { return Ok(()) };
            self.map = map;
            for object in self.map.undated.clone() {
                self.add(object);
            }
        }
        let today = Day::of(self.desk.clock.now());
        let since = self.settings.since.map(Day::of);
        let Some(first) = self.horizon.or(since.max(self.map.first_day)) else { return Ok(()) };
        let mut key_count = 0;
        let mut day = first;
        while day <= today && !self.desk.stop.is_requested() {
            let (library, settings) = (Arc::clone(&self.desk.library), self.settings.clone());
            let partitions = self.map.partitions.clone();
            let listing = async move { list_day(&library, &settings, &partitions, day).await };
            let Some(mut objects) = self.await_listed(tokio::spawn(listing)).await? else {
                return Ok(());
            };
            key_count += objects.len();
            if key_count > REMEMBERED_MAX && day >= today.plus(-i64::from(self.settings.late_days))
            {
                return Err(Fatal::Refused(format!(
                    "more than {REMEMBERED_MAX} objects lie within `late_days` of today, more than are remembered; lower `late_days`, narrow `prefix`, or use a queue"
                )));
            }
            objects.sort_by(|one, other| order_of(&one.key).cmp(&order_of(&other.key)));
            objects.into_iter().for_each(|object| self.add(object));
            // Earlier days first, and no more of them in memory than one.
            while self.readers.waiting_count() > self.desk.parallel
                && !self.desk.stop.is_requested()
            {
                let end = self.readers.next().await?;
                self.object_ended(end);
            }
            day = day.plus(1);
        }
        Ok(())
    }

    fn add(&mut self, object: S3Object) {
        let (name, day) = (object.name(), day_of(&object.key));
        if self.readers.add(object) == Standing::New {
            self.open_days.insert(name, day.unwrap_or(Day(i64::MAX)));
        }
    }

    /// Waits for a listing, while objects are read; `None` if there is none this time.
    async fn await_listed<T>(&mut self, mut listing: Lister<T>) -> Result<Option<T>, Fatal> {
        let listed = loop {
            tokio::select! {
                listed = &mut listing => break listed,
                end = self.readers.next() => { let end = end?; self.object_ended(end); }
            }
        };
        match listed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
            Ok(listed) => {
                self.has_listed = true;
                Ok(Some(listed))
            }
            Err(NoAnswer::Stopped) => Ok(None),
            Err(NoAnswer::Failed(Failure { message, .. })) if !self.has_listed => {
                Err(Fatal::Refused(format!("cannot list `{}`: {message}", self.settings.bucket)))
            }
            Err(NoAnswer::Failed(Failure { message, .. })) => {
                tracing::warn!(
                    source = &*self.desk.source_name,
                    error = message,
                    "cannot list the bucket; it is tried again at the next poll"
                );
                Ok(None)
            }
        }
    }

    fn object_ended(&mut self, (name, outcome): (Arc<str>, Outcome)) {
        match outcome {
            Outcome::Safe => {
                self.open_days.remove(&name);
            }
            Outcome::Stopped => {}
            Outcome::Unavailable(failure) => {
                tracing::error!(
                    source = &*self.desk.source_name,
                    object = &*name,
                    error = failure.message,
                    "an object can't be read; it is tried again at the next poll if it is still there"
                );
                // What is denied holds the horizon until a person acts.
                if failure.kind == FailureKind::Gone {
                    self.open_days.remove(&name);
                }
            }
        }
    }

    /// Says that days are done with, once their late keys had their time and all of theirs is safe.
    async fn move_horizon(&mut self, feed: &mut Feed) -> Result<(), Fatal> {
        let today = Day::of(self.desk.clock.now());
        let late_days = i64::from(self.settings.late_days);
        let first_open = self.open_days.values().min().copied();
        let horizon = first_open.map_or(today, |day| day.min(today)).min(today.plus(-late_days));
        let is_new = self.horizon.is_none_or(|known| horizon > known);
        // Before anything was listed nothing is done with.
        if !is_new || self.map.partitions.is_empty() || self.readers.waiting_count() > 0 {
            return Ok(());
        }
        self.horizon = Some(horizon);
        let payload = Payload::Lines(TextSlice::default());
        let position = Some(Position::before_day(horizon.0));
        let piece = ChunkData { payload, bytes_read: 0, position };
        feed.put(piece).await.map_err(|_| Fatal::HungUp)
    }
}

/// Finds partitions, and objects that are in none.
async fn walk(library: &Library, settings: &ListingSettings) -> Result<Map, NoAnswer> {
    let mut map = Map::default();
    let mut folders = vec![(settings.prefix.clone(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let (mut objects, mut inner) = (Vec::new(), Vec::new());
        let mut take = |page: Page| {
            objects.extend(page.objects);
            inner.extend(page.folders);
            ControlFlow::Continue(())
        };
        library.store.list(&settings.bucket, &folder, Depth::OneLevel, &mut take).await?;
        let name_of =
            |inner: &str| inner.trim_end_matches('/').rsplit('/').next().map(str::to_owned);
        let style = inner.iter().find_map(|inner| DayStyle::of_year(&name_of(inner)?));
        map.undated.extend(objects);
        let Some(style) = style else {
            let inner = inner.into_iter().filter(|inner| may_hold_flow_logs(inner));
            folders.extend(
                inner.map(|inner| (inner, depth + 1)).filter(|(_, depth)| *depth < DEPTH_MAX),
            );
            continue;
        };
        if map.partitions.len() >= PARTITIONS_MAX {
            let message = format!(
                "there are more than {PARTITIONS_MAX} accounts and regions; narrow `prefix`"
            );
            return Err(NoAnswer::Failed(Failure { kind: FailureKind::Refused, message }));
        }
        let day = first_day(library, settings, inner).await?;
        map.first_day = match (map.first_day, day) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        map.partitions.push((folder, style));
    }
    map.partitions.sort();
    Ok(map)
}

/// Whether a folder is not that of another service's logs.
fn may_hold_flow_logs(folder: &str) -> bool {
    let Some((_, below)) = folder.rsplit_once("AWSLogs/") else { return true };
    let mut parts = below.splitn(2, '/');
    let (_account, service) = (parts.next(), parts.next().unwrap_or_default());
    // An organization's id stands between in some services' layouts; flow logs have none.
    service.is_empty() || SERVICE_FOLDERS.iter().any(|folder| service.starts_with(folder))
}

/// The first day below folders of years.
async fn first_day(
    library: &Library,
    settings: &ListingSettings,
    years: Vec<String>,
) -> Result<Option<Day>, NoAnswer> {
    let Some(mut folder) = years.into_iter().min() else { return Ok(None) };
    for _ in ["month", "day"] {
        let mut first: Option<String> = None;
        let mut take = |page: Page| {
            first = first.take().into_iter().chain(page.folders).min();
            ControlFlow::Continue(())
        };
        library.store.list(&settings.bucket, &folder, Depth::OneLevel, &mut take).await?;
        match first {
            Some(first) => folder = first,
            None => return Ok(None),
        }
    }
    Ok(day_of(&format!("{folder}x")))
}

/// All objects of a day.
async fn list_day(
    library: &Library,
    settings: &ListingSettings,
    partitions: &[(String, DayStyle)],
    day: Day,
) -> Result<Vec<S3Object>, NoAnswer> {
    let mut objects = Vec::new();
    for (partition, style) in partitions {
        let Some(folders) = style.folders(day) else { continue };
        let prefix = format!("{partition}{folders}");
        let mut take = |page: Page| {
            objects.extend(page.objects);
            ControlFlow::Continue(())
        };
        library.store.list(&settings.bucket, &prefix, Depth::All, &mut take).await?;
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::may_hold_flow_logs;

    #[test]
    fn other_services_are_left_alone() {
        let check = |folder, expected| assert_eq!(may_hold_flow_logs(folder), expected, "{folder}");
        check("AWSLogs/", true);
        check("x/AWSLogs/123456789012/", true);
        check("AWSLogs/123456789012/vpcflowlogs/", true);
        check("AWSLogs/123456789012/vpcflowlogs/eu-west-1/", true);
        check("AWSLogs/aws-account-id=1/aws-service=vpcflowlogs/", true);
        check("AWSLogs/123456789012/CloudTrail/", false);
        check("elsewhere/CloudTrail/", true);
    }
}
