//! The program itself, as an operator runs it, with an environment of the test's own.

use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::client::PATIENCE;

/// How a command has ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The program with these arguments and, of all that it reads from the environment, these variables.
pub(crate) fn tidings(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("TIDINGS_") || text.starts_with("DATABASE_URL") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    finish(tidings(arguments, variables).spawn().expect("it starts")).await
}

/// Runs it to its end with this on its standard input.
pub(crate) async fn run_with_input(
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> Outcome {
    let mut command = tidings(arguments, variables);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).await.expect("it reads");
    drop(stdin);
    finish(child).await
}

/// Waits for the end of a child.
pub(crate) async fn finish(child: Child) -> Outcome {
    let ended = tokio::time::timeout(2 * PATIENCE, child.wait_with_output());
    let output = ended.await.expect("it ends").expect("its output is read");
    outcome(output)
}

fn outcome(output: Output) -> Outcome {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// The lines that a running child prints.
pub(crate) struct Printed(Lines<BufReader<ChildStdout>>);

impl Printed {
    pub(crate) fn of(child: &mut Child) -> Printed {
        Printed(BufReader::new(child.stdout.take().expect("piped")).lines())
    }

    /// The next line, which must come.
    pub(crate) async fn next(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.0.next_line()).await;
        let line = line.expect("a line comes").expect("it can be read");
        line.expect("the output has not ended")
    }

    /// Whatever is printed until the end.
    pub(crate) async fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.0.next_line().await.expect("it can be read") {
            lines.push(line);
        }
        lines
    }
}
