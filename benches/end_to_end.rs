//! How fast a whole run answers a question: a file in the page cache through all stages on one thread
//! and on two.

mod questions;

use divan::Bencher;
use divan::counter::ItemsCount;
use flowgauge::pipeline;
use questions::{Input, Question, RECORDS};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUESTIONS: [Question; 4] =
    [Question::Parse, Question::Sources, Question::Pairs, Question::Report];

fn main() {
    divan::main();
}

#[divan::bench(args = QUESTIONS, sample_count = 20)]
fn one_thread(bencher: Bencher, question: Question) {
    run(bencher, question, 1);
}

#[divan::bench(args = QUESTIONS, sample_count = 20)]
fn two_threads(bencher: Bencher, question: Question) {
    run(bencher, question, 2);
}

fn run(bencher: Bencher, question: Question, thread_count: usize) {
    let input = Input::generate();
    bencher
        .counter(ItemsCount::new(RECORDS))
        .with_inputs(|| input.job(question, thread_count))
        .bench_local_values(|job| {
            let report = pipeline::run(job).expect("a file in the temporary directory is read");
            input.check(question, &report);
        });
}
