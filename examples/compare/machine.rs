//! What the figures were measured on.

use std::process::Command;

use super::bench::Bench;

/// One line.
pub(crate) fn facts(bench: &Bench) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let facts = [
        format!("{cores} cores"),
        processor(),
        format!("Linux {}", kernel.trim()),
        said(bench.postgres("postgres").arg("--version")),
        said(Command::new("nginx").arg("-v")),
        format!(
            "Nchan {}",
            said(Command::new("dpkg-query").args(["-Wf${Version}", "libnginx-mod-nchan"]))
        ),
        said(Command::new("rustc").arg("--version")),
    ];
    facts.join("; ")
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("an unnamed processor", |(_, name)| name)
        .to_owned()
}

/// The line that a program says, on whichever output.
fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return format!("no {}", command.get_program().to_string_lossy());
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    text.trim().to_owned()
}
