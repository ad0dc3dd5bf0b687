//! Golden files: what the program says, kept in `tests/golden` and read in review like code.

use crate::program::root;

/// Compares `text` with a golden file; `UPDATE_GOLDEN=1` writes it instead.
#[track_caller]
pub(crate) fn check(name: &str, text: &str) {
    let path = root().join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        return;
    }
    let expected = std::fs::read_to_string(&path).expect("a golden file");
    assert_eq!(text, expected, "{name}; see what `UPDATE_GOLDEN=1` changes");
}
