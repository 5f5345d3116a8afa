//! Which module of a crate imports which, read from its sources: a table of floors, arrows only downwards, no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Panics unless every module below `source` is on one floor (the first is the lowest), imports only from its own floor
/// and those below, and no circle of imports is left. `floors` names directories and files of the first level.
pub fn check(source: &Path, floors: &[&[&str]]) {
    let modules = Modules::read(source);
    let wrong = modules.wrong(floors);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let circles = modules.circles();
    assert!(circles.is_empty(), "circles of imports: {circles:?}");
}

/// The modules of a crate, by path (`controllers::table_guard::apply`; the crate's root is ``), with the modules that each
/// imports: those that its paths beginning with `crate::` and `super::` lead to. Tests are left out.
struct Modules(BTreeMap<String, BTreeSet<String>>);

impl Modules {
    /// What is not as the table of floors has it.
    fn wrong(&self, floors: &[&[&str]]) -> Vec<String> {
        let floor_of: BTreeMap<&str, usize> =
            floors.iter().enumerate().flat_map(|(floor, names)| names.iter().map(move |name| (*name, floor))).collect();
        let first = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
        let existing: BTreeSet<String> = self.0.keys().map(|module| first(module)).collect();
        let gone =
            floor_of.keys().filter(|name| !existing.contains(**name)).map(|name| format!("no such module: {name}"));
        let mut wrong: Vec<String> = gone.collect();
        for (module, imports) in self.0.iter().filter(|(module, _)| !module.is_empty()) {
            let Some(floor) = floor_of.get(first(module).as_str()) else {
                wrong.push(format!("{module} is on no floor"));
                continue;
            };
            for other in imports {
                if floor_of.get(first(other).as_str()).is_none_or(|below| below > floor) {
                    let other = if other.is_empty() { "the crate's root" } else { other };
                    wrong.push(format!("{module} imports {other} from a floor above"));
                }
            }
        }
        wrong
    }

    fn read(src: &Path) -> Self {
        let mut files = Vec::new();
        collect(src, "", &mut files);
        let known: BTreeSet<&str> = files.iter().map(|(module, _)| module.as_str()).collect();
        let imports = files.iter().map(|(module, text)| {
            let paths = paths(&code_of(text), module);
            let mut imported: BTreeSet<String> = paths.iter().map(|path| longest_known(path, &known)).collect();
            imported.remove(module);
            (module.clone(), imported)
        });
        Self(imports.collect())
    }

    /// The circles: sets of modules that import each other, however far around. A directory's `mod.rs` names its files;
    /// that alone is no import.
    fn circles(&self) -> Vec<Vec<String>> {
        let reach: BTreeMap<&str, BTreeSet<&str>> =
            self.0.keys().map(|module| (module.as_str(), self.reach(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, reached) in &reach {
            let circle: Vec<String> = reached
                .iter()
                .filter(|other| reach.get(**other).is_some_and(|back| back.contains(module)))
                .map(|other| (*other).to_owned())
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reach(&self, module: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&str> = self.0.get(module).into_iter().flatten().map(String::as_str).collect();
        while let Some(at) = next.pop() {
            if reached.insert(at) {
                next.extend(self.0.get(at).into_iter().flatten().map(String::as_str));
            }
        }
        reached
    }
}

fn collect(folder: &Path, module: &str, files: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry of a directory").path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let below = if module.is_empty() { name.clone() } else { format!("{module}::{name}") };
        if path.is_dir() {
            collect(&path, &below, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            match name.as_str() {
                "tests" | "examples" => {}
                "mod" | "main" | "lib" => files.push((module.to_owned(), text)),
                _ => files.push((below, text)),
            }
        }
    }
}

/// The text without comments, strings and its module of tests.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let joined = lines.collect::<Vec<_>>().join("\n");
    // Every second part is inside a string, near enough for paths.
    joined.split('"').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Every path that begins with `crate::`, `super::` or `self::`, from the crate's root; groups in braces spelt out.
fn paths(code: &str, module: &str) -> Vec<String> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let begins = !code[..at].ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before));
            if begins {
                expand(&code[at..], "", &mut found);
            }
        }
    }
    found.iter().filter_map(|path| from_root(path, module)).collect()
}

/// Reads one use tree. Answers how much of the text it was.
fn expand(text: &str, prefix: &str, found: &mut Vec<String>) -> usize {
    let name_end = text.find(|it: char| !(it.is_alphanumeric() || "_:*".contains(it))).unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..name_end]);
    if !(path.ends_with("::") && text[name_end..].starts_with('{')) {
        found.push(path);
        return name_end;
    }
    let mut at = name_end + 1;
    loop {
        let rest = &text[at..];
        at += rest.len() - rest.trim_start_matches(|it: char| it.is_whitespace() || it == ',').len();
        match text[at..].chars().next() {
            None => return at,
            Some('}') => return at + 1,
            Some('a') if text[at..].starts_with("as ") => {
                at += text[at..].find([',', '}']).unwrap_or(text.len() - at);
            }
            Some(it) if it.is_alphanumeric() || it == '_' || it == '*' => at += expand(&text[at..], &path, found),
            Some(it) => at += it.len_utf8(),
        }
    }
}

fn from_root(path: &str, module: &str) -> Option<String> {
    let mut at: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts = path.split("::").peekable();
    match parts.next()? {
        "crate" => at.clear(),
        "super" => {
            at.pop()?;
            while parts.next_if_eq(&"super").is_some() {
                at.pop()?;
            }
        }
        _ => {}
    }
    at.extend(parts.filter(|part| !part.is_empty() && *part != "*"));
    Some(at.join("::"))
}

/// The module that a path leads into: the longest part of it that is one.
fn longest_known(path: &str, known: &BTreeSet<&str>) -> String {
    let mut path = path;
    while !known.contains(path) {
        path = path.rsplit_once("::").map_or("", |(above, _)| above);
        if path.is_empty() {
            break;
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_spelt_out_from_the_root() {
        let code =
            "use crate::a::{b::C, d::{self, E as F}};\nuse super::x;\nfn f() { super::super::y::g(); mysuper::z() }";
        let mut found = paths(code, "p::q::r");
        found.sort();
        assert_eq!(found, ["a::b::C", "a::d::E", "a::d::self", "p::q::x", "p::y::g"]);
    }

    #[test]
    fn circles_and_upward_imports_are_found() {
        let module = |name: &str, imports: &[&str]| {
            (name.to_owned(), imports.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>())
        };
        let modules = Modules(BTreeMap::from([
            module("top::a", &["low", "top::b"]),
            module("top::b", &["top::c"]),
            module("top::c", &["top::a"]),
            module("low", &["top::a"]),
        ]));
        assert_eq!(modules.wrong(&[&["low"], &["top"]]), ["low imports top::a from a floor above"]);
        let expected = [
            "no such module: gone",
            "low imports top::a from a floor above",
            "top::a is on no floor",
            "top::b is on no floor",
            "top::c is on no floor",
        ];
        assert_eq!(modules.wrong(&[&["low", "gone"]]), expected);
        assert_eq!(modules.circles(), [["low", "top::a", "top::b", "top::c"]]);
    }
}
