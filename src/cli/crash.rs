//! What a panic leaves behind: one line in the log, in the form of the others, and what could still be
//! saved.
//!
//! A panic goes on in the thread that joins the one that panicked, so that the process ends with exit code
//! 101; that way on, the hook is not asked again.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Level;

use super::logs::{Content, Logs};

/// What a run wants done when a thread panics.
type Rescue = Box<dyn Fn() + Send>;

/// Where a run says what to do when a thread panics; clones are the same place.
#[derive(Clone, Default)]
pub(crate) struct Crash(Arc<Mutex<Option<Rescue>>>);

impl Crash {
    /// Makes every panic a line of the log, followed by the rescue that is set then.
    pub(crate) fn install(logs: &Logs) -> Self {
        let crash = Self::default();
        std::panic::set_hook(crash.hook(logs.clone()));
        crash
    }

    /// Sets what is done after each panic, by the thread that panicked: it must not panic, wait for
    /// other threads, or take long. It replaces what was set before.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the flush of the journal is to be the first")
    )]
    pub(crate) fn set_rescue(&self, rescue: impl Fn() + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(rescue));
    }

    /// The hook.
    fn hook(&self, logs: Logs) -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
        let crash = self.clone();
        Box::new(move |info| {
            logs.finish();
            logs.write(Level::ERROR, &content(info));
            // While one thread rescues, another that panics leaves it to that one.
            if let Ok(rescue) = crash.0.try_lock()
                && let Some(rescue) = &*rescue
            {
                rescue();
            }
        })
    }
}

/// What there is to say of a panic; with the stack where `RUST_BACKTRACE` asks for it.
fn content(info: &PanicHookInfo<'_>) -> Content {
    let reason = info.payload_as_str().unwrap_or("a panic without words");
    let thread = std::thread::current();
    let location = info.location().map_or_else(String::new, ToString::to_string);
    let content = Content::new("a thread panicked; this is a fault of the program")
        .with("thread", thread.name().unwrap_or("without name"))
        .with("location", location)
        .with("reason", reason);
    let backtrace = Backtrace::capture();
    if backtrace.status() != BacktraceStatus::Captured {
        return content;
    }
    content.with("backtrace", backtrace.to_string())
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::logs::{LogOptions, memory};
    use super::*;

    #[test]
    fn a_panic_is_told_once_and_what_can_be_saved_is_saved() {
        let (logs, _, written) = memory::logs(LogOptions::default());
        let crash = Crash::default();
        let saved = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&saved);
        crash.set_rescue(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        // The hook is the process's; other tests may run, but only this thread has this name.
        let before = std::panic::take_hook();
        let ours = crash.hook(logs);
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some("shard-7") { ours(info) } else { before(info) }
        }));
        let thread = std::thread::Builder::new()
            .name("shard-7".to_owned())
            .spawn(|| panic!("offset {} is beyond", 5))
            .unwrap();
        let payload = thread.join().unwrap_err();
        let again = std::panic::catch_unwind(AssertUnwindSafe(|| {
            std::panic::resume_unwind(payload);
        }));
        assert!(again.is_err());
        let _ours = std::panic::take_hook();
        let told = written.take();
        assert_eq!(told.lines().count(), 1, "{told}");
        for part in
            ["ERROR a thread panicked", "thread=shard-7", "crash.rs:", "\"offset 5 is beyond\""]
        {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(saved.load(Ordering::SeqCst), 1);
    }
}
