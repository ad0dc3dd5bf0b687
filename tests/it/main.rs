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
mod framing;
mod generate;
mod golden;
mod hostile;
mod http;
mod iam;
mod init;
mod job;
mod kinesis;
mod life;
mod program;
mod proxy;
mod run;
mod samples;
mod servers;
mod tidy;
