//! The key that somebody who mistyped one most likely meant.

/// The candidate nearest to `written`, if one is near enough to be meant: at most one edit (insertion,
/// deletion, replacement, swap of neighbours) per three characters, and the first of equals.
#[must_use]
pub fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let edits_max = written.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(written, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance of the lower-cased texts, with `-` and `_` taken as the same.
fn edit_distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
    };
    let (a, b) = (fold(a), fold(b));
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut edits = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(before_last[j - 2] + 1);
            }
            row.push(edits);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: Option<&str>) {
        let keys = ["threads", "pane", "lateness", "idle_after", "queue_depth", "line_max"];
        assert_eq!(nearest(written, keys), expected, "{written}");
    }

    #[test]
    fn typing_errors_find_their_key() {
        check("latenes", Some("lateness"));
        check("lateenss", Some("lateness"));
        check("allowed_lateness", None);
        check("idle-after", Some("idle_after"));
        check("Threads", Some("threads"));
        check("pan", Some("pane"));
        check("workers", None);
        check("", None);
    }
}
