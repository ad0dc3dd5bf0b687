//! Rules of the repository that the compiler does not hold: layers, headers, sizes, unsafe code, and
//! what lies at the top level.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules by layer, highest first. A module may use those of lower layers and itself; modules of one
/// layer do not know each other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["pipeline", "serve"],
    &["config"],
    &["source", "sink", "detect", "query", "enrich"],
    &["aggregate", "checkpoint"],
    &["framing", "finding", "generate"],
    &["record"],
    &["metrics", "aws", "iam"],
    &["clock", "codec"],
    &["simd", "net", "units", "secret", "recent", "causes"],
];

/// What may lie at the top level beside names that start with a dot.
const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "datasets",
    // rustup reads no other name.
    "rust-toolchain.toml",
    "scripts",
    "src",
    "tests",
];

/// Names of modules that would take anything in.
const CATCH_ALL: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];

/// Most lines of a file before its tests.
const FILE_LINES_MAX: usize = 600;

/// Marks of unfinished work.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "FIXME", "XXX"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file below `src`.
struct SourceFile {
    /// Relative to `src`, with `/`.
    path: String,
    text: String,
}

impl SourceFile {
    /// The top-level module to which the file belongs; `lib` and `main` are modules of their own.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// The lines before the unit tests.
    fn lines_before_tests(&self) -> impl Iterator<Item = &str> {
        self.text.lines().take_while(|line| *line != "#[cfg(test)]")
    }
}

fn sources() -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut directories = vec![root().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("src can be listed") {
            let path: PathBuf = entry.expect("src can be listed").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                let relative = path.strip_prefix(root().join("src")).expect("it is below src");
                files.push(SourceFile { path: relative.display().to_string(), text });
            }
        }
    }
    assert!(files.len() > 10, "src was not found");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Fails with every line of `faults`.
#[track_caller]
fn check(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().rev().position(|modules| modules.contains(&module))
}

/// The top-level modules that `code` names by `crate::x` or `use crate::{x, y::z}`.
fn modules_used(code: &str) -> BTreeSet<String> {
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let code = code.lines().filter(|line| !is_comment(line)).collect::<Vec<_>>().join("\n");
    let mut used = BTreeSet::new();
    for (start, prefix) in code.match_indices("crate::") {
        let rest = code[start + prefix.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => used.extend(names_at_top(group)),
            None => used.extend(leading_name(rest)),
        }
    }
    used
}

/// The first name of each part of a group, up to its closing brace.
fn names_at_top(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut is_start = true;
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            _ if is_start && !character.is_whitespace() => {
                names.extend(leading_name(&group[index..]));
                is_start = false;
            }
            _ => {}
        }
    }
    names
}

/// The lower-case name with which `code` begins; types and constants of the crate root have none.
fn leading_name(code: &str) -> Option<String> {
    let is_name = |character: &char| character.is_ascii_alphanumeric() || *character == '_';
    let name: String = code.chars().take_while(is_name).collect();
    name.starts_with(|first: char| first.is_ascii_lowercase()).then_some(name)
}

#[test]
fn used_modules_are_found_in_paths_and_groups() {
    let code = "use crate::net::Addr;\nuse crate::{units::{Grouped, ByteCount}, record, };\n\
                // crate::ignored::X\nfn f() -> crate::finding::Finding { crate::CONSTANT }\n";
    let used: Vec<String> = modules_used(code).into_iter().collect();
    assert_eq!(used, ["finding", "net", "record", "units"]);
}

#[test]
fn imports_point_down() {
    let mut faults = Vec::new();
    for file in sources() {
        let module = file.module();
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(layer) = layer_of(module) else {
            faults.push(format!("src/{}: `{module}` is in no layer of LAYERS", file.path));
            continue;
        };
        for used in modules_used(&file.text) {
            if used != module && layer_of(&used).is_none_or(|used_layer| used_layer >= layer) {
                faults.push(format!("src/{}: `{module}` must not use `{used}`", file.path));
            }
        }
    }
    check("a module uses only lower layers", &faults);
}

#[test]
fn the_program_only_calls_cli() {
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap();
    let used: BTreeSet<Option<String>> = main
        .match_indices("flowgauge::")
        .map(|(at, name)| leading_name(&main[at + name.len()..]))
        .collect();
    assert!(used.iter().flatten().all(|module| module == "cli"), "main.rs uses {used:?}");
}

#[test]
fn each_file_opens_with_a_header() {
    let is_headed = |file: &SourceFile| file.text.starts_with("//! ");
    let faults: Vec<String> = sources()
        .iter()
        .filter(|file| !is_headed(file))
        .map(|file| format!("src/{}: say in `//!` what lives here", file.path))
        .collect();
    check("each file opens with a header", &faults);
}

#[test]
fn no_module_is_a_catch_all() {
    let mut faults = Vec::new();
    for file in sources() {
        let mut parts = file.path.trim_end_matches(".rs").split('/');
        if let Some(part) = parts.find(|part| CATCH_ALL.contains(part)) {
            faults.push(format!("src/{}: name `{part}` after what it does", file.path));
        }
    }
    check("no module is a catch-all", &faults);
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut faults = Vec::new();
    for file in sources() {
        let lines = file.lines_before_tests().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("src/{}: {lines} lines before its tests", file.path));
        }
    }
    check("files are short", &faults);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut faults = Vec::new();
    for file in sources() {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(mark) = UNFINISHED.iter().find(|mark| line.contains(**mark)) {
                faults.push(format!("src/{}:{}: {mark}", file.path, index + 1));
            }
        }
    }
    check("nothing is left unfinished", &faults);
}

/// Whether a line opens an unsafe block, function or implementation.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|form| code.contains(form))
}

/// Whether the comment directly above line `index` (attributes between them set aside) gives the reason.
fn has_reason(lines: &[&str], index: usize) -> bool {
    lines[..index]
        .iter()
        .rev()
        .map(|line| line.trim_start())
        .take_while(|line| line.starts_with("//") || line.starts_with("#["))
        .any(|line| line.starts_with("// SAFETY:"))
}

#[test]
fn unsafe_code_is_in_simd_and_gives_its_reason() {
    let mut faults = Vec::new();
    for file in sources() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| has_unsafe(line)) {
            let place = format!("src/{}:{}", file.path, index + 1);
            let is_block = line.contains("unsafe {") || line.contains("unsafe impl");
            if file.module() != "simd" {
                faults.push(format!("{place}: unsafe code belongs to src/simd"));
            } else if is_block && !has_reason(&lines, index) {
                faults.push(format!("{place}: give the reason above, as `// SAFETY: …`"));
            }
        }
    }
    check("unsafe code is in simd and gives its reason", &faults);
}

#[test]
fn the_top_level_is_the_first_page_of_the_manual() {
    // Untracked files are the business of whoever put them there.
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let Some(output) = listed.ok().filter(|output| output.status.success()) else {
        println!("not a git checkout: the top level was not looked at");
        return;
    };
    let files = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> =
        files.split('\0').filter_map(|file| file.split('/').next()).collect();
    let faults: Vec<String> = names
        .into_iter()
        .filter(|name| !name.is_empty() && !name.starts_with('.') && !TOP_LEVEL.contains(name))
        .map(|name| {
            format!("{name}: find it a place below src, benches, datasets, scripts or tests")
        })
        .collect();
    check("the top level holds what it is known for", &faults);
}
