//! Which module of a crate imports which: a table of floors, arrows only downwards, no circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Imports of each module. A module is a file or a directory below `source`, with everything in it.
#[must_use]
pub fn imports(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    for (file, text) in files(source) {
        let relative = file.strip_prefix(source).expect("a file of the crate");
        let path: Vec<String> = relative
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .filter(|part| !["mod", "lib", "main"].contains(&part.as_str()))
            .collect();
        let Some(module) = path.first() else { continue };
        let found = references(&text, path.len());
        let entry: &mut BTreeSet<String> = imports.entry(module.clone()).or_default();
        entry.extend(found.into_iter().filter(|name| name != module));
    }
    imports
}

/// Panics unless every module stands on one floor (the first is the lowest), imports only from floors below, or from its
/// own floor, and no circle is left.
pub fn check(source: &Path, floors: &[&[&str]]) {
    let imports = imports(source);
    let floor_of: BTreeMap<&str, usize> =
        floors.iter().enumerate().flat_map(|(floor, names)| names.iter().map(move |name| (*name, floor))).collect();
    let unlisted: Vec<&String> = imports.keys().filter(|module| !floor_of.contains_key(module.as_str())).collect();
    assert!(unlisted.is_empty(), "no floor for {unlisted:?}");
    let gone: Vec<&&str> = floor_of.keys().filter(|module| !imports.contains_key(**module)).collect();
    assert!(gone.is_empty(), "no such module: {gone:?}");
    let mut upwards = Vec::new();
    for (module, others) in &imports {
        for other in others.iter().filter(|other| imports.contains_key(*other)) {
            if floor_of[other.as_str()] > floor_of[module.as_str()] {
                upwards.push(format!("{module} imports {other} from a floor above"));
            }
        }
    }
    assert!(upwards.is_empty(), "{}", upwards.join("\n"));
    if let Some(circle) = circle(&imports) {
        panic!("a circle of imports: {}", circle.join(" -> "));
    }
}

fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| walk(module, imports, &mut Vec::new(), &mut done))
}

fn walk(
    module: &str,
    imports: &BTreeMap<String, BTreeSet<String>>,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(at) = path.iter().position(|above| above == module) {
        return Some(path[at..].iter().cloned().chain([module.to_owned()]).collect());
    }
    if done.contains(module) {
        return None;
    }
    path.push(module.to_owned());
    let found = imports.get(module).into_iter().flatten().find_map(|other| walk(other, imports, path, done));
    path.pop();
    done.insert(module.to_owned());
    found
}

/// The modules that a file names after `crate::`, or after as many `super::` as lead out of its own module.
fn references(text: &str, depth: usize) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    let outwards = format!("super::{}", "super::".repeat(depth.saturating_sub(1)));
    for start in ["crate::", &outwards] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with([':', '_', '$']) || code[..at].ends_with(char::is_alphanumeric) {
                continue;
            }
            found.extend(first_names(&code[at + start.len()..]));
        }
    }
    found
}

/// `a::b` is `a`; `{a::b, c}` is `a` and `c`.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        return vec![name];
    };
    let mut names = vec![String::new()];
    let (mut nested, mut in_name) = (0, true);
    for c in group.chars() {
        match c {
            '{' => nested += 1,
            '}' if nested == 0 => break,
            '}' => nested -= 1,
            ',' if nested == 0 => {
                names.push(String::new());
                in_name = true;
            }
            c if in_name && nested == 0 && (c.is_alphanumeric() || c == '_') => {
                names.last_mut().expect("a name").push(c);
            }
            c if c.is_whitespace() => in_name &= names.last().is_some_and(String::is_empty),
            _ => in_name = false,
        }
    }
    names
}

fn files(directory: &Path) -> Vec<(std::path::PathBuf, String)> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.push((path, text));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_first_level() {
        let text = "use crate::{a::{x, y}, b, c as d};\nfn f() { crate::e::g() } // crate::no\nuse super::h; use super::super::i;";
        let names = |depth| references(text, depth).into_iter().collect::<Vec<_>>();
        assert_eq!(names(1), ["a", "b", "c", "e", "h", "super"]);
        assert_eq!(names(2), ["a", "b", "c", "e", "i"]);
    }

    #[test]
    fn a_circle_is_found() {
        let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, BTreeSet<String>> {
            let mut map: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (from, to) in pairs {
                map.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            }
            map
        };
        assert_eq!(circle(&of(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
        assert_eq!(circle(&of(&[("a", "b"), ("b", "c"), ("c", "b")])), Some(vec!["b".into(), "c".into(), "b".into()]));
    }
}
