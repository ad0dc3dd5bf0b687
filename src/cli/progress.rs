//! A progress bar on standard error, when that is a terminal.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

/// A function to be told how many of `total_bytes` were read.
pub(crate) fn bytes_bar(total_bytes: u64) -> Box<dyn FnMut(u64) + Send> {
    if !std::io::stderr().is_terminal() {
        return Box::new(|_| {});
    }
    let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
    let bar = ProgressBar::new(total_bytes);
    bar.set_style(ProgressStyle::with_template(style).expect("the template is a constant"));
    let finish = FinishOnDrop(bar);
    Box::new(move |bytes| finish.0.set_position(bytes))
}

/// Takes the bar off the terminal when the run is over.
struct FinishOnDrop(ProgressBar);

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
