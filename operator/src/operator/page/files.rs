//! The files of the page, as they are in the directory `files`: no build step, nothing from elsewhere.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::ByteString;
use pgrail_guard::Graph;
use sha2::{Digest, Sha256};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, type, content.
const FILES: [(&str, &str, &str); 14] = [
    ("/", HTML, include_str!("files/index.html")),
    ("/page.css", CSS, include_str!("files/page.css")),
    ("/icon.svg", SVG, include_str!("files/icon.svg")),
    ("/app.js", JS, include_str!("files/app.js")),
    ("/dom.js", JS, DOM),
    ("/facts.js", JS, include_str!("files/facts.js")),
    ("/format.js", JS, FORMAT),
    ("/layout.js", JS, LAYOUT),
    ("/graph.js", JS, GRAPH),
    ("/fleet.js", JS, include_str!("files/fleet.js")),
    ("/database.js", JS, include_str!("files/database.js")),
    ("/guards.js", JS, include_str!("files/guards.js")),
    ("/backups.js", JS, include_str!("files/backups.js")),
    ("/session.js", JS, include_str!("files/session.js")),
];
const DOM: &str = include_str!("files/dom.js");
const FORMAT: &str = include_str!("files/format.js");
const LAYOUT: &str = include_str!("files/layout.js");
const GRAPH: &str = include_str!("files/graph.js");
const STANDALONE: &str = include_str!("files/standalone.js");

/// The files, for everybody.
pub(super) fn routes() -> Router {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, content)| router.route(path, get(async move || file(kind, content))))
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let mut response = content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // A new version of pgrail is shown immediately.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// One self-contained page with the graph of a database: the same modules as the page of the operator, in one script.
pub(crate) fn standalone(graph: &Graph, chosen: &[String]) -> Result<String, serde_json::Error> {
    let data = serde_json::json!({"graph": graph, "chosen": chosen});
    // In a script element, only `<` can end the data.
    let data = serde_json::to_string(&data)?.replace('<', "\\u003c");
    let script = [DOM, FORMAT, LAYOUT, GRAPH, STANDALONE].map(without_imports).concat();
    let style = include_str!("files/page.css");
    let hash = |text: &str| serde_json::to_value(ByteString(Sha256::digest(text.as_bytes()).to_vec()));
    let (of_script, of_style) = (hash(&script)?, hash(style)?);
    let (of_script, of_style) = (of_script.as_str().unwrap_or_default(), of_style.as_str().unwrap_or_default());
    Ok(include_str!("files/standalone.html")
        .replace("{script-hash}", of_script)
        .replace("{style-hash}", of_style)
        .replace("{style}", style)
        .replace("{script}", &script)
        .replace("{data}", &data))
}

/// A module as a part of a larger one.
fn without_imports(module: &str) -> String {
    let lines = module.lines().filter(|line| !line.starts_with("import "));
    let lines = lines.map(|line| line.strip_prefix("export ").unwrap_or(line));
    lines.fold(String::new(), |mut text, line| {
        text.push_str(line);
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrail_guard::BlastRadius;

    /// A name, not an address.
    const NAMESPACE: &str = "http://www.w3.org/2000/svg";

    #[test]
    fn every_file_that_a_file_names_exists() {
        let known: Vec<&str> = FILES.iter().map(|(path, _, _)| *path).collect();
        for (path, kind, content) in FILES {
            let quoted = content.split(['"', '\'']).filter_map(|word| word.strip_prefix("./"));
            for name in quoted.filter(|name| kind != CSS && name.contains('.')) {
                assert!(known.contains(&format!("/{name}").as_str()), "{path} names {name}");
            }
            assert!(!content.replace(NAMESPACE, "").contains("://"), "{path}: nothing is from elsewhere");
        }
    }

    #[test]
    fn no_script_makes_html_from_text() {
        for (path, _, content) in FILES.into_iter().chain([("standalone", JS, STANDALONE)]) {
            let forbidden = [
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "document.write",
                "eval(",
                "new Function",
                "srcdoc",
                "DOMParser",
            ];
            for word in forbidden {
                assert!(!content.contains(word), "{path} has {word}");
            }
        }
    }

    #[test]
    fn one_file_has_everything_and_no_name_ends_its_script() {
        let table = BlastRadius {
            oid: 1,
            table: "public.</script><script>alert(1)</script>".to_owned(),
            rows: 1,
            cascade_tables: 0,
            rows_at_risk: 0,
            per_row: 0,
            guarded: false,
        };
        let graph = Graph { tables: vec![table], ..Graph::default() };
        let page = standalone(&graph, &[]).unwrap();
        assert_eq!(page.matches("</script>").count(), 2, "the data and the script");
        assert!(page.contains("\\u003c/script>\\u003cscript>alert(1)"));
        assert!(page.lines().all(|line| !line.starts_with("import ") && !line.starts_with("export ")));
        assert!(!page.contains("{script}") && !page.contains("{data}") && !page.contains("-hash}"));
        assert!(!page.replace(NAMESPACE, "").contains("://"), "nothing is fetched");
    }
}
