//! Rules about the tree that no compiler knows: what may import what, what each file opens with, how long it is, what must
//! not be called or said, and that the documents say what the program does. It reads files and starts nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests.
const LINES_MAX: usize = 450;

/// Files that may be longer, each with its reason. The aim is none.
const LONG_FILES: [(&str, &str); 0] = [];

/// Modules that decide and never wait, and what they therefore do not know.
const PURE: [&str; 3] = ["cache/policy/", "representation/", "fields/"];
const IMPURE: [&str; 4] = ["tokio::", "hyper::", "hyper_util::", "moka::"];

/// Neither of a pair imports the other: `exchange` joins them.
const STRANGERS: [(&str, &str); 2] = [("cache", "origin"), ("origin", "cache")];

/// What shipped code does not call, and the one file that may.
const BANNED_CALLS: [(&str, &str); 6] = [
    (".unwrap()", ""),
    ("Instant::now", "edge/src/clock.rs"),
    ("SystemTime::now", "edge/src/clock.rs"),
    ("tokio::spawn", "edge/src/drain.rs"),
    ("tokio::task::spawn(", "edge/src/drain.rs"),
    ("unbounded_channel", ""),
];

/// What no Rust file says, tests included.
const BANNED_MARKS: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimplemen", "ted!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("#[ign", "ore"),
];

/// Files that may hold one of these marks all the same, each with its reason.
const EXCUSED_MARKS: [(&str, &str); 1] = [(
    "edge/tests/edge/origin_s3/credentials.rs",
    "each of them is run by another test, in a process of its own",
)];

/// What no file says: the paths and hosts of one machine, and words about how the project is made rather than what it is.
const BANNED_WORDS: [&str; 11] = [
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("artif", "actory"),
    concat!("this ses", "sion"),
    concat!("the ses", "sion that"),
    concat!("suba", "gent"),
    concat!("the c", "eo"),
    concat!("ci mach", "ine"),
    concat!("../sha", "red"),
    concat!("developers", ".md"),
];

#[test]
fn modules_import_only_what_is_declared_below_them() {
    let declared = declared_modules();
    let place: HashMap<&str, usize> = declared
        .iter()
        .enumerate()
        .map(|(at, name)| (name.as_str(), at))
        .collect();
    let mut faults = Faults::default();
    for file in rust_files("edge/src") {
        let Some(own) = file.module().filter(|_| !file.is_test()) else {
            continue;
        };
        let Some(&own_place) = place.get(own) else {
            faults.add(&file, format!("{own} is not declared in lib.rs"));
            continue;
        };
        for imported in file.imports() {
            match place.get(imported.as_str()) {
                Some(&at) if at < own_place => {
                    faults.add(&file, format!("imports {imported}, which is above {own}"));
                }
                Some(_) => {}
                None => faults.add(&file, format!("imports crate::{imported}, which is no module")),
            }
            if STRANGERS.contains(&(own, imported.as_str())) {
                faults.add(&file, format!("{own} knows {imported}"));
            }
        }
        for climb in file.climbs() {
            if climb >= file.depth() {
                faults.add(
                    &file,
                    "climbs out of its module by super::, where crate:: would be seen".to_owned(),
                );
            }
        }
    }
    faults.must_be_none();
}

#[test]
fn pure_modules_know_no_runtime() {
    let mut faults = Faults::default();
    for file in rust_files("edge/src").into_iter().filter(|file| !file.is_test()) {
        if !PURE
            .iter()
            .any(|folder| file.name.starts_with(&format!("edge/src/{folder}")))
        {
            continue;
        }
        for name in IMPURE.iter().filter(|name| mentions(file.body(), name)) {
            faults.add(&file, format!("knows {name}"));
        }
    }
    faults.must_be_none();
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let mut faults = Faults::default();
    for file in all_rust_files() {
        if !file.text.starts_with("//! ") {
            faults.add(&file, "does not open with //!".to_owned());
        }
    }
    faults.must_be_none();
}

#[test]
fn no_file_is_too_long() {
    let mut faults = Faults::default();
    for file in shipped_files() {
        let lines = file.body().lines().count();
        let excused = LONG_FILES.iter().any(|(name, _)| *name == file.name);
        if excused && lines <= LINES_MAX {
            faults.add(&file, "is excused from a rule that it keeps".to_owned());
        }
        if lines > LINES_MAX && !excused {
            faults.add(
                &file,
                format!("has {lines} lines without its tests, and may have {LINES_MAX}"),
            );
        }
    }
    faults.must_be_none();
}

#[test]
fn nothing_banned_is_called() {
    let mut faults = Faults::default();
    for file in shipped_files() {
        let code = code(file.body());
        for (call, home) in BANNED_CALLS {
            // Only the edge has a clock and a drain of its own.
            let applies = home.is_empty() || file.name.starts_with("edge/src/");
            if applies && file.name != home && code.contains(call) {
                faults.add(&file, format!("calls {call}"));
            }
        }
    }
    for file in all_rust_files() {
        if EXCUSED_MARKS.iter().any(|(name, _)| *name == file.name) {
            continue;
        }
        for mark in BANNED_MARKS.iter().filter(|mark| file.text.contains(*mark)) {
            faults.add(&file, format!("holds {mark}"));
        }
    }
    faults.must_be_none();
}

#[test]
fn nothing_speaks_of_one_machine_or_of_how_it_is_made() {
    let mut faults = Faults::default();
    for file in files("", &|_| true) {
        let text = file.text.to_lowercase();
        for word in BANNED_WORDS.iter().filter(|word| text.contains(*word)) {
            faults.add(&file, format!("says {word:?}"));
        }
    }
    faults.must_be_none();
}

#[test]
fn the_readme_lists_every_key_of_the_configuration() {
    let readme = read("README.md");
    let marker = "<!-- configuration -->\n";
    let mut parts = readme.split(marker);
    let table = parts
        .nth(1)
        .expect("README.md holds the table between two markers");
    let wanted = edge::config::markdown();
    assert!(
        table.trim() == wanted.trim(),
        "the table in README.md is not what the program accepts; put this between the markers:\n\n{wanted}"
    );
}

#[test]
fn alert_rules_ask_for_metrics_that_there_are() {
    let rules = read("edge/deploy/alerts.yml");
    let sources: Vec<String> = shipped_files().iter().map(|file| file.text.clone()).collect();
    let words = rules.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let asked: std::collections::BTreeSet<&str> = words.filter(|word| word.starts_with("edge_")).collect();
    assert!(!asked.is_empty());
    for metric in asked {
        let quoted = format!("\"{metric}\"");
        assert!(
            sources.iter().any(|text| text.contains(&quoted)),
            "{metric} is not a metric"
        );
    }
}

#[test]
fn the_changelog_knows_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let heading = format!("## {version}");
    let changelog = read("edge/CHANGELOG.md");
    assert!(
        changelog.lines().any(|line| line.starts_with(&heading)),
        "edge/CHANGELOG.md has no {heading:?}"
    );
}

#[test]
fn the_same_workspace_is_checked_that_is_built() {
    for member in ["edge", "origin-sync", "certs", "bench"] {
        let manifest = read(&format!("{member}/Cargo.toml"));
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{member} has lints of its own"
        );
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let check = |text: &str, expected: &[&str]| assert_eq!(imports(text), expected, "{text}");
    check("use crate::clock::Clock;", &["clock"]);
    check(
        "use crate::{cache, config::{self, Site}, clock::Clock};",
        &["cache", "config", "clock"],
    );
    check(
        "use crate::{\n    cache::{key::Key, tag},\n    fields,\n};",
        &["cache", "fields"],
    );
    check("let x = crate::drain::Drain::default();", &["drain"]);
    check("// crate::server is above\n//! [`crate::http`]\n", &[]);
    check("pub(crate) fn f() {}", &[]);
}

/// The modules in the order in which lib.rs declares them.
fn declared_modules() -> Vec<String> {
    let lib = read("edge/src/lib.rs");
    let names = lib.lines().filter_map(|line| {
        line.strip_prefix("pub mod ")
            .or_else(|| line.strip_prefix("mod "))
    });
    names.map(|name| name.trim_end_matches(';').to_owned()).collect()
}

/// The first names behind each `crate::`, grouped imports taken apart.
fn imports(text: &str) -> Vec<String> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_names(group)),
            None => found.extend(name_at(rest)),
        }
    }
    found
}

/// The names at the first level of `a::{b, c}, d}`.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut expected, mut found) = (0, true, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            _ if expected && !letter.is_whitespace() => {
                found.extend(name_at(&group[at..]));
                expected = false;
            }
            _ => {}
        }
    }
    found
}

fn name_at(text: &str) -> Option<String> {
    let end = text
        .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// Whether a path begins with `name`, and is not a longer name that ends like it.
fn mentions(text: &str, name: &str) -> bool {
    let code = code(text);
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':')
    })
}

/// A text without the lines that are comments.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// A file of the project.
struct File {
    /// Its path below the top.
    name: String,
    text: String,
}

impl File {
    /// What comes before its tests.
    fn body(&self) -> &str {
        let tests = self
            .text
            .find("\n#[cfg(test)]")
            .map_or(self.text.len(), |at| at + 1);
        &self.text[..tests]
    }

    /// Whether it is nothing but tests.
    fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs")
            || self.name.ends_with("/testing.rs")
            || self.name.contains("/tests/")
    }

    /// The module of lib.rs that it belongs to.
    fn module(&self) -> Option<&str> {
        let inner = self.name.strip_prefix("edge/src/")?;
        let own = inner.split('/').next()?.trim_end_matches(".rs");
        (own != "lib" && own != "main").then_some(own)
    }

    /// How deep its module is: 1 for `cache`, 2 for `cache::key`.
    fn depth(&self) -> usize {
        let inner = self
            .name
            .trim_start_matches("edge/src/")
            .trim_end_matches(".rs")
            .trim_end_matches("/mod");
        inner.split('/').count()
    }

    fn imports(&self) -> Vec<String> {
        imports(self.body())
    }

    /// How many modules each `super::super::` climbs.
    fn climbs(&self) -> Vec<usize> {
        let code = code(self.body());
        let starts = code
            .match_indices("super::")
            .map(|(at, _)| at)
            .filter(|at| !code[..*at].ends_with("super::"));
        starts
            .map(|at| {
                code[at..]
                    .split("super::")
                    .take_while(|part| part.is_empty())
                    .count()
            })
            .collect()
    }
}

/// Everything that is wrong, so that one run shows it all.
#[derive(Default)]
struct Faults(String);

impl Faults {
    fn add(&mut self, file: &File, fault: String) {
        let _ = writeln!(self.0, "{}: {fault}", file.name);
    }

    fn must_be_none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

fn shipped_files() -> Vec<File> {
    let mut found = Vec::new();
    for folder in ["edge/src", "origin-sync/src", "certs/src", "bench/src"] {
        found.extend(rust_files(folder).into_iter().filter(|file| !file.is_test()));
    }
    found
}

fn all_rust_files() -> Vec<File> {
    rust_files("")
}

fn rust_files(folder: &str) -> Vec<File> {
    let found = files(folder, &|path| {
        path.extension().is_some_and(|extension| extension == "rs")
    });
    assert!(!found.is_empty(), "no Rust files in {folder:?}");
    found
}

/// All files below a folder of the project that hold text, without what is built, downloaded or another tool's.
fn files(folder: &str, wanted: &dyn Fn(&Path) -> bool) -> Vec<File> {
    let top = top();
    let (mut found, mut open) = (Vec::new(), vec![top.join(folder)]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let ours = ![
                "target",
                "corpus",
                "artifacts",
                "node_modules",
                "__pycache__",
                ".git",
                ".state",
            ]
            .contains(&&*name);
            if path.is_dir() && ours && !path.is_symlink() {
                open.push(path);
            } else if path.is_file() && ours && wanted(&path) {
                let Ok(text) = std::fs::read_to_string(&path) else {
                    continue;
                };
                let name = path.strip_prefix(&top).unwrap().to_string_lossy().into_owned();
                found.push(File { name, text });
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn read(name: &str) -> String {
    let path = top().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The folder of the workspace.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
