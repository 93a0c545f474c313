//! Runs the target `frame`: by libFuzzer where cargo-fuzz builds it, by proptest otherwise.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(
    |input: &[u8]| tidings_fuzz::tally::count(tidings_fuzz::frame::run(input))
);

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    tidings_fuzz::sampling::main("frame", tidings_fuzz::frame::run)
}
