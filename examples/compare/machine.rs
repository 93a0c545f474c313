//! What the figures were measured on.

use std::process::Command;

/// One line: the machine, these programs, and the compiler.
pub(crate) fn facts(programs: impl IntoIterator<Item = String>) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut facts = vec![
        format!("{cores} cores"),
        processor(),
        format!("Linux {}", kernel.trim()),
    ];
    facts.extend(programs);
    facts.push(said(Command::new("rustc").arg("--version")));
    facts.join("; ")
}

/// The line that a program says, on whichever output.
pub(crate) fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return format!("no {}", command.get_program().to_string_lossy());
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    text.trim().to_owned()
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("an unnamed processor", |(_, name)| name)
        .to_owned()
}
