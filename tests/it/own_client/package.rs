//! What is published of the client: nothing but what is needed, well typed, and small.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Deserialize;

use super::agent::{build, package};
use crate::support::program;

/// The most that the core may add to a page, in bytes, minified and gzipped.
const CORE: usize = 4 * 1024;

#[derive(Deserialize)]
struct Packed {
    files: Vec<PackedFile>,
}

#[derive(Deserialize)]
struct PackedFile {
    path: String,
}

#[derive(Deserialize)]
struct Size {
    minified: usize,
    gzipped: usize,
}

/// What a program of the package says.
fn told(program: &std::path::Path, arguments: &[&str]) -> String {
    let done = Command::new(program)
        .args(arguments)
        .current_dir(package())
        .output()
        .expect("it runs");
    let [said, complained] =
        [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(done.status.success(), "{arguments:?}: {said}{complained}");
    said
}

#[test]
fn the_package_holds_what_is_needed_and_nothing_else() {
    let Some(npm) = program(&["npm"], "npm") else {
        return;
    };
    build(&npm);
    // What is built is there already, and others may be using it.
    let packed = told(&npm, &["pack", "--dry-run", "--json", "--ignore-scripts"]);
    let packed: Vec<Packed> = serde_json::from_str(&packed).expect("one package");
    let mut files: Vec<&str> = packed[0]
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    files.sort_unstable();

    let sources = std::fs::read_dir(package().join("src")).expect("sources");
    let mut wanted: Vec<String> = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json"]
        .map(str::to_owned)
        .into();
    for source in sources {
        let name = source
            .expect("a file")
            .file_name()
            .into_string()
            .expect("a name");
        let (module, _) = name.rsplit_once('.').expect("an ending");
        wanted.extend(
            ["js", "js.map", "d.ts", "d.ts.map"].map(|ending| format!("dist/{module}.{ending}")),
        );
        wanted.push(format!("src/{name}"));
    }
    wanted.sort_unstable();
    assert_eq!(files, wanted);

    let manifest = std::fs::read_to_string(package().join("package.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert!(
        manifest.get("dependencies").is_none(),
        "it depends on nothing"
    );
}

#[test]
fn programs_that_are_well_typed_compile_and_no_others() {
    let Some(npm) = program(&["npm"], "npm") else {
        return;
    };
    build(&npm);
    told(&npm, &["exec", "--", "tsc", "-p", "test/tsconfig.json"]);
}

#[test]
fn its_parts_do_what_they_say() {
    let Some(npm) = program(&["npm"], "npm") else {
        return;
    };
    build(&npm);
    print!("{}", told(&npm, &["test"]));
}

#[test]
fn the_core_is_small() {
    let (Some(npm), Some(node)) = (program(&["npm"], "npm"), program(&["node"], "nodejs")) else {
        return;
    };
    build(&npm);
    let sizes = told(&node, &["test/size.js"]);
    let sizes: BTreeMap<String, Size> = serde_json::from_str(&sizes).expect("sizes");
    for (part, size) in &sizes {
        println!(
            "{part}: {} bytes minified, {} gzipped",
            size.minified, size.gzipped
        );
    }
    assert!(sizes["core"].gzipped < CORE, "{}", sizes["core"].gzipped);
    // What the page says of it.
    let page = std::fs::read_to_string(package().join("README.md")).expect("a page");
    for (part, said) in [
        ("core", "3.7 KB in a page"),
        ("tabs", "1.7 KB more where tabs"),
    ] {
        let figure: f64 = said
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        let real = sizes[part].gzipped as f64 / 1000.0;
        assert!(page.replace('\n', " ").contains(said), "{said}");
        assert!(
            (real - figure).abs() < 0.1,
            "{part}: {real} and not {figure} KB"
        );
    }
}
