//! The process: command line, logs, runtime, exit code.

fn main() {}
