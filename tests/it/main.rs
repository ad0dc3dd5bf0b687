//! The program as its users see it: one binary, one file per theme.

mod analyze;
mod cloudwatch;
mod config;
mod cuts;
mod deliveries;
mod detect;
mod doctor;
mod durable;
mod engine;
mod faults;
mod firehose;
mod framing;
mod generate;
#[cfg(all(feature = "kinesis", feature = "cloudwatch"))]
mod golden;
mod hostile;
mod http;
mod iam;
mod init;
mod job;
mod kinesis;
mod labelled;
mod life;
mod program;
mod proxy;
mod run;
mod s3;
mod samples;
mod servers;
mod tidy;
