//! Runs the target `query`: by libFuzzer where cargo-fuzz builds it, by proptest otherwise.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(
    |input: &[u8]| tidings_fuzz::tally::count(tidings_fuzz::query::run(input))
);

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    tidings_fuzz::sampling::main("query", tidings_fuzz::query::run)
}
