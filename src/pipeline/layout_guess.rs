//! Which layout the lines of a chunk are likely to have, guessed before they are parsed.
//!
//! Chunks of one input are parsed in parallel, yet a header in one binds the next. A header nearly always is an
//! input's first line, so that line is looked at here, and the layout it declares goes with every chunk. The
//! sequencer sees to the rare input whose header changes in between.

use std::collections::HashMap;
use std::sync::Arc;

use crate::framing::{Chunk, ChunkEvent, InputId};
use crate::record::Layout;

/// Guesses of the open inputs of one source.
#[derive(Debug, Default)]
pub(super) struct LayoutGuess {
    inputs: HashMap<InputId, Guess>,
}

#[derive(Debug)]
struct Guess {
    layout: Arc<Layout>,
    first_line_seen: bool,
}

impl LayoutGuess {
    /// The layout that probably holds at the first line of `chunk`.
    pub(super) fn layout_for(&mut self, chunk: &Chunk) -> Arc<Layout> {
        match &chunk.event {
            ChunkEvent::Open(info) => {
                let layout = info.first_layout();
                let first_line_seen = info.resume.is_some();
                let guess = Guess { layout: Arc::clone(&layout), first_line_seen };
                self.inputs.insert(chunk.input, guess);
                layout
            }
            ChunkEvent::Stop | ChunkEvent::Close(_) => self
                .inputs
                .remove(&chunk.input)
                .map_or_else(Layout::default_v2, |guess| guess.layout),
            ChunkEvent::Idle => Layout::default_v2(),
            ChunkEvent::Data(data) => {
                let Some(guess) = self.inputs.get_mut(&chunk.input) else {
                    unreachable!("a source opens an input before its data")
                };
                let before = Arc::clone(&guess.layout);
                if guess.first_line_seen {
                    return before;
                }
                if let Some(line) = data.payload.first_line() {
                    guess.first_line_seen = true;
                    if let Some(layout) = Layout::from_header(line.trim_ascii()) {
                        guess.layout = Arc::new(layout);
                    }
                }
                before
            }
        }
    }
}
