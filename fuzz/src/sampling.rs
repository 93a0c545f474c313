//! Inputs by proptest, where libFuzzer cannot be had: the committed ones as they are, then changed at random,
//! and now and then something wholly new. Nothing guides the changes, so that less is found than by
//! libFuzzer; what is found is made small.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::tally;

/// Inputs between two looks at the clock.
const BATCH: u32 = 256;

/// Panics so far, in whichever task: one that is caught on its way is none the less one.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Runs a target for as many seconds as the first argument says, or once for each file that is named.
pub fn main(name: &str, run: fn(&[u8]) -> bool) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [seconds] = &arguments[..]
        && let Ok(seconds) = seconds.parse()
    {
        return sample(name, run, Duration::from_secs(seconds));
    }
    for file in &arguments {
        let input = fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        println!("{file}: came through: {}", run(&input));
    }
    ExitCode::SUCCESS
}

fn sample(name: &str, run: fn(&[u8]) -> bool, time: Duration) -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = read_corpus(&root.join("corpus").join(name));
    let seed = env::var("TIDINGS_TEST_SEED");
    let seed: u64 = seed.map_or(7, |seed| seed.parse().expect("a seed is a number"));
    panic::set_hook(Box::new(|_| {
        PANICS.fetch_add(1, Ordering::Relaxed);
    }));
    let executions = Cell::new(0u64);
    let test = |input: Vec<u8>| {
        executions.set(executions.get() + 1);
        let before = PANICS.load(Ordering::Relaxed);
        let outcome = panic::catch_unwind(|| run(&input));
        if PANICS.load(Ordering::Relaxed) > before {
            return Err(TestCaseError::fail("panics"));
        }
        tally::count(outcome.unwrap_or(false));
        Ok(())
    };
    let begun = Instant::now();
    let mut found = corpus
        .iter()
        .find(|input| test(input.to_vec()).is_err())
        .cloned();
    let inputs = inputs(corpus);
    for batch in 0.. {
        if found.is_some() || begun.elapsed() >= time {
            break;
        }
        found = match runner(seed, batch).run(&inputs, test) {
            Ok(()) => None,
            Err(TestError::Fail(_, input)) => Some(input),
            Err(TestError::Abort(reason)) => panic!("proptest gave up: {reason}"),
        };
    }
    println!("executions: {}", executions.get());
    let Some(input) = found else {
        return ExitCode::SUCCESS;
    };
    let artifact = keep(&root.join("artifacts").join(name), seed, &input);
    // Once more, so that it is told what is wrong.
    let _ = panic::take_hook();
    let _ = panic::catch_unwind(|| run(&input));
    eprintln!("seed {seed} found {}", artifact.display());
    ExitCode::FAILURE
}

/// A runner of one batch, whose inputs follow from the seed.
fn runner(seed: u64, batch: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&batch.to_le_bytes());
    let config = Config {
        cases: BATCH,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn read_corpus(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).expect("there is a corpus");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let inputs = paths.iter().map(|path| fs::read(path).expect("is a file"));
    inputs.collect()
}

fn keep(directory: &Path, seed: u64, input: &[u8]) -> PathBuf {
    fs::create_dir_all(directory).expect("a directory can be made");
    let path = directory.join(format!("proptest-{seed}"));
    fs::write(&path, input).expect("a file can be written");
    path
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Put(Index, Vec<u8>),
    Take(Index, usize),
    Set(Index, u8),
    Repeat(Index, usize, u16),
    Splice(Index, Vec<u8>, Index),
}

impl Edit {
    fn apply(&self, input: &mut Vec<u8>) {
        let place = |index: &Index, input: &[u8]| index.index(input.len() + 1);
        match self {
            Edit::Put(at, bytes) => {
                let at = place(at, input);
                input.splice(at..at, bytes.iter().copied());
            }
            Edit::Take(at, count) => {
                let at = place(at, input);
                input.drain(at..input.len().min(at + count));
            }
            Edit::Set(at, byte) => {
                let at = place(at, input);
                if let Some(old) = input.get_mut(at) {
                    *old = *byte;
                }
            }
            Edit::Repeat(at, count, times) => {
                let at = place(at, input);
                let part = input[at..input.len().min(at + count)].to_vec();
                input.splice(at..at, part.repeat(usize::from(*times)));
            }
            Edit::Splice(at, other, from) => {
                input.truncate(place(at, input));
                input.extend_from_slice(&other[place(from, other)..]);
            }
        }
    }
}

/// Characters that mean something to one of the targets, more often than others.
fn byte() -> impl Strategy<Value = u8> {
    let telling = b"\0\t\n\r \"#%&*+,-./0123456789:;=?@AZ[]_`az{|}~\x7f\x80\xc3\xe2\xff";
    prop_oneof![3 => select(&telling[..]), 1 => any::<u8>()]
}

fn inputs(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let place = any::<Index>;
    let edit = prop_oneof![
        3 => (place(), vec(byte(), 1..6)).prop_map(|(at, bytes)| Edit::Put(at, bytes)),
        2 => (place(), 1..16usize).prop_map(|(at, count)| Edit::Take(at, count)),
        4 => (place(), byte()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        1 => (place(), 1..16usize, 1..400u16).prop_map(|(at, count, times)| Edit::Repeat(at, count, times)),
        2 => (place(), select(corpus.clone()), place())
            .prop_map(|(at, other, from)| Edit::Splice(at, other, from)),
    ];
    let changed = (select(corpus), vec(edit, 0..5)).prop_map(|(mut input, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut input));
        input
    });
    prop_oneof![9 => changed, 1 => vec(byte(), 0..80)]
}
