//! Which requirement of MQTT 5.0 and 3.1.1 is met where and shown by which test: read from citations such as `[MQTT-3.1.2-24]`, or
//! `[MQTT3-3.1.2-24]` for 3.1.1, and written to docs/conformance.md. A requirement on the server without code or test fails.
//!
//! `make conformance` writes the page anew; without CONFORMANCE_WRITE it is only compared.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const LIST: &str = "tests/conformance/requirements.txt";
const PAGE: &str = "docs/conformance.md";
/// The command line's client keeps requirements of its own; what it cites is no place in the server.
const NOT_THE_SERVER: [&str; 2] = ["src/client/", "src/cli/"];

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    id: String,
    /// Whether only a client can keep it.
    client: bool,
    /// The requirement of MQTT 5.0 that the same code keeps.
    same: Option<String>,
    asks: String,
    /// Why no test shows it.
    exempt: Option<String>,
}

/// Where a requirement is cited.
#[derive(Debug, Default)]
struct Places {
    code: BTreeSet<String>,
    tests: BTreeSet<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn parse_list(text: &str) -> Vec<Requirement> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split(" | ").map(str::trim);
            let mut field = || fields.next().map(str::to_owned);
            let (id, role, asks) = (field().expect("an id"), field().expect("a role"), field().expect("what it asks"));
            let (role, same) = match role.split_once(" = ") {
                Some((role, same)) => (role.to_owned(), Some(same.to_owned())),
                None => (role, None),
            };
            assert!(["server", "client", "both"].contains(&role.as_str()), "{line}");
            Requirement { id, client: role == "client", same, asks, exempt: field() }
        })
        .collect()
}

/// The identifiers cited in a line.
fn citations(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for piece in line.split('[').skip(1) {
        let Some((id, _)) = piece.split_once(']') else { continue };
        let Some(number) = id.strip_prefix("MQTT-").or_else(|| id.strip_prefix("MQTT3-")) else { continue };
        if number.contains('-')
            && number.starts_with(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || ".-".contains(c))
        {
            found.push(id.to_owned());
        }
    }
    found
}

/// The function that a line declares, or the test that it makes by a macro.
fn declared(line: &str) -> Option<&str> {
    let name = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    for (opening, closing) in [("fn ", '('), ("in_both_versions!(", ','), ("over_every_transport!(", ',')] {
        if let Some((before, after)) = line.split_once(opening)
            && !before.contains("//")
            && after.get(name(after)..).is_some_and(|rest| rest.starts_with([closing, '<']))
        {
            return after.get(..name(after)).filter(|name| !name.is_empty());
        }
    }
    // `rejects_something: expression => error;`
    let start = line.trim_start();
    let end = name(start);
    let named = end > 0 && start.get(end..)?.starts_with(':');
    (named && (line.contains(" => ") || start.starts_with("rejects_"))).then(|| start.get(..end))?
}

/// The function around a line, or the one that its comment stands before.
fn around(lines: &[&str], at: usize) -> Option<String> {
    if lines.get(at).is_some_and(|line| line.trim_start().starts_with("//")) {
        let next = lines.iter().skip(at).find(|line| {
            let line = line.trim_start();
            !line.starts_with("//") && !line.starts_with("#[")
        });
        if let Some(name) = next.and_then(|line| declared(line)) {
            return Some(name.to_owned());
        }
    }
    lines.get(..=at)?.iter().rev().find_map(|line| declared(line)).map(str::to_owned)
}

fn collect(path: &str, text: &str, places: &mut BTreeMap<String, Places>) {
    let lines: Vec<&str> = text.lines().collect();
    let is_test_file = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
    let tests_from = lines.iter().position(|line| line.trim_start().starts_with("#[cfg(test)]")).unwrap_or(lines.len());
    for (at, line) in lines.iter().enumerate() {
        for id in citations(line) {
            let place = match around(&lines, at) {
                Some(name) => format!("{path} `{name}`"),
                None => path.to_owned(),
            };
            let cited = places.entry(id).or_default();
            if is_test_file || at > tests_from {
                cited.tests.insert(place);
            } else if !NOT_THE_SERVER.iter().any(|elsewhere| path.starts_with(elsewhere)) {
                cited.code.insert(place);
            }
        }
    }
}

fn sources(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                sources(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn repository() -> (Vec<Requirement>, BTreeMap<String, Places>) {
    let list = parse_list(&fs::read_to_string(root().join(LIST)).expect("the list of requirements"));
    let mut files = Vec::new();
    for dir in ["src", "crates", "tests"] {
        sources(&root().join(dir), &mut files);
    }
    let mut places = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
        // This file cites as an example, and tidiness is no requirement of MQTT.
        if path != "tests/conformance.rs" {
            collect(&path, &fs::read_to_string(&file).expect("a source is UTF-8"), &mut places);
        }
    }
    (list, places)
}

/// What is wrong with the citations.
fn gaps(list: &[Requirement], places: &BTreeMap<String, Places>) -> Vec<String> {
    let mut gaps = Vec::new();
    for requirement in list.iter().filter(|requirement| !requirement.client && requirement.exempt.is_none()) {
        let cited = places.get(&requirement.id);
        let has_code = |id: &String| places.get(id).is_some_and(|cited| !cited.code.is_empty());
        if !has_code(&requirement.id) && !requirement.same.as_ref().is_some_and(has_code) {
            gaps.push(format!("[{}] has no place in the code: {}", requirement.id, requirement.asks));
        }
        if cited.is_none_or(|cited| cited.tests.is_empty()) {
            gaps.push(format!("[{}] has no test: {}", requirement.id, requirement.asks));
        }
    }
    let known: BTreeSet<&str> = list.iter().map(|requirement| requirement.id.as_str()).collect();
    for (id, cited) in places {
        if !known.contains(id.as_str()) {
            let places: Vec<&String> = cited.code.iter().chain(&cited.tests).collect();
            gaps.push(format!("[{id}] does not exist, cited in {places:?}"));
        }
    }
    gaps
}

fn page(list: &[Requirement], places: &BTreeMap<String, Places>) -> String {
    let mut out = String::from(
        "# Conformance\n\nGenerated by `make conformance` from `tests/conformance/requirements.txt` and from citations in code and tests; \
         do not edit.\n\nEvery numbered requirement of MQTT 5.0 and of MQTT 3.1.1 (OASIS), in our words: read the standards for theirs. \
         `MQTT3-…` is 3.1.1.\nA requirement on the server has a place in the code and a test that shows it, or says why none can. What \
         only a client can keep is\nlisted for completeness; where the broker answers a client that breaks it, that is cited.\n",
    );
    for (version, prefix) in [("MQTT 5.0", "MQTT-"), ("MQTT 3.1.1", "MQTT3-")] {
        let of_version: Vec<&Requirement> = list.iter().filter(|one| one.id.starts_with(prefix)).collect();
        let clients = of_version.iter().filter(|one| one.client).count();
        let exempt = of_version.iter().filter(|one| !one.client && one.exempt.is_some()).count();
        let servers = of_version.len() - clients;
        let _written = write!(
            out,
            "\n## {version}\n\n{} requirements: {servers} on the server, of which {} are shown by tests and {exempt} say why not, and \
             {clients} on clients alone.\n\n| Requirement | Asks | Code | Test |\n|---|---|---|---|\n",
            of_version.len(),
            servers - exempt,
        );
        for one in of_version {
            let cited = places.get(&one.id);
            let cell = |places: Option<&BTreeSet<String>>| {
                places.map(|all| all.iter().cloned().collect::<Vec<_>>().join("<br>")).unwrap_or_default()
            };
            let mut code = cell(cited.map(|cited| &cited.code));
            if let Some(same) = &one.same {
                code = if code.is_empty() { format!("as {same}") } else { format!("{code}<br>as {same}") };
            }
            let mut tests = cell(cited.map(|cited| &cited.tests));
            if let Some(reason) = &one.exempt {
                tests = if tests.is_empty() { reason.clone() } else { format!("{tests}<br>{reason}") };
            }
            let whose = if one.client { "client: " } else { "" };
            let _written = writeln!(out, "| {} | {whose}{} | {code} | {tests} |", one.id, one.asks);
        }
    }
    out
}

#[test]
fn every_requirement_on_the_server_has_its_place_and_its_test() {
    let (list, places) = repository();
    let gaps = gaps(&list, &places);
    assert!(gaps.is_empty(), "{} gap(s):\n{}", gaps.len(), gaps.join("\n"));
}

#[test]
fn the_page_says_what_the_citations_say() {
    let (list, places) = repository();
    let page = page(&list, &places);
    let path = root().join(PAGE);
    if std::env::var_os("CONFORMANCE_WRITE").is_some() {
        fs::write(&path, page).expect("the page can be written");
    } else {
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "{PAGE} is out of date: run `make conformance`");
    }
}

#[test]
fn the_list_has_every_requirement_of_both_standards_once() {
    let (list, _) = repository();
    let ids: BTreeSet<&str> = list.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids.len(), list.len(), "an identifier is listed twice");
    // Appendix B of each standard.
    assert_eq!(ids.iter().filter(|id| id.starts_with("MQTT-")).count(), 251);
    assert_eq!(ids.iter().filter(|id| id.starts_with("MQTT3-")).count(), 141);
}

#[test]
fn gaps_are_found() {
    let list = parse_list(
        "# c\nMQTT-1.0.0-1 | server | a\nMQTT-1.0.0-2 | client | b\nMQTT3-1.0.0-1 | both | c | cannot be tested\n",
    );
    let mut places = BTreeMap::new();
    assert_eq!(gaps(&list, &places).len(), 2);
    collect("src/a.rs", "/// Does it. [MQTT-1.0.0-1]\nfn does() {}\n", &mut places);
    assert_eq!(gaps(&list, &places), ["[MQTT-1.0.0-1] has no test: a"]);
    collect(
        "tests/it/a.rs",
        "in_both_versions!(shows, |v| {\n    // [MQTT-1.0.0-1] and [MQTT-9.0.0-1]\n    x();\n});\n",
        &mut places,
    );
    assert_eq!(gaps(&list, &places).len(), 1, "a citation of what does not exist");
    assert!(places["MQTT-1.0.0-1"].code.contains("src/a.rs `does`"));
    assert!(places["MQTT-1.0.0-1"].tests.contains("tests/it/a.rs `shows`"));
}

#[test]
fn citations_name_the_function_they_stand_in() {
    let text = "fn first() {\n    // [MQTT-1.0.0-1]\n    call();\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    // [MQTT-1.0.0-2]\n    fn second() {}\n}\n";
    let mut places = BTreeMap::new();
    collect("src/a.rs", text, &mut places);
    assert!(places["MQTT-1.0.0-1"].code.contains("src/a.rs `first`"));
    assert!(places["MQTT-1.0.0-2"].tests.contains("src/a.rs `second`"));
    assert_eq!(citations("see [MQTT-3-8.3-4], [MQTT3-1.2.3-4] and [MQTT-x.y.z-n]"), ["MQTT-3-8.3-4", "MQTT3-1.2.3-4"]);
}
