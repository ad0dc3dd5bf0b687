//! An error with what caused it, in one line: for logs and messages that can't carry the chain itself.

use std::error::Error;

/// What an error says and, after colons, what its causes say; a layer that repeats what it wraps is left out.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let layer = error.to_string();
        if !text.ends_with(&layer) {
            text.push_str(": ");
            text.push_str(&layer);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn causes_are_said_once_each() {
        let layers = ["dispatch failure", "io error", "io error", "connection refused"];
        let chain =
            layers.into_iter().rev().fold(None, |cause, text| Some(Box::new(Layer(text, cause))));
        let text = with_causes(&*chain.unwrap());
        assert_eq!(text, "dispatch failure: io error: connection refused");
    }
}
