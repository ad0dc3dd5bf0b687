//! Which files a list of paths means: files, directories with all below them, and patterns.
//!
//! Used by the file source and by `validate`. `-` (standard input) is the caller's. Nothing is opened
//! here; only names and kinds are looked at.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use glob::MatchOptions;

/// What CloudWatch Logs writes into a bucket before an export, to see whether it may; no flow logs.
pub const EXPORT_TEST_OBJECT: &str = "aws-logs-write-test";

/// Why a path means no file.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// Neither a file nor a directory, and not a pattern.
    #[error("no such file or directory: `{}`", .0.display())]
    Missing(PathBuf),
    /// A pattern that fits nothing.
    #[error("no file matches the pattern `{0}`; quote it for the shell, `**` crosses directories")]
    NoMatch(String),
    /// A pattern with broken syntax.
    #[error("`{pattern}` is not a pattern: {reason}; write `[*]` for a literal `*`")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A directory with no file in it or below it.
    #[error("directory `{}` holds no file; hidden files are left out", .0.display())]
    Empty(PathBuf),
    /// A directory or file whose kind could not be found out.
    #[error("cannot look into `{}`", path.display())]
    Unreadable {
        /// What could not be looked at.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// The files that `paths` mean, sorted by the bytes of their paths, each once even if reached by
/// several names.
///
/// A path that exists is taken as it is, else as a pattern with `*`, `?`, `[…]` and `**`. Below a
/// directory all regular files count, at any depth and through links; hidden files and directories,
/// links to nothing and [`EXPORT_TEST_OBJECT`] are left out.
///
/// # Errors
/// At the first path that means no file.
pub fn discover(paths: &[PathBuf]) -> Result<Vec<PathBuf>, DiscoverError> {
    let mut files = Vec::new();
    for path in paths {
        if path.exists() {
            collect_existing(path, &mut files)?;
        } else {
            collect_matches(path, &mut files)?;
        }
    }
    files.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let mut seen = HashSet::new();
    // A pipe such as `/dev/fd/63` has no canonical path and stands for itself.
    files.retain(|file| seen.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    Ok(files)
}

fn collect_existing(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), DiscoverError> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let count_before = files.len();
    collect_below(path, &mut HashSet::new(), files)?;
    if files.len() == count_before {
        return Err(DiscoverError::Empty(path.to_owned()));
    }
    Ok(())
}

fn collect_matches(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), DiscoverError> {
    let pattern = match path.to_str() {
        Some(text) if text.contains(['*', '?', '[']) => text,
        _ => return Err(DiscoverError::Missing(path.to_owned())),
    };
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::default() };
    let matches = glob::glob_with(pattern, options).map_err(|error| DiscoverError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.msg,
    })?;
    let count_before = files.len();
    for matched in matches {
        let matched = matched.map_err(|error| DiscoverError::Unreadable {
            path: error.path().to_owned(),
            source: error.into(),
        })?;
        if matched.is_dir() {
            collect_below(&matched, &mut HashSet::new(), files)?;
        } else if matched.exists() {
            files.push(matched);
        }
    }
    if files.len() == count_before {
        return Err(DiscoverError::NoMatch(pattern.to_owned()));
    }
    Ok(())
}

/// Adds the regular files below `directory`; `entered` holds the canonical paths of the directories
/// seen, because links may lead back up.
fn collect_below(
    directory: &Path,
    entered: &mut HashSet<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> Result<(), DiscoverError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |source| DiscoverError::Unreadable { path, source }
    };
    if !entered.insert(fs::canonicalize(directory).map_err(unreadable(directory))?) {
        return Ok(());
    }
    let entries = fs::read_dir(directory).map_err(unreadable(directory))?;
    let names: io::Result<Vec<OsString>> =
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names.map_err(unreadable(directory))?;
    // A directory that two links reach is entered by the first of them, whatever order the disk has.
    names.sort_unstable();
    let is_meant =
        |name: &OsString| !name.as_encoded_bytes().starts_with(b".") && name != EXPORT_TEST_OBJECT;
    for name in names.into_iter().filter(is_meant) {
        let path = directory.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => collect_below(&path, entered, files)?,
            Ok(metadata) if metadata.is_file() => files.push(path),
            Ok(_) => {}
            Err(error) if leads_nowhere(&path, &error) => {}
            Err(error) => return Err(unreadable(&path)(error)),
        }
    }
    Ok(())
}

/// Whether the name stands for nothing: a link to nothing or to itself, a file that was just removed.
fn leads_nowhere(path: &Path, error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::NotFound => true,
        io::ErrorKind::PermissionDenied => false,
        _ => path.is_symlink(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `logs/{a,b.gz,.hidden}`, `logs/deep/{c,back -> logs}`, `logs/dangling`, `empty/.keep`.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for directory in ["logs/deep", "logs/.cache", "empty"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for file in
            ["logs/a", "logs/b.gz", "logs/.hidden", "logs/.cache/x", "logs/deep/c", "empty/.keep"]
        {
            fs::write(at(file), "x").unwrap();
        }
        fs::write(at("logs/deep").join(EXPORT_TEST_OBJECT), "x").unwrap();
        symlink(at("logs"), at("logs/deep/back")).unwrap();
        symlink(at("nowhere"), at("logs/dangling")).unwrap();
        symlink(at("logs/a"), at("logs/z-link")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        symlink(at("logs/deep/loop"), at("logs/deep/loop")).unwrap();
        root
    }

    /// `expected` is the files, or the message with the root left out.
    fn check(paths: &[&str], expected: Result<&[&str], &str>) {
        let root = tree();
        let prefix = format!("{}/", root.path().display());
        let paths: Vec<PathBuf> = paths.iter().map(|path| root.path().join(path)).collect();
        let found = discover(&paths)
            .map(|files| {
                let names = files.iter().map(|file| file.strip_prefix(root.path()).unwrap());
                names.map(|name| name.to_str().unwrap().to_owned()).collect::<Vec<_>>()
            })
            .map_err(|error| error.to_string().replace(&prefix, ""));
        let expected = expected
            .map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .map_err(str::to_owned);
        assert_eq!(found, expected, "{paths:?}");
    }

    #[test]
    fn files_directories_and_patterns_are_found_once_in_order() {
        check(&["logs/b.gz", "logs/a"], Ok(&["logs/a", "logs/b.gz"]));
        check(&["logs"], Ok(&["logs/a", "logs/b.gz", "logs/deep/c"]));
        check(&["logs/deep", "logs"], Ok(&["logs/a", "logs/b.gz", "logs/deep/c"]));
        check(&["logs/*"], Ok(&["logs/a", "logs/b.gz", "logs/deep/c"]));
        check(&["logs/*.gz", "logs/[ab]*"], Ok(&["logs/a", "logs/b.gz"]));
        check(&["logs/.hidden"], Ok(&["logs/.hidden"]));
        check(&[], Ok(&[]));
    }

    #[test]
    fn paths_that_mean_nothing_say_so() {
        check(&["logs/a", "absent"], Err("no such file or directory: `absent`"));
        check(&["logs/dangling"], Err("no such file or directory: `logs/dangling`"));
        check(&["loop"], Err("no such file or directory: `loop`"));
        check(
            &["logs/*.txt"],
            Err(
                "no file matches the pattern `logs/*.txt`; quote it for the shell, `**` crosses directories",
            ),
        );
        check(&["empty"], Err("directory `empty` holds no file; hidden files are left out"));
        check(
            &["logs/[a"],
            Err("`logs/[a` is not a pattern: invalid range pattern; write `[*]` for a literal `*`"),
        );
    }

    #[test]
    fn devices_are_taken_if_named() {
        assert_eq!(discover(&["/dev/null".into()]).unwrap(), [PathBuf::from("/dev/null")]);
    }
}
