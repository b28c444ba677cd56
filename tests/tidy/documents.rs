//! The English and the Chinese documentation say the same commands, configurations and limits. That the commands work is
//! tested by `tests/e2e/test_docs.py`.

use std::fs;
use std::path::{Path, PathBuf};

/// Pages for those who change the code or build it; they need no Chinese counterpart.
const FOR_DEVELOPERS: [&str; 4] =
    ["docs/architecture.md", "docs/conformance.md", "benches/README.md", "vendor/README.md"];

/// Every page in English, as a path from the root of the project.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![PathBuf::from("README.md")];
    for folder in ["docs", "gm-certs", "benches", "vendor"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            found.push(Path::new(folder).join(entry.unwrap().file_name()));
        }
    }
    found.retain(|page| {
        let name = page.to_str().unwrap();
        name.ends_with(".md") && !name.ends_with(".zh-CN.md") && !FOR_DEVELOPERS.contains(&name)
    });
    found
}

fn read(page: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn in_chinese(page: &Path) -> PathBuf {
    page.with_extension("zh-CN.md")
}

/// Fenced blocks without the comments in them, which are prose.
fn blocks(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        match (&mut open, line.starts_with("```")) {
            (None, true) => open = Some(line.to_owned()),
            (None, false) => {}
            (Some(_), true) => found.extend(open.take()),
            (Some(_), false) if is_prose(line) => {}
            (Some(block), false) => {
                let code = line.split_once(" # ").map_or(line, |(code, _)| code).trim_end();
                block.push('\n');
                block.push_str(code);
            }
        }
    }
    found
}

/// A comment that is a line of its own, but for one that is the name of the file.
fn is_prose(line: &str) -> bool {
    line.strip_prefix("# ").is_some_and(|comment| !comment.ends_with(".toml"))
}

/// The rows of tables; of those about a key, the key and its default.
fn rows(text: &str) -> Vec<String> {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).skip(1).take(2).collect();
        if cells.first().is_some_and(|key| key.starts_with('`') && key.ends_with('`') && !key.contains(' ')) {
            cells.join(" | ")
        } else {
            "other".to_owned()
        }
    })
    .collect()
}

#[test]
fn every_page_for_users_has_a_chinese_counterpart_with_the_same_commands_and_configurations() {
    for page in pages() {
        let chinese = in_chinese(&page);
        let (expected, found) = (blocks(&read(&page)), blocks(&read(&chinese)));
        assert_eq!(found, expected, "{} differs from {}", chinese.display(), page.display());
    }
}

#[test]
fn the_limits_in_chinese_are_the_limits_in_english() {
    let page = Path::new("docs/limits.md");
    let (expected, found) = (rows(&read(page)), rows(&read(&in_chinese(page))));
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(found, expected, "docs/limits.zh-CN.md differs from docs/limits.md");
    }
    assert_eq!(found.len(), expected.len(), "one of docs/limits.md and docs/limits.zh-CN.md has more rows");
}

#[test]
fn comments_in_chinese_pages_are_chinese() {
    for page in pages() {
        let chinese = in_chinese(&page);
        let text = read(&chinese);
        let mut inside = false;
        let foreign = text.lines().filter(|line| {
            inside ^= line.starts_with("```");
            inside && is_prose(line) && line.is_ascii()
        });
        assert_eq!(foreign.collect::<Vec<_>>(), [""; 0], "{}", chinese.display());
    }
}

#[test]
fn pages_link_to_their_counterparts() {
    for page in pages() {
        let name = |page: &Path| page.file_name().unwrap().to_str().unwrap().to_owned();
        let chinese = in_chinese(&page);
        assert!(read(&page).contains(&format!("[中文]({})", name(&chinese))), "{}", page.display());
        assert!(read(&chinese).contains(&format!("[English]({})", name(&page))), "{}", chinese.display());
    }
}
