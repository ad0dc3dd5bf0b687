//! Starting the program as a user would, and reading what it says.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program under test.
pub(crate) fn flowgauge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgauge"));
    command.current_dir(root());
    command
}

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project's own samples.
pub(crate) fn dataset(name: &str) -> PathBuf {
    root().join("datasets").join(name)
}

/// A folder of shared material beside the repository; `None`, with a note, where it is missing.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: there is no {}", path.display());
    None
}

/// What the program did with these arguments.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    flowgauge().args(arguments).stdin(Stdio::null()).output().expect("the program starts")
}

/// What the program did with these arguments and this standard input.
pub(crate) fn run_with_input<S: AsRef<std::ffi::OsStr>>(arguments: &[S], input: &[u8]) -> Output {
    let mut child = flowgauge()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was piped");
    let input = input.to_vec();
    let writer = std::thread::Builder::new()
        .spawn(move || stdin.write_all(&input))
        .expect("a thread for the input");
    let output = child.wait_with_output().expect("the program ends");
    // A program that ends early closes its input: that is not this function's concern.
    let _written = writer.join().expect("the writer ends").is_ok();
    output
}

/// The JSON summary of `analyze` with these arguments, which must succeed.
pub(crate) fn summary<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> serde_json::Value {
    let mut command = flowgauge();
    command.args(["analyze", "--output", "json"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).expect("the summary is JSON")
}

/// A summary without what depends on the clock and on the number of threads.
pub(crate) fn without_throughput(mut summary: serde_json::Value) -> serde_json::Value {
    summary.as_object_mut().expect("an object").remove("throughput");
    summary
}
