//! The program as its users see it: one binary, one file per theme.

mod analyze;
mod config;
mod cuts;
mod detect;
mod durable;
mod engine;
mod firehose;
mod framing;
mod generate;
mod hostile;
mod init;
mod kinesis;
mod life;
mod program;
mod run;
mod samples;
mod tidy;
