//! What a panic leaves behind: one line in the log, in the form of the others.
//!
//! A panic goes on in the thread that joins the one that panicked, so that the process ends with exit code
//! 101; that way on, the hook is not asked again. Meanwhile the channels of the pipeline close one after the other,
//! and the deliverer, which comes last, makes durable what it has.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use tracing::Level;

use super::logs::{Content, Logs};

/// Makes every panic a line of the log.
pub(crate) fn install(logs: &Logs) {
    std::panic::set_hook(hook(logs.clone()));
}

fn hook(logs: Logs) -> Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync> {
    Box::new(move |info| {
        logs.finish();
        logs.write(Level::ERROR, &content(info));
    })
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

    use super::super::logs::{LogOptions, memory};
    use super::*;

    #[test]
    fn a_panic_is_told_once() {
        let (logs, _, written) = memory::logs(LogOptions::default());
        // The hook is the process's; other tests may run, but only this thread has this name.
        let before = std::panic::take_hook();
        let ours = hook(logs);
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
    }
}
